"""Every route x every kind of caller: who is let in, and that a refusal changes nothing and betrays nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from orgstead.model import Role
from orgstead.storage import tables
from tests.api import matrix
from tests.api.actors import Service
from tests.api.conftest import Services
from tests.api.matrix import ACTORS, ROUTES, Call, Key, Town, founded, name_of, send

pytestmark = pytest.mark.anyio

KEYS = list(ROUTES)
GUARDED = [key for key in KEYS if ROUTES[key].least is not None]


def _calls(town: Town, key: Key, actor: str) -> Call:
    """A call that succeeds if the actor may make it: about ``own`` where it names an organization."""
    return ROUTES[key].make(town, town.own, actor)


def _own_call(town: Town, key: Key, actor: str) -> Call:
    """The call about the actor's own organization."""
    return ROUTES[key].make(town, town.of(actor), actor)


NAMING = [
    key
    for key in KEYS
    if "{organization_id}" in key[1] or "{operation_id}" in key[1] or key[1] in ("/org/get", "/org/delete")
]
"""Routes whose calls name an organization, or a thing of one, beside the credential."""


def is_refused(key: Key, actor: str) -> bool:
    return ROUTES[key].expected(actor, named=False) >= 400


CELLS = [(key, actor) for key in GUARDED for actor in ACTORS]
REFUSED = [cell for cell in CELLS if is_refused(*cell)]
ALLOWED = [cell for cell in CELLS if not is_refused(*cell)]
READING = [cell for cell in ALLOWED if cell[0][0] == "GET"]
CHANGING = [cell for cell in ALLOWED if cell not in READING]
PUBLIC = [key for key in KEYS if key not in GUARDED]


