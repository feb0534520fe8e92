"""Forged, damaged, borrowed and outlived credentials, sent over HTTP; what each is refused for is tested in
``tests/use_cases/test_tokens.py``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from orgstead.base64url import to_base64url
from orgstead.model import Role
from orgstead.storage import tables
from tests.api.actors import PASSWORD, Person, Service, Standing, problem
from tests.use_cases.forge import b64, claims_of, header_of, hs256, parts

pytestmark = pytest.mark.anyio


async def ask_with(service: Service, token: str, **headers: str) -> httpx2.Response:
    """Who a token is for, as the service sees it."""
    return await service.client.get("/v1/me", headers={"authorization": f"Bearer {token}", **headers})


async def assert_refused(service: Service, token: str, why: str = "") -> None:
    answer = await ask_with(service, token)
    assert answer.status_code == 401, f"{why}: {answer.text}"
    problem(answer, 401, "auth.token_invalid")
    assert answer.headers["www-authenticate"] == 'Bearer realm="orgstead", error="invalid_token"'
    assert answer.headers["cache-control"] == "no-store"


async def login(service: Service, person: Person, **named: str) -> dict[str, Any]:
    answer = await service.ask("POST", "/v1/auth/login", body={"email": person.email, "password": PASSWORD, **named})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


# --- forged (C2 to C20) -----------------------------------------------------------------------------------------------

Forgery = Callable[[bytes, str], str]
"""Makes a token from the service's own HMAC key and one of its tokens; signed rightly where that is not the point."""


def _headed(**changes: Any) -> Forgery:
    """Another header; a member that is None is left out."""

    def forged(key: bytes, token: str) -> str:
        header = {name: value for name, value in {**header_of(token), **changes}.items() if value is not None}
        return hs256(b64(header), parts(token)[1], key)

    return forged


def _claiming(**changes: Any) -> Forgery:
    def forged(key: bytes, token: str) -> str:
        claims = {name: value for name, value in {**claims_of(token), **changes}.items() if value is not None}
        return hs256(parts(token)[0], b64(claims), key)

    return forged


def _written(replaced: str, by: str) -> Forgery:
    """The claims as JSON text with one part written otherwise."""

    def forged(key: bytes, token: str) -> str:
        text = json.dumps(claims_of(token))
        assert replaced in text
        return hs256(parts(token)[0], to_base64url(text.replace(replaced, by).encode()), key)

    return forged


def _exp(literal: str) -> Forgery:
    def forged(key: bytes, token: str) -> str:
        claims = claims_of(token)
        text = json.dumps(claims).replace(f'"exp": {claims["exp"]}', f'"exp": {literal}')
        return hs256(parts(token)[0], to_base64url(text.encode()), key)

    return forged


def _keyed(other: bytes) -> Forgery:
    return lambda key, token: hs256(*parts(token)[:2], other)


