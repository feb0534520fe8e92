"""Every route with a call that succeeds, who may make it, and what no answer of the API may do.

``ROUTES`` says independently of the code who may call what: a permission given away by mistake in a guard or in the
policy is a difference between the two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
from fastapi.routing import APIRoute

from orgstead import placements
from orgstead.api import application
from orgstead.model import ApiKey, OrganizationStatus, Role
from orgstead.policy import RANK
from orgstead.storage import tables
from orgstead.storage.port import Table, Transaction
from tests.api.actors import PASSWORD, SCOPE, Person, Program, Service, Standing

ACTIVE, SUSPENDED, CLOSED = OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED, OrganizationStatus.CLOSED

NEW_PASSWORD = "entirely new passphrase"
MISSING = "01kcy7w2e4g8m3n5p7q9r1s3t5"
"""The random part of ids that nothing has."""

COLLECTION, RECORD, EMPTY_COLLECTION = "invoices", "inv-1", "nothing"
"""What the active organizations of a town have in their spaces."""

_numbers = itertools.count(1)


# --- the people -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Town:
    """Organizations in every status, and a log-in to one of them that can be refreshed."""

    service: Service
    own: Standing
    other: Standing
    suspended: Standing
    closed: Standing
    refresh_token: str
    programs: Mapping[Role, Program]
    """The programs of ``own``, by the role of their keys."""
    operations: Mapping[str, str]
    """organization -> the operation that created it"""

    def of(self, actor: str) -> Standing:
        """The organization that the actor belongs to; those without a valid credential try ``own``."""
        return {"foreign": self.other, "suspended": self.suspended, "closed": self.closed}.get(actor, self.own)


async def founded(service: Service) -> Town:
    """A town whose organizations share no word."""
    number = next(_numbers)
    own = await service.organization(f"Applewood {number}")
    login = {"email": own.owner.email, "password": PASSWORD, "organization": own.id}
    tokens = await service.client.post("/v1/auth/login", json=login)
    assert tokens.status_code == 200, tokens.text
    other = await service.organization(f"Birchfield {number}")
    for standing in (own, other):
        await _with_records(service, standing)
    suspended = await service.suspended(f"Cedarbrook {number}")
    closed = await service.closed(f"Dogwood {number}")
    programs = {role: await service.program(own, role) for role in (Role.VIEWER, Role.ADMIN, Role.OWNER)}
    for standing in (own, other, suspended, closed):
        await service.app.storage.run(SCOPE, _with_key, standing)
    return Town(
        service=service,
        own=own,
        other=other,
        suspended=suspended,
        closed=closed,
        refresh_token=tokens.json()["refresh_token"],
        programs=programs,
        operations={found.org_id: found.id for found in await service.rows(tables.operations)},
    )


async def _with_key(tx: Transaction, standing: Standing) -> None:
    """A viewer's API key, whose id follows from its organization's; its text is nobody's."""
    at = standing.organization.created_at
    key = ApiKey(
        org_id=standing.id,
        id=f"key_{standing.id.removeprefix('org_')}",
        name=f"key of {standing.slug}",
        role=Role.VIEWER,
        user_id=standing.owner.user_id,
        secret_hash="0" * 64,
        created_at=at,
        updated_at=at,
    )
    await tx.add(tables.api_keys, key)
    await tx.adjust(tables.organizations, standing.id, deltas={"api_keys": 1})


async def _with_records(service: Service, standing: Standing) -> None:
    """A record, whose text is its organization's slug, and a collection without any."""
    body = {"id": RECORD, "data": {"city": "Berlin", "total": 12, "note": standing.slug}}
    path = f"{standing.path}/collections"
    made = await service.ask("POST", f"{path}/{COLLECTION}/records", standing.owner, body)
    assert made.status_code == 201, made.text
    made = await service.ask("PUT", f"{path}/{EMPTY_COLLECTION}", standing.owner, {})
    assert made.status_code == 201, made.text


STRANGERS = ("nobody", "garbage", "expired")
"""Actors without a valid credential: none, one that is no token, one whose time is over."""