def cells(chosen: list[tuple[Key, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("key", "actor"), chosen, ids=[f"{name_of(key)} as {actor}" for key, actor in chosen]
    )


def routes(chosen: list[Key]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("key", chosen, ids=map(name_of, chosen))


@pytest.fixture(scope="module")
async def shared(services: Services, anyio_backend: str) -> AsyncIterator[Town]:
    """A town that only refused calls are made in, so that it stays as it is."""
    async with services() as service:
        yield await founded(service)


@pytest.fixture
async def town(service: Service) -> Town:
    return await founded(service)


# --- the table itself -------------------------------------------------------------------------------------------------


def test_the_table_has_every_route_and_no_other() -> None:
    assert sorted(matrix.found_routes()) == sorted(ROUTES)


# --- who is let in ----------------------------------------------------------------------------------------------------


@cells(REFUSED)
async def test_who_may_not_is_refused_and_nothing_changes(shared: Town, key: Key, actor: str) -> None:
    before = await matrix.state(shared)
    answer = await send(shared, key, _own_call(shared, key, actor), matrix.credential(shared, actor))
    assert answer.status_code == ROUTES[key].expected(actor, named=False), answer.text
    matrix.assert_nothing_of_others(shared, actor, answer)
    assert await matrix.state(shared) == before


@cells(READING)
async def test_who_may_reads_their_own_and_changes_nothing(shared: Town, key: Key, actor: str) -> None:
    before = await matrix.state(shared)
    answer = await send(shared, key, _own_call(shared, key, actor), matrix.credential(shared, actor))
    assert answer.status_code == ROUTES[key].expected(actor, named=False), answer.text
    matrix.assert_nothing_of_others(shared, actor, answer)
    assert await matrix.state(shared) == before


@cells(CHANGING)
async def test_who_may_changes_their_own_only(town: Town, key: Key, actor: str) -> None:
    before = await matrix.state(town)
    answer = await send(town, key, _own_call(town, key, actor), matrix.credential(town, actor))
    assert answer.status_code == ROUTES[key].expected(actor, named=False), answer.text
    matrix.assert_nothing_of_others(town, actor, answer)
    _assert_only_changed(town, actor, before, await matrix.state(town))


@routes(PUBLIC)
async def test_public_routes_serve_everyone_alike(town: Town, key: Key) -> None:
    """They look at no credential; what they change is of whoever logs in, or is new."""
    for actor in ACTORS:
        before = await matrix.state(town)
        answer = await send(town, key, _calls(town, key, actor), matrix.credential(town, actor))
        assert answer.status_code == ROUTES[key].expected(actor, named=False), answer.text
        matrix.assert_nothing_of_others(town, "owner", answer)
        _assert_only_changed(town, "owner", before, await matrix.state(town))


def _assert_only_changed(town: Town, actor: str, before: dict[str, list[Any]], after: dict[str, list[Any]]) -> None:
    """Rows of organizations other than the actor's are as they were; people of others, too."""
    own = town.of(actor)
    mine = {own.id, *(one.user_id for one in own.people.values())}
    known = {row.id for row in before["organizations"]} | {row.id for row in before["users"]}

    def others(rows: list[Any]) -> list[Any]:
        return [row for row in rows if _whose(row) in known - mine]

    assert {name: others(rows) for name, rows in after.items()} == {name: others(rows) for name, rows in before.items()}


def _whose(row: Any) -> str | None:
    """The organization that a row belongs to; accounts and organizations are their own."""
    owner: str | None = getattr(row, "org_id", None) or getattr(row, "id", None)
    return owner


# --- foreign is missing -----------------------------------------------------------------------------------------------


@cells([(key, actor) for key in NAMING for actor in (*ACTORS, "foreign viewer", "foreign member", "foreign admin")])
async def test_what_is_foreign_is_answered_as_what_is_missing(shared: Town, key: Key, actor: str) -> None:
    """In path and query, for every caller: the same bytes, whether an organization is another's or nobody's."""
    kind, _, role = actor.partition(" ")
    headers = shared.other.people[Role(role)].headers if role else matrix.credential(shared, kind)
    # The foreigners ask for ``own``; its own people, and those without a credential, for ``other``.
    outsider = kind in ("foreign", "suspended", "closed")
    foreign = ROUTES[key].make(shared, shared.own if outsider else shared.other, kind)
    before = await matrix.state(shared)
    answer = await send(shared, key, foreign, headers)
    nothing = await send(shared, key, replace(matrix.missing(foreign), body=foreign.body), headers)
    assert answer.status_code == nothing.status_code >= 400
    assert answer.content == nothing.content
    assert answer.headers.multi_items() == nothing.headers.multi_items()
    if not role and kind not in matrix.STRANGERS and "{organization_id}" in key[1]:
        assert answer.status_code == (401 if ROUTES[key].expected(kind, named=False) == 401 else 404)
    assert await matrix.state(shared) == before


@routes([key for key in NAMING if key[0] != "DELETE"])
async def test_the_owner_of_another_organization_gets_a_404(shared: Town, key: Key) -> None:
    answer = await send(shared, key, ROUTES[key].make(shared, shared.other, "owner"), shared.own.owner.headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "resource.not_found")


NAMES_OF_IDS = ("organization_id", "org_id", "organization", "id", "tenant", "user_id")


@routes(GUARDED)
async def test_a_foreign_id_in_the_query_is_refused_or_means_nothing(town: Town, key: Key) -> None:
    call = _calls(town, key, "owner")
    wanted = {**dict.fromkeys(NAMES_OF_IDS, town.other.id), **call.query}
    before = await matrix.state(town)
    answer = await send(town, key, replace(call, query=wanted), town.own.owner.headers)
    assert answer.status_code in (ROUTES[key].expected("owner", named=False), 422), answer.text
    matrix.assert_nothing_of_others(town, "owner", answer)
    _assert_only_changed(town, "owner", before, await matrix.state(town))


IN_BODIES = [
    (key, name)
    for key in matrix.with_body()
    for name in NAMES_OF_IDS
    # What a record is called is its organization's own choice: test_an_id_of_another_organization_is_no_other_id.
    if (*key, name) != ("POST", matrix.RECORDS, "id")
]


@pytest.mark.parametrize(("key", "name"), IN_BODIES, ids=[f"{name_of(key)} {name}" for key, name in IN_BODIES])
async def test_a_foreign_id_in_the_body_is_refused(shared: Town, key: Key, name: str) -> None:
    """Where a body may name an organization (logging in), another's is answered as one that is not there."""
    call = _calls(shared, key, "owner")
    assert call.body is not None
    before = await matrix.state(shared)
    answer = await send(shared, key, replace(call, body={**call.body, name: shared.other.id}), shared.own.owner.headers)
    if name == "organization" and key[1] in ("/v1/auth/login", "/admin/login"):
        nothing = {**call.body, name: f"org_{matrix.MISSING}"}
        missing = await send(shared, key, replace(call, body=nothing), shared.own.owner.headers)
        assert answer.status_code == missing.status_code == 401
        assert answer.content == missing.content
    else:
        assert answer.status_code == 422
    matrix.assert_nothing_of_others(shared, "owner", answer)
    assert await matrix.state(shared) == before


async def test_an_id_of_another_organization_is_no_other_id(town: Town) -> None:
    """What a record is called is its organization's own choice, and leads nowhere else."""
    key = ("POST", matrix.RECORDS)
    call = _calls(town, key, "owner")
    assert call.body is not None
    before = await matrix.state(town)
    answer = await send(town, key, replace(call, body={**call.body, "id": town.other.id}), town.own.owner.headers)
    assert answer.status_code == 201, answer.text
    _assert_only_changed(town, "owner", before, await matrix.state(town))


# --- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted({path for _, path in KEYS}))
async def test_other_methods_are_refused_by_name(shared: Town, path: str) -> None:
    known = {method for method, other in KEYS if other == path}
    call = _calls(shared, next(key for key in KEYS if key[1] == path), "owner")
    before = await matrix.state(shared)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND"} - known:
        answer = await send(shared, (method, path), replace(call, body=None), shared.own.owner.headers)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == known | ({"HEAD"} if "GET" in known else set())
    assert await matrix.state(shared) == before


@pytest.mark.parametrize("header", ["x-http-method-override", "x-http-method", "x-method-override"])
async def test_a_method_is_not_overridden(shared: Town, header: str) -> None:
    call = Call(path={"organization_id": shared.own.id}, query={"_method": "DELETE"})
    headers = {**shared.own.owner.headers, header: "DELETE"}
    answer = await send(shared, ("GET", matrix.OWN), call, headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "active")
    assert (await shared.service.located(shared.own.id)).organization.status == "active"


async def test_every_refused_route_is_refused_before_its_body_is_looked_at(shared: Town) -> None:
    """Nobody without a valid credential learns anything about bodies."""
    for key in GUARDED:
        if ROUTES[key].strangers is None and key[0] in ("POST", "PUT", "PATCH"):
            call = replace(ROUTES[key].make(shared, shared.own, "garbage"), body={"unknown": 1})
            answer = await send(shared, key, call, matrix.credential(shared, "garbage"))
            assert answer.status_code == 401, name_of(key)


async def test_the_matrix_sees_a_permission_that_is_given_away(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it expects is its own table, not the policy that it tests."""
    monkeypatch.setattr("orgstead.access.allowed", lambda role, permission: True)
    key = ("DELETE", matrix.OWN)
    answer = await send(town, key, _calls(town, key, "viewer"), town.own.viewer.headers)
    assert (answer.status_code, ROUTES[key].expected("viewer", named=True)) == (200, 403)


async def test_the_town_can_see_a_change(town: Town) -> None:
    """What proves that nothing changed would be seen: every table of the directory is looked at."""
    before = await matrix.state(town)
    assert {"organizations", "users", "sessions", "audit_entries"} <= before.keys()
    assert all(before[table.name] for table in (tables.organizations, tables.users, tables.sessions, tables.slugs))
    await send(town, ("POST", "/v1/auth/logout"), Call(), town.own.owner.headers)
    assert await matrix.state(town) != before
