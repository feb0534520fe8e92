"""API keys over HTTP: shown once, bound to one organization and a role, dead on the next request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orgstead import members
from orgstead.api_keys import _checksum
from orgstead.audit import Actor
from orgstead.model import Role
from orgstead.rates import Rates
from orgstead.storage import tables
from tests.api.actors import PASSWORD, SCOPE, Person, Program, Service, Standing, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio

_SOMEBODY = Actor("usr_somebody")
ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER)


@pytest.fixture(params=["free", "enterprise"], ids=["pooled", "dedicated"])
async def acme(service: Service, request: pytest.FixtureRequest) -> Standing:
    return await service.organization("Acme", plan=request.param)


async def status_of(service: Service, standing: Standing, program: Program | Person) -> int:
    return (await service.ask("GET", standing.path, program)).status_code


async def assert_dead(service: Service, standing: Standing, program: Program) -> None:
    answer = await service.ask("GET", standing.path, program)
    problem(answer, 401, "auth.token_invalid")
    assert answer.headers["www-authenticate"] == 'Bearer realm="orgstead", error="invalid_token"'


async def change_role(service: Service, standing: Standing, person: Person, role: Role) -> None:
    at = service.watch()
    await service.app.storage.run(SCOPE, members.change_role, standing.id, person.user_id, role, _SOMEBODY, at)


async def remove(service: Service, standing: Standing, person: Person) -> None:
    at = service.watch()
    await service.app.storage.run(SCOPE, members.remove, standing.id, person.user_id, _SOMEBODY, at)


def _sealed(text: str) -> str:
    """The text as a key that is well-formed."""
    return text + _checksum(text)


# --- made, used, ended ------------------------------------------------------------------------------------------------


async def test_a_program_works_with_a_key_until_it_is_deleted(service: Service, acme: Standing) -> None:
    body = {"name": "import", "role": "member", "expires_at": "2027-01-01T12:00:00.123456+02:00"}
    made = await service.ask("POST", acme.path + "/api_keys", acme.admin, body)
    assert made.status_code == 201, made.text
    shown = made.json()
    key = shown.pop("token")
    assert made.headers["location"] == f"{acme.path}/api_keys/{shown['id']}"
    assert (shown["object"], shown["name"], shown["role"]) == ("api_key", "import", "member")
    assert (shown["created_by"], shown["last_used_at"]) == (acme.admin.user_id, None)
    assert shown["expires_at"] == "2027-01-01T10:00:00.123Z"
    program = Program(shown["id"], Role.MEMBER, key)
    record = await service.ask("POST", acme.path + "/collections/notes/records", program, {"id": "a", "data": {"n": 1}})
    assert record.status_code == 201, record.text
    await service.settled()
    one = f"{acme.path}/api_keys/{shown['id']}"
    read = await service.ask("GET", one, acme.admin)
    assert read.json() == {**shown, "last_used_at": "2026-11-23T10:00:00.000Z"}
    again = await service.ask("GET", one, acme.admin, headers={"if-none-match": read.headers["etag"]})
    assert again.status_code == 304
    listed = (await service.ask("GET", acme.path + "/api_keys", acme.admin)).json()
    assert listed == {"object": "list", "data": [read.json()], "next_cursor": None}
    usage = (await service.ask("GET", acme.path + "/usage", program)).json()
    limit = service.app.settings.plans[acme.organization.plan].max_api_keys
    assert usage["api_keys"] == {"used": 1, "limit": limit}
    assert (await service.ask("DELETE", one, acme.admin)).status_code == 204
    await assert_dead(service, acme, program)
    problem(await service.ask("GET", one, acme.admin), 404, "resource.not_found")
    problem(await service.ask("DELETE", one, acme.admin), 404, "resource.not_found")
    assert (await service.ask("GET", acme.path + "/usage", acme.viewer)).json()["api_keys"]["used"] == 0


async def test_what_a_program_does_is_noted_as_its_own(service: Service, acme: Standing) -> None:
    program = await service.program(acme, Role.ADMIN)
    path = acme.path + "/collections/notes/records"
    assert (await service.ask("POST", path, program, {"data": {}})).status_code == 201
    events = (await service.ask("GET", acme.path + "/events", acme.viewer)).json()["data"]
    assert {event["actor"] for event in events} == {program.key_id}
    assert (await service.ask("PATCH", acme.path, program, {"name": "Acme Ltd"})).status_code == 200
    entries = sorted(await service.rows(tables.audit_entries, org_id=acme.id), key=lambda entry: entry.seq)
    assert (entries[-1].action, entries[-1].actor) == ("organization.updated", program.key_id)


async def test_rotating_ends_the_key_before(service: Service, acme: Standing) -> None:
    program = await service.program(acme, Role.VIEWER)
    rotated = await service.ask("POST", f"{acme.path}/api_keys/{program.key_id}/rotate", acme.admin)
    assert rotated.status_code == 200, rotated.text
    assert rotated.json()["id"] == program.key_id
    await assert_dead(service, acme, program)
    assert await status_of(service, acme, Program(program.key_id, Role.VIEWER, rotated.json()["token"])) == 200


async def test_a_lost_answer_is_given_again(service: Service, acme: Standing) -> None:
    """With the same Idempotency-Key the same key, once: kept encrypted, so that the database does not have it."""
    body = {"name": "x", "role": "viewer"}
    first, second = [await service.ask("POST", acme.path + "/api_keys", acme.admin, body, key="mine") for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert second.headers["idempotent-replayed"] == "true"
    token, key_id = first.json()["token"], first.json()["id"]
    assert len(await service.rows(tables.api_keys, org_id=acme.id)) == 1
    for table in tables.DIRECTORY:
        assert token not in repr(await service.rows(table)), table.name
    one = f"{acme.path}/api_keys/{key_id}/rotate"
    first, second = [await service.ask("POST", one, acme.admin, key="again") for _ in range(2)]
    assert first.json()["token"] == second.json()["token"] != token
    assert await status_of(service, acme, Program(key_id, Role.VIEWER, first.json()["token"])) == 200


async def test_a_hundred_at_once_at_the_limit_but_one(service: Service, acme: Standing) -> None:
    """J23, M1."""
    plan = acme.organization.plan
    service.app.settings.plans[plan] = service.app.settings.plans[plan].model_copy(update={"max_api_keys": 2})
    await service.program(acme, Role.VIEWER)
    body = {"name": "x", "role": "viewer"}

    async def tried() -> int:
        while True:
            answer = await service.ask("POST", acme.path + "/api_keys", acme.owner, body)
            if answer.status_code != 503:  # "come back", from an engine whose writers meet
                return answer.status_code

    ended = await asyncio.gather(*(tried() for _ in range(20)))
    assert sorted(ended) == [201] + [403] * 19
    document = problem(await service.ask("POST", acme.path + "/api_keys", acme.owner, body), 403, "quota.exceeded")
    assert document["quota"] == {"what": "api_keys", "used": 2, "limit": 2}


# --- what a key may -------------------------------------------------------------------------------------------------


async def test_a_key_of_one_organization_opens_no_other(service: Service, acme: Standing) -> None:
    """J13: also where whoever made it belongs to both."""
    other = await service.organization("Other")
    user = await service.stored_user()
    for standing in (acme, other):
        await service.join(standing.organization, user, Role.ADMIN)
    person = await service.logged_in(acme.organization, user, Role.ADMIN)
    program = await service.program(acme, Role.ADMIN, person)
    missing = problem(
        await service.ask("GET", "/v1/organizations/org_01kcy7w2e4g8m3n5p7q9r1s3t5", program), 404, "resource.not_found"
    )
    for method, path in (("GET", other.path), ("GET", other.path + "/usage"), ("POST", other.path + "/rename")):
        body = {"name": "Mine"} if method == "POST" else None
        found = problem(await service.ask(method, path, program, body), 404, "resource.not_found")
        assert {**found, "request_id": ""} == {**missing, "request_id": ""}
    problem(await service.ask("GET", "/v1/organizations", program), 403, "auth.forbidden")


async def test_a_key_that_reads_does_not_write(service: Service, acme: Standing) -> None:
    """J16."""
    program = await service.program(acme, Role.VIEWER)
    path = acme.path + "/collections/notes/records"
    problem(await service.ask("POST", path, program, {"data": {}}), 403, "auth.forbidden")
    problem(await service.ask("POST", acme.path + "/rename", program, {"name": "x"}), 403, "auth.forbidden")
    problem(await service.ask("GET", acme.path + "/api_keys", program), 403, "auth.forbidden")


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_makes_a_key_above_themselves(service: Service, acme: Standing, role: Role) -> None:
    """J17."""
    answer = await service.ask("POST", acme.path + "/api_keys", acme.admin, {"name": "x", "role": role})
    if role is Role.OWNER:
        problem(answer, 403, "auth.forbidden")
    else:
        assert answer.status_code == 201, answer.text
    above = await service.program(acme, Role.OWNER)
    problem(await service.ask("POST", f"{acme.path}/api_keys/{above.key_id}/rotate", acme.admin), 403, "auth.forbidden")
    assert await status_of(service, acme, above) == 200


async def test_a_key_manages_no_keys_and_ends_no_organization(service: Service, acme: Standing) -> None:
    """J17: one that leaked makes itself no others, and lives no longer than it was given."""
    program, other = await service.program(acme, Role.OWNER), await service.program(acme, Role.VIEWER)
    one = f"{acme.path}/api_keys/{other.key_id}"
    for method, path, body in (
        ("GET", acme.path + "/api_keys", None),
        ("POST", acme.path + "/api_keys", {"name": "x", "role": "viewer"}),
        ("GET", one, None),
        ("POST", one + "/rotate", None),
        ("POST", f"{acme.path}/api_keys/{program.key_id}/rotate", None),
        ("DELETE", one, None),
        ("DELETE", acme.path, None),
        ("DELETE", f"{acme.path}?purge=now&confirm={acme.slug}", None),
    ):
        problem(await service.ask(method, path, program, body), 403, "auth.forbidden")
    for one_of_them in (program, other):
        assert await status_of(service, acme, one_of_them) == 200


async def test_a_key_is_whose_who_was_shown_it_last(service: Service, acme: Standing) -> None:
    """Whoever leaves takes the keys with them that they rotated, and leaves those that others rotated since."""
    theirs, ours = [await service.program(acme, Role.MEMBER) for _ in range(2)]
    path = f"{acme.path}/api_keys/"
    shown = await service.ask("POST", f"{path}{theirs.key_id}/rotate", acme.admin)
    assert shown.json()["created_by"] == acme.admin.user_id
    theirs = Program(theirs.key_id, Role.MEMBER, shown.json()["token"])
    await service.ask("POST", f"{path}{ours.key_id}/rotate", acme.admin)
    shown = await service.ask("POST", f"{path}{ours.key_id}/rotate", acme.owner)
    ours = Program(ours.key_id, Role.MEMBER, shown.json()["token"])
    assert await status_of(service, acme, theirs) == 200
    await remove(service, acme, acme.admin)
    await assert_dead(service, acme, theirs)
    assert await status_of(service, acme, ours) == 200


async def test_a_key_that_is_used_can_be_rotated(service: Service, acme: Standing) -> None:
    """Also at the moment when its use is noted."""
    body = {"name": "x", "role": "viewer"}
    for _ in range(5):
        made = (await service.ask("POST", acme.path + "/api_keys", acme.admin, body)).json()
        program = Program(made["id"], Role.VIEWER, made["token"])
        used, rotated = await asyncio.gather(
            service.ask("GET", acme.path, program),
            service.ask("POST", f"{acme.path}/api_keys/{program.key_id}/rotate", acme.admin),
        )
        assert used.status_code in (200, 401)
        assert rotated.status_code == 200, rotated.text
        await service.settled()


async def test_a_key_has_no_account(service: Service, acme: Standing) -> None:
    program = await service.program(acme, Role.OWNER)
    change = {"current_password": PASSWORD, "new_password": "entirely new passphrase"}
    for method, path, body in (
        ("GET", "/v1/me", None),
        ("POST", "/v1/auth/logout", None),
        ("POST", "/v1/auth/password", change),
        ("POST", "/v1/organizations", {"name": "Another"}),
        ("PUT", "/org/update", {"email": "new@people.example.com"}),
        ("PUT", "/org/update", {"organization_name": "Renamed", "password": "entirely new passphrase"}),
    ):
        problem(await service.ask(method, path, program, body), 403, "auth.forbidden")
    assert (await service.located(acme.id)).organization.name == "Acme"
    assert await status_of(service, acme, acme.owner) == 200
    assert (await service.ask("PUT", "/org/update", program, {"organization_name": "Renamed"})).status_code == 200


# --- when it is dead --------------------------------------------------------------------------------------------------


async def test_a_key_ends_with_the_membership_of_whoever_made_it(service: Service, acme: Standing) -> None:
    """J14: for good, also where they are made a member again."""
    program = await service.program(acme, Role.VIEWER, acme.admin)
    await remove(service, acme, acme.admin)
    await assert_dead(service, acme, program)
    service.watch.advance(minutes=5)
    at = service.watch()
    await service.app.storage.run(
        SCOPE, members.add, service.app.settings, acme.id, acme.admin.user_id, Role.OWNER, _SOMEBODY, at
    )
    await assert_dead(service, acme, program)
    rotated = await service.ask("POST", f"{acme.path}/api_keys/{program.key_id}/rotate", acme.owner)
    assert rotated.status_code == 200
    assert await status_of(service, acme, Program(program.key_id, Role.VIEWER, rotated.json()["token"])) == 200


async def test_a_key_above_the_role_of_whoever_made_it_is_dead(service: Service, acme: Standing) -> None:
    """J14; and alive again with the role."""
    low, high = [await service.program(acme, role, acme.admin) for role in (Role.VIEWER, Role.ADMIN)]
    await change_role(service, acme, acme.admin, Role.MEMBER)
    await assert_dead(service, acme, high)
    assert await status_of(service, acme, low) == 200
    await change_role(service, acme, acme.admin, Role.ADMIN)
    assert await status_of(service, acme, high) == 200


async def test_or_limited_to_that_role_by_setting(services: Services, anyio_backend: str) -> None:
    async with services(api_keys={"after_demotion": "limited"}) as service:
        acme = await service.organization("Acme")
        program = await service.program(acme, Role.ADMIN, acme.admin)
        await change_role(service, acme, acme.admin, Role.MEMBER)
        path = acme.path + "/collections/notes"
        assert (await service.ask("POST", path + "/records", program, {"data": {}})).status_code == 201
        problem(await service.ask("PUT", path, program, {}), 403, "auth.forbidden")
        await remove(service, acme, acme.admin)
        await assert_dead(service, acme, program)


async def test_a_key_expires(service: Service, acme: Standing) -> None:
    program = await service.program(acme, Role.VIEWER, expires_at="2026-11-23t11:00:00z")
    service.watch.advance(minutes=59, seconds=59.999)
    assert await status_of(service, acme, program) == 200
    service.watch.advance(seconds=0.001)
    await assert_dead(service, acme, program)


async def test_a_key_sleeps_while_its_organization_does(service: Service, acme: Standing) -> None:
    """Suspended as people are; dead while closed, an owner's too: to come back takes a person."""
    program = await service.program(acme, Role.OWNER)
    assert (await service.ask("POST", acme.path + "/suspend", acme.owner)).status_code == 200
    problem(await service.ask("GET", acme.path, program), 423, "organization.suspended")
    assert (await service.ask("POST", acme.path + "/reactivate", program)).status_code == 200
    assert (await service.ask("DELETE", acme.path, acme.owner)).status_code == 200
    await assert_dead(service, acme, program)
    answer = await service.ask("POST", acme.path + "/restore", program)
    problem(answer, 401, "auth.token_invalid")
    assert (await service.ask("POST", acme.path + "/restore", acme.owner)).status_code == 200
    assert await status_of(service, acme, program) == 200