PROGRAMS = {"viewer-key": Role.VIEWER, "admin-key": Role.ADMIN, "owner-key": Role.OWNER}
"""Actors with an API key of ``own``."""

ACTORS = (*STRANGERS, "foreign", "suspended", "closed", "viewer", "member", "admin", "owner", *PROGRAMS)
"""``foreign``, ``suspended`` and ``closed`` are owners: of another organization, of a suspended and of a closed one."""


def person(town: Town, actor: str) -> Person | None:
    """The actor's log-in, None for strangers and programs."""
    if actor in STRANGERS or actor in PROGRAMS:
        return None
    return town.of(actor).people[Role(actor) if actor in RANK else Role.OWNER]


def credential(town: Town, actor: str) -> dict[str, str]:
    """The actor's headers."""
    if actor == "nobody":
        return {}
    if actor in PROGRAMS:
        return town.programs[PROGRAMS[actor]].headers
    if actor == "garbage":
        return {"authorization": "Bearer garbage"}
    if actor == "expired":
        service, owner = town.service, town.own.owner
        now = service.watch.moment
        service.watch.advance(hours=-2)
        minted = service.app.tokens.mint_access(
            user_id=owner.user_id,
            session_id=owner.session_id,
            org_id=town.own.id,
            role=Role.OWNER,
            org_epoch=town.own.organization.epoch,
        )
        service.watch.moment = now
        return {"authorization": f"Bearer {minted.token}"}
    who = person(town, actor)
    assert who is not None
    return who.headers


# --- the routes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent. ``path`` may hold ``{organization_id}`` and ``{operation_id}``."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None


Maker = Callable[[Town, Standing, str], Call]
"""Makes a call that succeeds, about an organization, for an actor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Who may call a route, and with what.

    ``least`` is the lowest role that may; None where no credential is needed. ``outcomes`` says for each status of the
    caller's organization in which the route listens at all what it answers; in others it refuses. ``strangers`` is the
    status for those without a credential where they may call it, too. What is ``for_people`` no program may call.
    """

    make: Maker
    least: Role | None = None
    outcomes: Mapping[OrganizationStatus, int] = field(default_factory=lambda: {ACTIVE: 200})
    strangers: int | None = None
    for_people: bool = False

    def expected(self, actor: str, named: bool) -> int:
        """The status for an actor; ``named``: the call names the organization ``own``, whoever makes it."""
        if self.least is None:
            return self.outcomes[ACTIVE]
        if actor in STRANGERS:
            return self.strangers if self.strangers and actor == "nobody" else 401
        status = {"suspended": SUSPENDED, "closed": CLOSED}.get(actor, ACTIVE)
        role = PROGRAMS.get(actor) or (Role(actor) if actor in RANK else Role.OWNER)
        if status is CLOSED and CLOSED not in self.outcomes:
            return 401
        if named and actor in ("foreign", "suspended", "closed"):
            return 404
        if status not in self.outcomes:
            return 423
        if self.for_people and actor in PROGRAMS:
            return 403
        return self.outcomes[status] if RANK[role] >= RANK[self.least] else 403


def _plain(town: Town, about: Standing, actor: str) -> Call:
    return Call()


def _by_id(body: dict[str, Any] | None = None) -> Maker:
    return lambda town, about, actor: Call(path={"organization_id": about.id}, body=body)


def _by_name(town: Town, about: Standing, actor: str) -> Call:
    return Call(query={"organization_name": about.slug})


def _with(**body: Any) -> Maker:
    return lambda town, about, actor: Call(body=body)


def _login(town: Town, about: Standing, actor: str) -> Call:
    return Call(body={"email": town.own.owner.email, "password": PASSWORD})


def _signup(town: Town, about: Standing, actor: str) -> Call:
    email = f"new{next(_numbers)}@people.example.com"
    return Call(body={"organization_name": _new_name(), "email": email, "password": NEW_PASSWORD})