FORGERIES: dict[str, Forgery] = {
    **{f"C2 alg {alg}, signed": _headed(alg=alg) for alg in ("none", "None", "nOnE", "")},
    "C2 alg none, no signature": lambda key, token: f"{b64({**header_of(token), 'alg': 'none'})}.{parts(token)[1]}.",
    "C2 no signature": lambda key, token: ".".join(parts(token)[:2]) + ".",
    "C2 two parts": lambda key, token: ".".join(parts(token)[:2]),
    "C4 empty key": _keyed(b""),
    "C4 the key secret": _keyed(b"secret"),
    "C4 a key of 8 KB": _keyed(b"k" * 8192),
    "C5 zero signature": lambda key, token: ".".join([*parts(token)[:2], to_base64url(bytes(32))]),
    "C5 truncated signature": lambda key, token: token[:-8],
    **{
        f"C7 kid {kid!r:.40}": _headed(kid=kid)
        for kid in (None, "", 1, "../../dev/null", "' UNION SELECT 'k'--", {"$ne": 1}, ["a"], "k" * 3000)
    },
    **{f"C8 alg {alg}": _headed(alg=alg) for alg in ("HS384", "HS512", "RS256", "ES256", "EdDSA")},
    **{f"C8 header with {name}": _headed(**{name: "https://keys.example"}) for name in ("jku", "x5u", "jwk", "x5c")},
    "C8 header with crit": _headed(crit=["exp"]),
    "C10 expired": _claiming(exp=1),
    "C10 no exp": _claiming(exp=None),
    **{f"C10 exp {value}": _exp(value) for value in ('"9999999999"', "9999999999.5", "1e400", "-1", "true", "[1]")},
    "C11 nbf in the future": _claiming(nbf=4_000_000_000),
    "C11 iat in the future": _claiming(iat=4_000_000_000, nbf=4_000_000_000, exp=4_000_000_600),
    **{
        f"C13 iss {iss}": _claiming(iss=iss)
        for iss in ("https://evil.example", "http://127.0.0.1:8410/", "http", ["http://127.0.0.1:8410"])
    },
    "C13 aud of another service": _claiming(aud="billing"),
    "C13 several audiences": _claiming(aud=["orgstead", "billing"]),
    "C14 duplicate claim": _written('"org_role"', '"org_id": "org_x", "org_role"'),
    "C14 duplicate header member": lambda key, token: hs256(
        to_base64url(json.dumps(header_of(token)).replace('"typ"', '"alg": "HS256", "typ"').encode()),
        parts(token)[1],
        key,
    ),
    **{f"C16 typ {typ}": _headed(typ=typ) for typ in (None, "JWT", "refresh+jwt", "id_token", "AT+JWT", "at+JWT")},
    "C19 payload with padding": lambda key, token: hs256(parts(token)[0], parts(token)[1] + "=", key),
    "C19 another segment": lambda key, token: token + ".e30",
    "C19 an empty segment before": lambda key, token: "." + token,
    "C20 64 KB": lambda key, token: token + "A" * 65_536,
    "C20 nested payload": lambda key, token: hs256(
        parts(token)[0], to_base64url(b'{"iss":' + b"[" * 1000 + b"]" * 1000 + b"}"), key
    ),
    "C20 compressed": _headed(zip="DEF"),
    "C20 encrypted": lambda key, token: ".".join([b64({"alg": "dir", "enc": "A256GCM"}), "", "AAAA", "AAAA", "AAAA"]),
}


async def test_a_forged_token_is_nobodys(service: Service) -> None:
    acme = await service.organization("Acme")
    key = service.app.keys.derived("jwt")
    token = acme.owner.token
    assert (await ask_with(service, hs256(*parts(token)[:2], key))).status_code == 200
    before = await service.rows(tables.sessions)
    for name, forge in FORGERIES.items():
        await assert_refused(service, forge(key, token), name)
    assert await service.rows(tables.sessions) == before


async def test_a_changed_character_anywhere_is_refused(service: Service) -> None:
    """C19: one character of each segment after the other, and the spelling of the last."""
    acme = await service.organization("Acme")
    token = acme.owner.token
    for at in range(0, len(token), 7):
        if token[at] != ".":
            await assert_refused(service, token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :], f"at {at}")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    for spelling in {alphabet[last ^ 1], alphabet[last ^ 2], alphabet[last ^ 3]} - {token[-1]}:
        await assert_refused(service, token[:-1] + spelling, "last character")