# --- forged -----------------------------------------------------------------------------------------------------------


async def test_a_wrong_checksum_costs_no_look_into_the_database(
    service: Service, acme: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J19."""
    program = await service.program(acme, Role.VIEWER)
    asked: list[Any] = []
    access = service.app.storage.access

    async def counted(*key: str) -> Any:
        asked.append(key)
        return await access(*key)

    monkeypatch.setattr(service.app.storage, "access", counted)
    last = "0" if program.token[-1] != "0" else "1"
    await assert_dead(service, acme, Program(program.key_id, Role.VIEWER, program.token[:-1] + last))
    assert asked == []
    assert await status_of(service, acme, program) == 200
    assert len(asked) == 1


async def test_parts_of_two_keys_make_no_third(service: Service, acme: Standing) -> None:
    """Whatever is right about a key but its secret, and whoever's secret it is."""
    other = await service.organization("Other")
    mine, twin, foreign = [
        await service.program(standing, role)
        for standing, role in ((acme, Role.OWNER), (acme, Role.VIEWER), (other, Role.VIEWER))
    ]
    parts = [{program.token[at : at + 26] for program in (mine, twin, foreign)} for at in (3, 29, 55)]
    secrets = {program.token[81:-7] for program in (mine, twin, foreign)} | {"0" * 32}
    real = {program.token for program in (mine, twin, foreign)}
    forged = {
        _sealed(f"ok_{org}{user}{key}{secret}")
        for org in parts[0]
        for user in parts[1]
        for key in parts[2]
        for secret in secrets
    }
    assert real < forged
    for token in sorted(forged - real):
        await assert_dead(service, acme, Program("", Role.OWNER, token))


async def test_a_key_anywhere_else_than_in_its_header_is_nothing(service: Service, acme: Standing) -> None:
    """J20."""
    program = await service.program(acme, Role.VIEWER)
    for query in ("api_key", "token", "access_token", "key"):
        answer = await service.ask("GET", f"{acme.path}?{query}={program.token}")
        problem(answer, 401, "auth.required")
        assert program.token not in answer.text
    for headers in ({"x-api-key": program.token}, {"authorization": f"Basic {program.token}"}):
        assert (await service.ask("GET", acme.path, headers=headers)).status_code == 401


async def test_a_flood_with_a_key_uses_up_its_own_organization_only(services: Services, anyio_backend: str) -> None:
    async with services(plans={"free": {"requests_per_second": 5}}) as service:
        ticks = 1000.0
        service.app.rates = Rates(ticks=lambda: ticks)
        acme, other = await service.organization("Acme"), await service.organization("Other")
        mine, theirs = await service.program(acme, Role.VIEWER), await service.program(other, Role.VIEWER)
        ticks += 3600
        forged = Program("", Role.VIEWER, _sealed(theirs.token[:81] + "0" * 32))
        for _ in range(20):
            await assert_dead(service, other, forged)
        answers = [(await service.ask("GET", acme.path, mine)).status_code for _ in range(12)]
        assert answers == [200] * 10 + [429] * 2
        refused = await service.ask("POST", acme.path + "/nowhere", mine, {})  # before all else
        assert "5 requests" not in problem(refused, 429, "rate.limited")["detail"]
        answers = [(await service.ask("GET", other.path, theirs)).status_code for _ in range(10)]
        assert answers == [200] * 10


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, "/name"),
        ({"name": "x"}, "/role"),
        ({"name": "", "role": "viewer"}, "/name"),
        ({"name": "a\u0007", "role": "viewer"}, "/name"),
        ({"name": 1, "role": "viewer"}, "/name"),
        ({"name": "x", "role": "root"}, "/role"),
        ({"name": "x", "role": "viewer", "expires_at": None}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "2026-11-23T10:00:00Z"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "2027-11-23"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "2027-11-23T10:00:00"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "0001-01-01T00:00:00+14:00"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "tomorrow"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "20271123T100000Z"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "2027-W47-2T10:00:00Z"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "2027-02-30T10:00:00Z"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "user_id": "usr_1"}, ""),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_made(service: Service, body: dict[str, Any], pointer: str) -> None:
    acme = await service.organization("Acme")
    document = problem(await service.ask("POST", acme.path + "/api_keys", acme.owner, body), 422, "request.invalid")
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert await service.rows(tables.api_keys) == []