def _creation(town: Town, about: Standing, actor: str) -> Call:
    body: dict[str, Any] = {"name": _new_name()}
    if actor in STRANGERS:
        body["owner"] = {"email": f"new{next(_numbers)}@people.example.com", "password": NEW_PASSWORD}
    return Call(body=body)


def _rename(town: Town, about: Standing, actor: str) -> Call:
    return Call(path={"organization_id": about.id}, body={"name": _new_name()})


def _org_update(town: Town, about: Standing, actor: str) -> Call:
    return Call(body={"organization_name": _new_name()})


def _operation(town: Town, about: Standing, actor: str) -> Call:
    return Call(path={"operation_id": town.operations[about.id]})


def _api_key(town: Town, about: Standing, actor: str) -> Call:
    """About the API key that every organization of a town has."""
    return Call(path={"organization_id": about.id, "api_key_id": f"key_{about.id.removeprefix('org_')}"})


def _invoice(body: dict[str, Any] | None = None, **query: str) -> Maker:
    """About the collection and the record that every active organization of a town has."""

    def make(town: Town, about: Standing, actor: str) -> Call:
        path = {"organization_id": about.id, "collection": COLLECTION, "record_id": RECORD}
        return Call(path=path, query=query, body=body)

    return make


def _new_collection(town: Town, about: Standing, actor: str) -> Call:
    body = {"schema": {"type": "object"}, "indexes": [["city"]], "unique": [["sku"]]}
    return Call(path={"organization_id": about.id, "collection": f"new_{next(_numbers)}"}, body=body)


def _empty_collection(town: Town, about: Standing, actor: str) -> Call:
    return Call(path={"organization_id": about.id, "collection": EMPTY_COLLECTION})


def _batch(town: Town, about: Standing, actor: str) -> Call:
    operations = [
        {"op": "create", "collection": COLLECTION, "data": {"n": 1}},
        {"op": "patch", "collection": COLLECTION, "id": RECORD, "data": {"n": 2}, "if_version": 1},
    ]
    return Call(path={"organization_id": about.id}, body={"operations": operations})


def _refresh(town: Town, about: Standing, actor: str) -> Call:
    return Call(body={"refresh_token": town.refresh_token})


def _new_name() -> str:
    return f"Elmhurst {next(_numbers)}"


OWN = "/v1/organizations/{organization_id}"
COLLECTIONS = OWN + "/collections"
ONE_COLLECTION = COLLECTIONS + "/{collection}"
RECORDS = ONE_COLLECTION + "/records"
ONE_RECORD = RECORDS + "/{record_id}"
API_KEYS = OWN + "/api_keys"
ONE_API_KEY = API_KEYS + "/{api_key_id}"
_RESTORED = {ACTIVE: 409, SUSPENDED: 409, CLOSED: 200}
_NEW_KEY = {"name": "a program", "role": "viewer"}
_CHANGE = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