async def test_a_claimed_role_and_organization_give_nothing(service: Service) -> None:
    """Rightly signed, and still only a claim: what counts is in the store."""
    acme, other = await service.organization("Acme"), await service.organization("Other")
    key = service.app.keys.derived("jwt")

    def claiming(person: Person, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {_claiming(**claims)(key, person.token)}"}

    promoted = await service.client.delete(acme.path, headers=claiming(acme.viewer, org_role="owner"))
    problem(promoted, 403, "auth.forbidden")
    for claims in ({"org_id": other.id}, {"sub": other.owner.user_id}, {"sid": other.owner.session_id}):
        answer = await service.client.get(other.path, headers=claiming(acme.owner, **claims))
        problem(answer, 401, "auth.token_invalid")
    both = await service.stored_user()
    for standing in (acme, other):
        await service.join(standing.organization, both, Role.OWNER)
    person = await service.logged_in(acme.organization, both, Role.OWNER)
    elsewhere = await service.client.get(other.path, headers=claiming(person, org_id=other.id))
    problem(elsewhere, 401, "auth.token_invalid")
    older = await service.client.get(acme.path, headers=claiming(acme.owner, org_epoch=2))
    problem(older, 401, "auth.token_invalid")


# --- one kind for another (C17) ---------------------------------------------------------------------------------------


async def test_no_kind_of_token_is_taken_for_another(service: Service) -> None:
    """R21: every kind of secret that the API hands out or takes, in every place that takes one."""
    acme = await service.organization("Acme")
    second = await service.organization("Second")
    user = await service.stored_user("both@people.example.com")
    for standing in (acme, second):
        await service.join(standing.organization, user, Role.VIEWER)
    person = await service.logged_in(acme.organization, user, Role.VIEWER)
    tokens = await login(service, person, organization=acme.id)
    page = await service.client.get("/v1/organizations?limit=1", headers=person.headers)
    program = await service.program(acme, Role.VIEWER)
    kinds = {
        "access": tokens["access_token"],
        "refresh": tokens["refresh_token"],
        "cursor": page.json()["next_cursor"],
        "session": person.session_id,
        "api key": program.token,
    }
    assert all(kinds.values())
    places: dict[str, Callable[[str], Any]] = {
        "access": lambda value: service.client.get(acme.path, headers={"authorization": f"Bearer {value}"}),
        "refresh": lambda value: service.ask("POST", "/v1/auth/refresh", body={"refresh_token": value}),
        "cursor": lambda value: service.client.get(
            "/v1/organizations", params={"limit": "1", "cursor": value}, headers=person.headers
        ),
    }
    refusals = {
        "access": (401, "auth.token_invalid"),
        "refresh": (401, "auth.token_invalid"),
        "cursor": (400, "cursor.invalid"),
    }
    for place, send in places.items():
        for kind, value in kinds.items():
            answer = await send(value)
            if kind == place or (place, kind) == ("access", "api key"):
                assert answer.status_code == 200, place
            else:
                problem(answer, *refusals[place])
                assert value not in answer.text


@pytest.mark.parametrize("query", ["access_token={}", "token={}", "authorization=Bearer%20{}"])
async def test_a_token_in_the_address_is_none(service: Service, query: str) -> None:
    """R24: addresses are logged."""
    acme = await service.organization("Acme")
    answer = await service.client.get("/v1/me?" + query.format(acme.owner.token))
    problem(answer, 401, "auth.required")


# --- headers (C28) ----------------------------------------------------------------------------------------------------

INDIRECTIONS: list[dict[str, str]] = [
    {"x-org-id": "{id}"},
    {"x-organization-id": "{id}", "x-tenant-id": "{id}", "x-user-id": "{user}"},
    {"x-forwarded-host": "{slug}.example", "forwarded": "host={slug}.example"},
    {"cookie": "org={id}; organization_id={id}; session={session}; access_token={token}"},
    {"x-original-url": "/v1/organizations/{id}", "x-rewrite-url": "/v1/organizations/{id}"},
    {"x-forwarded-user": "{user}", "x-remote-user": "{user}", "remote-user": "{user}"},
    {"x-forwarded-prefix": "/v1/organizations/{id}", "x-http-method-override": "DELETE"},
]


def _filled(headers: dict[str, str], standing: Standing) -> dict[str, str]:
    person = standing.owner
    words = {
        "id": standing.id,
        "slug": standing.slug,
        "user": person.user_id,
        "session": person.session_id,
        "token": person.token,
    }
    return {name: value.format(**words) for name, value in headers.items()}


@pytest.mark.parametrize("headers", INDIRECTIONS, ids=",".join)
async def test_only_the_credential_says_who_and_where(service: Service, headers: dict[str, str]) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    sent = _filled(headers, other)
    mine = await service.client.get(acme.path, headers={**acme.owner.headers, **sent})
    assert (mine.status_code, mine.json()["id"]) == (200, acme.id)
    assert (await ask_with(service, acme.owner.token, **sent)).json()["organization_id"] == acme.id
    theirs = await service.client.get(other.path, headers={**acme.owner.headers, **sent})
    problem(theirs, 404, "resource.not_found")
    problem(await service.client.get(other.path, headers=sent), 401, "auth.required")


@pytest.mark.parametrize("host", ["other.example", "test.evil.example", "test@evil.example", "test/abc?bar="])
async def test_another_host_is_no_host(service: Service, host: str) -> None:
    acme = await service.organization("Acme")
    problem(await ask_with(service, acme.owner.token, host=host), 400, "request.host_unknown")


# --- two organizations (C29) ------------------------------------------------------------------------------------------


async def test_a_token_is_for_one_of_a_persons_organizations(service: Service) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    user = await service.stored_user()
    await service.join(acme.organization, user, Role.OWNER)
    await service.join(other.organization, user, Role.OWNER)
    there = await service.logged_in(acme.organization, user, Role.OWNER)
    before = await service.located(other.id)
    for method, path, body in (
        ("GET", other.path, None),
        ("PATCH", other.path, {"name": "Mine"}),
        ("DELETE", other.path, None),
        ("POST", f"{other.path}/rename", {"name": "Mine"}),
        ("POST", f"{other.path}/suspend", None),
        ("GET", f"/org/get?organization_name={other.slug}", None),
        ("DELETE", f"/org/delete?organization_name={other.slug}", None),
    ):
        problem(await service.ask(method, path, there, body), 404, "resource.not_found")
    assert await service.located(other.id) == before
    listed = await service.ask("GET", "/v1/organizations", there)
    assert {found["id"] for found in listed.json()["data"]} == {acme.id, other.id}
    here = await login(service, there, organization=other.id)
    assert (await service.ask("GET", other.path, headers={"authorization": f"Bearer {here['access_token']}"})).json()[
        "id"
    ] == other.id


# --- outlived (C22 to C25) --------------------------------------------------------------------------------------------


async def test_a_token_lives_through_a_suspension_and_a_rename(service: Service) -> None:
    acme = await service.organization("Acme", plan="enterprise")
    await service.ask("POST", f"{acme.path}/suspend", acme.owner)
    problem(await service.ask("GET", acme.path, acme.viewer), 423, "organization.suspended")
    await service.ask("POST", f"{acme.path}/reactivate", acme.owner)
    assert (await service.ask("GET", acme.path, acme.viewer)).status_code == 200
    await service.ask("POST", f"{acme.path}/rename", acme.owner, {"name": "Renamed"})
    assert (await service.ask("GET", acme.path, acme.viewer)).json()["collection_name"] == "org_renamed"


async def test_a_token_that_was_verified_before_is_refused_once_it_is_over(service: Service) -> None:
    """C25: what is remembered of verified tokens says nothing about sessions."""
    acme = await service.organization("Acme")
    for _ in range(3):
        assert (await ask_with(service, acme.member.token)).status_code == 200
    await service.ask("POST", "/v1/auth/logout", acme.member)
    await assert_refused(service, acme.member.token)
    changed = {"current_password": PASSWORD, "new_password": "entirely new passphrase"}
    elsewhere = await login(service, acme.admin)
    assert (await service.ask("POST", "/v1/auth/password", acme.admin, changed)).status_code == 204
    assert (await ask_with(service, acme.admin.token)).status_code == 200
    await assert_refused(service, elsewhere["access_token"])
    problem(
        await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": elsewhere["refresh_token"]}),
        401,
        "auth.token_invalid",
    )


# --- refresh tokens (C31) ---------------------------------------------------------------------------------------------


async def test_a_replayed_refresh_token_ends_the_whole_family(service: Service) -> None:
    acme = await service.organization("Acme")
    first = await login(service, acme.owner)
    bystander = await login(service, acme.owner)

    async def refresh(tokens: dict[str, Any]) -> httpx2.Response:
        return await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": tokens["refresh_token"]})

    second = (await refresh(first)).json()
    third = (await refresh(second)).json()
    service.watch.advance(seconds=31)
    # Two generations old, and so never in grace: somebody has copied it.
    problem(await refresh(first), 401, "auth.token_invalid")
    for tokens in (first, second, third):
        await assert_refused(service, tokens["access_token"])
        problem(await refresh(tokens), 401, "auth.token_invalid")
    assert (await ask_with(service, bystander["access_token"])).status_code == 200
    assert (await refresh(bystander)).status_code == 200


async def test_a_damaged_refresh_token_ends_nothing(service: Service) -> None:
    """Nobody can end a session by guessing: only a token that was once right is taken for a copy."""
    acme = await service.organization("Acme")
    tokens = await login(service, acme.owner)
    head, _, mac = tokens["refresh_token"].rpartition("_")
    for damaged in (
        f"{head}_{'0' * 64}",
        f"{head[:-1]}9_{mac}",
        tokens["refresh_token"] + "0",
        tokens["refresh_token"].upper(),
    ):
        answer = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": damaged})
        problem(answer, 401, "auth.token_invalid")
    assert (
        await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    ).status_code == 200