@pytest.mark.parametrize(
    "key_id", ["key_", "key_01kcy7w2e4g8m3n5p7q9r1s3t5", "ses_01kcy7w2e4g8m3n5p7q9r1s3t5", "%00", "é"]
)
async def test_what_no_key_is_called_is_not_found(service: Service, key_id: str) -> None:
    acme = await service.organization("Acme")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        answer = await service.ask(method, f"{acme.path}/api_keys/{key_id}{path}", acme.owner)
        assert answer.status_code in (400, 404), answer.text


async def test_a_list_goes_on_where_it_ended(service: Service, acme: Standing) -> None:
    made = [await service.program(acme, Role.VIEWER) for _ in range(3)]
    for order, expected in (("created_at", made), ("-created_at", made[::-1])):
        first = (await service.ask("GET", f"{acme.path}/api_keys?limit=2&order={order}", acme.admin)).json()
        url = f"{acme.path}/api_keys?limit=2&order={order}&cursor={first['next_cursor']}"
        second = (await service.ask("GET", url, acme.admin)).json()
        assert [one["id"] for one in first["data"] + second["data"]] == [program.key_id for program in expected]
        assert second["next_cursor"] is None
        other = await service.organization("Other" if order == "created_at" else "Another")
        url = f"{other.path}/api_keys?limit=2&order={order}&cursor={first['next_cursor']}"
        problem(await service.ask("GET", url, other.admin), 400, "cursor.invalid")