ROUTES: dict[tuple[str, str], Entry] = {
    ("POST", "/org/create"): Entry(_signup, outcomes={ACTIVE: 201}),
    ("GET", "/org/get"): Entry(_by_name, Role.VIEWER),
    ("PUT", "/org/update"): Entry(_org_update, Role.ADMIN),
    ("DELETE", "/org/delete"): Entry(_by_name, Role.OWNER, for_people=True),
    ("POST", "/admin/login"): Entry(_login),
    ("POST", "/v1/auth/login"): Entry(_login),
    ("POST", "/v1/auth/refresh"): Entry(_refresh),
    ("POST", "/v1/auth/logout"): Entry(_plain, Role.VIEWER, {ACTIVE: 204, SUSPENDED: 204}, for_people=True),
    ("POST", "/v1/auth/password"): Entry(_with(**_CHANGE), Role.VIEWER, {ACTIVE: 204}, for_people=True),
    ("GET", "/.well-known/jwks.json"): Entry(_plain),
    ("GET", "/v1/me"): Entry(_plain, Role.VIEWER, for_people=True),
    ("GET", "/v1/organizations"): Entry(_plain, Role.VIEWER, for_people=True),
    ("POST", "/v1/organizations"): Entry(_creation, Role.VIEWER, {ACTIVE: 201}, strangers=201, for_people=True),
    ("GET", OWN): Entry(_by_id(), Role.VIEWER),
    ("PATCH", OWN): Entry(_by_id({"metadata": {"seen": True}}), Role.ADMIN),
    ("DELETE", OWN): Entry(_by_id(), Role.OWNER, for_people=True),
    ("POST", OWN + "/rename"): Entry(_rename, Role.ADMIN),
    ("POST", OWN + "/plan"): Entry(_by_id({"plan": "pro"}), Role.OWNER),
    ("POST", OWN + "/suspend"): Entry(_by_id(), Role.OWNER),
    ("POST", OWN + "/reactivate"): Entry(_by_id(), Role.OWNER, {ACTIVE: 409, SUSPENDED: 200}),
    ("POST", OWN + "/restore"): Entry(
        _by_id(), Role.OWNER, {ACTIVE: 409, SUSPENDED: 409, CLOSED: 200}, for_people=True
    ),
    ("GET", OWN + "/usage"): Entry(_by_id(), Role.VIEWER),
    ("GET", API_KEYS): Entry(_by_id(), Role.ADMIN, for_people=True),
    ("POST", API_KEYS): Entry(_by_id(_NEW_KEY), Role.ADMIN, {ACTIVE: 201}, for_people=True),
    ("GET", ONE_API_KEY): Entry(_api_key, Role.ADMIN, for_people=True),
    ("POST", ONE_API_KEY + "/rotate"): Entry(_api_key, Role.ADMIN, for_people=True),
    ("DELETE", ONE_API_KEY): Entry(_api_key, Role.ADMIN, {ACTIVE: 204}, for_people=True),
    ("GET", OWN + "/events"): Entry(_by_id(), Role.VIEWER),
    ("GET", COLLECTIONS): Entry(_by_id(), Role.VIEWER),
    ("GET", ONE_COLLECTION): Entry(_invoice(), Role.VIEWER),
    ("PUT", ONE_COLLECTION): Entry(_new_collection, Role.ADMIN, {ACTIVE: 201}),
    ("DELETE", ONE_COLLECTION): Entry(_empty_collection, Role.ADMIN, {ACTIVE: 204}),
    ("POST", RECORDS): Entry(_invoice({"data": {"city": "Bonn"}}), Role.MEMBER, {ACTIVE: 201}),
    ("GET", RECORDS): Entry(_invoice(), Role.VIEWER),
    ("GET", RECORDS + ":count"): Entry(_invoice(), Role.VIEWER),
    ("POST", RECORDS + ":batchGet"): Entry(_invoice({"ids": ["inv-1", "missing"]}), Role.VIEWER),
    ("GET", ONE_RECORD): Entry(_invoice(), Role.VIEWER),
    ("PUT", ONE_RECORD): Entry(_invoice({"data": {"city": "Kiel"}}), Role.MEMBER),
    ("PATCH", ONE_RECORD): Entry(_invoice({"data": {"city": None}}), Role.MEMBER),
    ("DELETE", ONE_RECORD): Entry(_invoice(), Role.MEMBER, {ACTIVE: 204}),
    ("POST", OWN + "/records:batch"): Entry(_batch, Role.MEMBER),
    ("POST", ONE_COLLECTION + "/query"): Entry(
        _invoice({"where": {"field": "city", "eq": "Berlin"}, "order": ["-total"]}), Role.VIEWER
    ),
    ("POST", ONE_COLLECTION + "/aggregate"): Entry(_invoice({"measures": {"n": {"count": True}}}), Role.VIEWER),
    ("GET", "/v1/operations/{operation_id}"): Entry(_operation, Role.VIEWER),
    ("GET", "/openapi.json"): Entry(_plain),
    ("GET", "/docs"): Entry(_plain),
    ("GET", "/docs/{name}"): Entry(lambda town, about, actor: Call(path={"name": "page.css"})),
}

PAGES = frozenset({"/openapi.json", "/docs", "/docs/{name}"})
"""Routes of the documentation, which answer with files."""

