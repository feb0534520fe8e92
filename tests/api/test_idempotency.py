"""Idempotency-Key over HTTP: an effect once, and the same answer again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from orgstead import idempotency, organizations
from orgstead.api import application
from orgstead.api.limits import Application
from orgstead.audit import SYSTEM
from orgstead.errors import FailpointReached
from orgstead.failpoints import arm
from orgstead.storage import tables
from orgstead.worker import expire
from tests.api.actors import PASSWORD, SCOPE, Person, Service, problem

pytestmark = pytest.mark.anyio

OWNER = {"email": "ada@acme.example.com", "password": PASSWORD}
CREATE = {"organization_name": "Acme Labs", **OWNER}
KEY = "5f6f2c1e"


async def fail() -> None:
    raise FailpointReached


async def rows(service: Service) -> list[Any]:
    return await service.rows(tables.idempotent_responses)


async def test_a_repeated_create_has_its_effect_once_and_the_same_answer(service: Service) -> None:
    first = await service.ask("POST", "/org/create", body=CREATE, key=KEY)
    again = await service.ask("POST", "/org/create", body=CREATE, key=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await service.rows(tables.organizations)) == 1


async def test_a_replay_has_the_headers_of_the_answer(service: Service) -> None:
    acme = await service.organization("Acme")
    first = await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Nova"}, key=KEY)
    again = await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Nova"}, key=KEY)
    assert (again.headers["etag"], again.headers["location"]) == (first.headers["etag"], first.headers["location"])


async def test_a_suspension_is_replayed_to_the_organization_that_it_suspended(service: Service) -> None:
    acme = await service.organization("Acme")
    first = await service.ask("POST", acme.path + "/suspend", acme.owner, key=KEY)
    again = await service.ask("POST", acme.path + "/suspend", acme.owner, key=KEY)
    assert (first.status_code, again.status_code) == (200, 200)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert again.headers["idempotent-replayed"] == "true"
    for key in (None, KEY + "1"):
        other = await service.ask("POST", acme.path + "/suspend", acme.owner, key=key)
        problem(other, 423, "organization.suspended")


POSTS: dict[str, tuple[str, Any, int]] = {
    "rename": ("{}/rename", {"name": "Nova"}, 200),
    "plan": ("{}/plan", {"plan": "pro"}, 200),
    "reactivate": ("{}/reactivate", None, 200),
    "restore": ("{}/restore", None, 200),
    "create": ("/v1/organizations", {"name": "Nova"}, 201),
    "password": ("/v1/auth/password", {"current_password": PASSWORD, "new_password": "a very new password"}, 204),
}


@pytest.mark.parametrize("name", POSTS)
async def test_what_was_answered_is_answered_again_whatever_became_of_the_organization(
    service: Service, name: str
) -> None:
    before = {"reactivate": service.suspended, "restore": service.closed}.get(name, service.organization)
    acme = await before("Acme")
    path, body, status = POSTS[name]
    path = path.format(acme.path)
    first = await service.ask("POST", path, acme.owner, body, key=KEY)
    await service.app.storage.run(
        SCOPE, organizations.suspend, acme.id, organizations.OWNER, actor=SYSTEM, at=service.watch()
    )
    again = await service.ask("POST", path, acme.owner, body, key=KEY)
    assert (first.status_code, again.status_code) == (status, status), again.text
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")


@pytest.mark.parametrize("name", [name for name in POSTS if name not in ("reactivate", "restore")])
async def test_a_new_key_does_nothing_for_a_suspended_organization(service: Service, name: str) -> None:
    acme = await service.suspended("Acme")
    path, body, _ = POSTS[name]
    before = await rows(service), await service.located(acme.id), await service.rows(tables.audit_entries)
    for person in (acme.owner, acme.viewer):
        answer = await service.ask("POST", path.format(acme.path), person, body, key=KEY)
        problem(answer, 423, "organization.suspended")
    assert (await rows(service), await service.located(acme.id), await service.rows(tables.audit_entries)) == before


async def test_only_a_post_has_an_answer_to_repeat(service: Service) -> None:
    acme = await service.suspended("Acme")
    sent = (("GET", acme.path, None), ("PATCH", acme.path, {"name": "Nova"}), ("DELETE", acme.path, None))
    for method, path, body in sent:
        problem(await service.ask(method, path, acme.owner, body, key=KEY), 423, "organization.suspended")


@pytest.mark.parametrize(("path", "body"), [("/rename", {"name": "Nova"}), ("/plan", {"plan": "pro"})])
async def test_what_changed_the_version_itself_is_replayed_all_the_same(service: Service, path: str, body: Any) -> None:
    acme = await service.organization("Acme")
    seen = {"If-Match": (await service.ask("GET", acme.path, acme.owner)).headers["etag"]}
    first = await service.ask("POST", acme.path + path, acme.owner, body, key=KEY, headers=seen)
    again = await service.ask("POST", acme.path + path, acme.owner, body, key=KEY, headers=seen)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    other = await service.ask("POST", acme.path + path, acme.owner, body, key=KEY + "1", headers=seen)
    problem(other, 412, "precondition.failed")


async def test_of_a_hundred_requests_with_one_key_one_has_an_effect(service: Service) -> None:
    answers = await asyncio.gather(*(service.ask("POST", "/org/create", body=CREATE, key=KEY) for _ in range(100)))
    made = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len([answer for answer in made if "idempotent-replayed" not in answer.headers]) == 1
    assert len({answer.content for answer in made}) == 1
    assert {(a.status_code, a.json()["code"]) for a in refused} <= {(409, "idempotency.in_progress")}
    assert len(await service.rows(tables.organizations)) == 1
    assert len(await service.rows(tables.users)) == 1


async def test_two_processes_do_not_both_work_on_one_key(service: Service) -> None:
    """No process knows what another one works on: the database decides, and the loser is told so."""
    acme = await service.organization("Acme")
    processes = [application.build(service.app) for _ in range(4)]
    for path, body in (("/v1/organizations", {"name": "Nova"}), (acme.path + "/plan", {"plan": "pro"})):
        answers = await asyncio.gather(*(_sent_by(acme.owner, process, path, body) for process in processes * 3))
        fresh = [a for a in answers if a.status_code < 300 and "idempotent-replayed" not in a.headers]
        assert len(fresh) == 1
        others = {(a.status_code, a.json().get("code")) for a in answers if a is not fresh[0]}
        assert others <= {(fresh[0].status_code, None), (409, "idempotency.in_progress")}
    assert len(await service.rows(tables.organizations)) == 2
    changes = [entry for entry in await service.rows(tables.audit_entries) if entry.action.endswith("plan_changed")]
    assert len(changes) == 1


async def _sent_by(person: Person, process: Application, path: str, body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=process), base_url="http://test") as client:
        return await client.post(path, json=body, headers={**person.headers, "idempotency-key": KEY})


async def test_a_key_is_of_one_request_only(service: Service) -> None:
    await service.ask("POST", "/org/create", body=CREATE, key=KEY)
    other = await service.ask("POST", "/org/create", body={**CREATE, "organization_name": "Nova"}, key=KEY)
    problem(other, 422, "idempotency.key_reused")
    login = await service.ask("POST", "/v1/auth/login", body=OWNER, key=KEY)
    assert login.status_code == 200, "another route has keys of its own"
    wrong = await service.ask("POST", "/v1/auth/login", body={**OWNER, "password": "x"}, key=KEY)
    problem(wrong, 422, "idempotency.key_reused")


async def test_another_principal_has_keys_of_its_own(service: Service) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    for person, name in ((acme.owner, "One"), (acme.admin, "Two"), (other.owner, "Three")):
        made = await service.ask("POST", "/v1/organizations", person, {"name": name}, key=KEY)
        assert (made.status_code, made.json()["name"]) == (201, name)
    assert len(await service.rows(tables.organizations)) == 5


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f", "é"])
async def test_a_key_is_printable_ascii(service: Service, key: str) -> None:
    answer = await service.client.post("/org/create", json=CREATE, headers={b"idempotency-key": key.encode()})
    problem(answer, 422, "idempotency.key_invalid")
    assert await service.rows(tables.organizations) == []


@pytest.mark.parametrize("route", ["/records:batchGet", "/query", "/aggregate"])
@pytest.mark.parametrize(("key", "status"), [("", 422), ("é", 422), ("k", 200)])
async def test_also_where_it_is_not_needed(service: Service, route: str, key: str, status: int) -> None:
    """A POST that only reads takes a key, but only what can be one."""
    acme = await service.organization("Acme")
    collection = acme.path + "/collections/notes"
    assert (await service.ask("PUT", collection, acme.owner, {})).status_code == 201
    body = {"/query": {}, "/aggregate": {"measures": {"n": {"count": True}}}}.get(route, {"ids": ["a"]})
    headers = {b"idempotency-key": key.encode(), b"authorization": acme.viewer.headers["authorization"].encode()}
    answer = await service.client.post(collection + route, json=body, headers=headers)
    assert answer.status_code == status, answer.text


async def test_what_failed_leaves_the_key_free(service: Service) -> None:
    acme = await service.organization("Acme")
    taken = await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Acme"}, key=KEY)
    problem(taken, 409, "organization.name_taken")
    assert (await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Nova"}, key=KEY)).status_code == 201
    for _ in range(2):
        wrong = await service.ask("POST", "/v1/auth/login", body={**OWNER, "email": acme.owner.email + "x"}, key=KEY)
        problem(wrong, 401, "auth.bad_credentials")


async def test_a_key_is_remembered_for_a_day(service: Service) -> None:
    acme = await service.organization("Acme")
    body = {"name": "Acme"}
    first = await service.ask("POST", acme.path + "/rename", acme.owner, body, key=KEY)
    kept = await rows(service)
    assert [row.expires_at - row.created_at for row in kept] == [idempotency.KEPT]
    service.watch.advance(hours=24)
    await expire(service.app)
    assert (first.status_code, await rows(service)) == (200, [])


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_an_answer_lost_after_the_effect_is_made_up_for(service: Service, plan: str) -> None:
    body = {**CREATE, "plan": plan}
    with arm("idempotency.after_effect", fail):
        lost = await service.ask("POST", "/org/create", body=body, key=KEY)
    assert lost.status_code == 503
    (organization,) = await service.rows(tables.organizations)
    for _ in range(2):
        again = await service.ask("POST", "/org/create", body=body, key=KEY)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        assert again.json()["organization"]["id"] == organization.id
        assert again.json()["admin"]["email"] == OWNER["email"]
    assert len(await service.rows(tables.organizations)) == 1


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_rename_whose_answer_was_lost_is_not_done_again(service: Service, plan: str) -> None:
    acme = await service.organization("Acme", plan)
    body, tag = {"name": "Nova"}, (await service.ask("GET", acme.path, acme.owner)).headers["etag"]
    with arm("idempotency.after_effect", fail):
        await service.ask("POST", acme.path + "/rename", acme.owner, body, key=KEY, headers={"if-match": tag})
    again = await service.ask("POST", acme.path + "/rename", acme.owner, body, key=KEY)
    assert (again.status_code, again.json()["slug"]) == (200, "nova")
    assert again.headers["idempotent-replayed"] == "true"
    renames = [entry for entry in await service.rows(tables.audit_entries) if entry.action == "organization.renamed"]
    assert len(renames) == 1


async def test_a_login_whose_answer_was_lost_is_repeated_after_a_minute(service: Service) -> None:
    acme = await service.organization("Acme")
    login = {"email": acme.owner.email, "password": PASSWORD}
    with arm("idempotency.after_effect", fail):
        assert (await service.ask("POST", "/v1/auth/login", body=login, key=KEY)).status_code == 503
    problem(await service.ask("POST", "/v1/auth/login", body=login, key=KEY), 409, "idempotency.in_progress")
    service.watch.advance(seconds=61)
    assert (await service.ask("POST", "/v1/auth/login", body=login, key=KEY)).status_code == 200


async def test_a_new_password_whose_answer_was_lost_is_not_asked_for_again(service: Service) -> None:
    acme = await service.organization("Acme")
    body = {"current_password": PASSWORD, "new_password": "a very new password"}
    with arm("idempotency.after_effect", fail):
        assert (await service.ask("POST", "/v1/auth/password", acme.owner, body, key=KEY)).status_code == 503
    for _ in range(2):
        again = await service.ask("POST", "/v1/auth/password", acme.owner, body, key=KEY)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (204, "true")


async def test_a_refresh_whose_answer_was_lost_is_repeated_at_once(service: Service) -> None:
    """Within the grace: later, the same token would be taken for a stolen one."""
    acme = await service.organization("Acme")
    login = {"email": acme.owner.email, "password": PASSWORD}
    token = (await service.ask("POST", "/v1/auth/login", body=login)).json()["refresh_token"]
    with arm("idempotency.after_effect", fail):
        lost = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": token}, key=KEY)
    assert lost.status_code == 503
    again = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": token}, key=KEY)
    assert again.status_code == 200
    following = again.json()["refresh_token"]
    assert (await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": following})).status_code == 200


async def test_an_answer_with_a_secret_is_stored_encrypted(service: Service) -> None:
    acme = await service.organization("Acme")
    login = {"email": acme.owner.email, "password": PASSWORD}
    first = await service.ask("POST", "/v1/auth/login", body=login, key=KEY)
    (row,) = await rows(service)
    assert row.secret
    for secret in (first.json()["access_token"], first.json()["refresh_token"], PASSWORD):
        assert secret not in json.dumps([row.body, row.headers, row.id, row.fingerprint])
    again = await service.ask("POST", "/v1/auth/login", body=login, key=KEY)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    refresh = {"refresh_token": first.json()["refresh_token"]}
    one = await service.ask("POST", "/v1/auth/refresh", body=refresh, key=KEY)
    service.watch.advance(seconds=300)
    two = await service.ask("POST", "/v1/auth/refresh", body=refresh, key=KEY)
    assert (two.status_code, two.content) == (200, one.content)


async def test_a_repeated_logout_is_refused_like_any_request_of_an_ended_session(service: Service) -> None:
    acme = await service.organization("Acme")
    assert (await service.ask("POST", "/v1/auth/logout", acme.owner, key=KEY)).status_code == 204
    problem(await service.ask("POST", "/v1/auth/logout", acme.owner, key=KEY), 401, "auth.token_invalid")