Key = tuple[str, str]


def found_routes() -> Iterator[Key]:
    """Every (method, path) of the application; HEAD belongs to its GET."""
    for route in application.routes():
        for method in sorted(getattr(route, "methods", None) or {"?"}):
            if method != "HEAD":
                yield method, getattr(route, "path", "?")


def with_body() -> list[Key]:
    """The routes that read a body."""
    reading = [route for route in application.routes() if isinstance(route, APIRoute) and route.body_field is not None]
    return [(method, route.path) for route in reading for method in sorted(route.methods or ())]


def name_of(key: Key) -> str:
    return f"{key[0]} {key[1]}"


def names_an_organization(call: Call) -> bool:
    """Does the call say which organization (or thing of one) it is about, beside its credential?"""
    return bool({"organization_id", "operation_id"} & call.path.keys() or "organization_name" in call.query)


def missing(call: Call) -> Call:
    """The call about an organization, or an operation, that does not exist."""
    nothing = {
        "organization_id": f"org_{MISSING}",
        "operation_id": f"op_{MISSING}",
        "api_key_id": f"key_{MISSING}",
    }
    return replace(
        call,
        path={name: nothing.get(name, value) for name, value in call.path.items()},
        query=dict.fromkeys(call.query, "elsewhere"),
    )


async def send(
    town: Town, key: Key, call: Call, headers: Mapping[str, str], body: bytes | None = None
) -> httpx2.Response:
    """The answer to a call, judged by ``assert_decent``; ``body`` instead of the call's own, with its own headers."""
    method, path = key
    url = path.format(**call.path)
    sent = {"x-request-id": "of-the-matrix", **headers}
    client = town.service.client
    if body is not None:
        answer = await client.request(method, url, params=dict(call.query), headers=sent, content=body)
    elif call.body is not None:
        answer = await client.request(method, url, params=dict(call.query), headers=sent, json=call.body)
    else:
        answer = await client.request(method, url, params=dict(call.query), headers=sent)
    assert_decent(answer, page=path in PAGES)
    return answer


# --- what holds for every answer --------------------------------------------------------------------------------------


def assert_decent(answer: httpx2.Response, *, page: bool = False) -> None:
    """An answer of the contract: no fault, a request id, a small problem document for every refusal."""
    assert answer.status_code < 500, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code < 400:
        if answer.content and not page:
            assert answer.headers["content-type"] == "application/json"
        return
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert len(answer.content) <= 4096
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["x-request-id"]
    assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)


def secrets_of(standing: Standing) -> list[str]:
    """What nobody outside of the organization may ever be shown."""
    people = [word for one in standing.people.values() for word in (one.email, one.user_id, one.session_id)]
    return [standing.id, standing.slug, standing.organization.name, *people]


def assert_nothing_of_others(town: Town, actor: str, answer: httpx2.Response) -> None:
    """No answer has a word of an organization that is not the actor's."""
    everyone = (town.own, town.other, town.suspended, town.closed)
    for standing in everyone:
        if standing is not town.of(actor):
            for word in secrets_of(standing):
                assert word not in answer.text, f"{actor} was shown {word}"


async def state(town: Town) -> dict[str, list[Any]]:
    """Every row of the directory, and of the organizations' spaces."""
    storage = town.service.app.storage
    found = await storage.read(SCOPE, _state, tables.DIRECTORY)
    for table in tables.SPACE:
        found[table.name] = []
    for placement in found["placements"]:
        rows = await storage.read(placements.space_of(placement), _state, tables.SPACE)
        for name in rows:
            found[name] += rows[name]
    return found


async def _state(tx: Transaction, which: Sequence[Table[Any]]) -> dict[str, list[Any]]:
    return {table.name: await _all(tx, table) for table in which}


async def _all(tx: Transaction, table: Table[Any]) -> list[Any]:
    rows: list[Any] = []
    while batch := await tx.page(table, after=_key(table, rows[-1]) if rows else None, limit=1000):
        rows += batch
    return rows


def _key(table: Table[Any], row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in table.key)
