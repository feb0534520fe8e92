"""The brief's five routes."""

from __future__ import annotations

from typing import Any

import pytest

from orgstead.model import OrganizationStatus, Role
from orgstead.storage import tables
from tests.api.actors import PASSWORD, Service, problem

pytestmark = pytest.mark.anyio

ACME = {"organization_name": "Acme Labs", "email": "ada@acme.example.com", "password": PASSWORD}


async def created(service: Service, **changes: Any) -> dict[str, str]:
    """The headers of the administrator who created Acme Labs and logged in."""
    made = await service.ask("POST", "/org/create", body={**ACME, **changes})
    assert made.status_code == 201, made.text
    return await logged_in(service)


async def logged_in(service: Service, **changes: Any) -> dict[str, str]:
    body = {"email": ACME["email"], "password": ACME["password"], **changes}
    granted = await service.ask("POST", "/admin/login", body=body)
    assert granted.status_code == 200, granted.text
    return {"authorization": f"Bearer {granted.json()['access_token']}"}


async def test_the_flow_of_the_brief(service: Service) -> None:
    made = await service.ask("POST", "/org/create", body=ACME)
    assert made.status_code == 201
    organization, admin = made.json()["organization"], made.json()["admin"]
    assert made.json().keys() == {"organization", "admin"}
    assert organization["collection_name"] == "org_acme-labs"
    assert (organization["plan"], organization["status"]) == ("enterprise", "active")
    assert admin == {"id": admin["id"], "email": ACME["email"]}
    assert [found.name for _, found in await service.app.storage.spaces()] == ["org_acme-labs"]

    granted = await service.ask("POST", "/admin/login", body={"email": ACME["email"], "password": ACME["password"]})
    tokens = granted.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "organization_id"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)
    assert tokens["organization_id"] == organization["id"]
    claims = service.app.tokens.verify_access(tokens["access_token"])
    assert (claims.org_id, claims.role) == (organization["id"], Role.OWNER)
    headers = {"authorization": f"Bearer {tokens['access_token']}"}

    read = await service.ask("GET", "/org/get?organization_name=Acme%20Labs", headers=headers)
    assert (read.status_code, read.json()) == (200, organization)

    renamed = await service.ask("PUT", "/org/update", body={"organization_name": "Acme Inc"}, headers=headers)
    assert renamed.status_code == 200
    assert (renamed.json()["name"], renamed.json()["collection_name"]) == ("Acme Inc", "org_acme-inc")
    assert [found.name for _, found in await service.app.storage.spaces()] == ["org_acme-inc"]

    dropped = await service.ask("DELETE", "/org/delete?organization_name=Acme%20Inc&purge=now", headers=headers)
    assert dropped.json() == {"id": organization["id"], "status": "purged", "purge_at": "2026-11-23T10:00:00.000Z"}
    assert await service.app.storage.spaces() == []
    gone = await service.ask("GET", "/org/get?organization_name=Acme%20Inc", headers=headers)
    problem(gone, 401, "auth.token_invalid")


@pytest.mark.parametrize("name", ["Acme Labs", "acme labs", "ACME  LABS", "acme-labs", "Acme%20Labs%20"])
async def test_an_organization_is_found_by_name_or_slug(service: Service, name: str) -> None:
    headers = await created(service)
    found = await service.ask("GET", f"/org/get?organization_name={name}", headers=headers)
    assert found.json()["slug"] == "acme-labs"


async def test_a_former_slug_still_finds_it(service: Service) -> None:
    headers = await created(service)
    await service.ask("PUT", "/org/update", body={"organization_name": "Acme Inc"}, headers=headers)
    found = await service.ask("GET", "/org/get?organization_name=acme-labs", headers=headers)
    assert found.json()["slug"] == "acme-inc"


async def test_a_foreign_and_a_missing_name_are_the_same_answer(service: Service) -> None:
    headers = {**await created(service), "x-request-id": "one-and-the-same"}
    await service.organization("Other")
    answers = [
        await service.ask(method, f"{path}?organization_name={name}", headers=headers)
        for method, path in (("GET", "/org/get"), ("DELETE", "/org/delete"))
        for name in ("Other", "other", "missing", "..%2f", "%ff", "x" * 3000, "")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert len(await service.rows(tables.organizations, status=OrganizationStatus.ACTIVE)) == 2


async def test_a_taken_name_is_refused_and_changes_nothing(service: Service) -> None:
    headers = await created(service)
    again = {**ACME, "email": "bob@acme.example.com", "organization_name": "ACME LABS"}
    problem(await service.ask("POST", "/org/create", body=again), 409, "organization.name_taken")
    assert len(await service.rows(tables.users)) == 1
    await service.organization("Other")
    before = await service.ask("GET", "/org/get?organization_name=acme-labs", headers=headers)
    taken = await service.ask(
        "PUT", "/org/update", body={"organization_name": "other", "password": "a very new password"}, headers=headers
    )
    problem(taken, 409, "organization.name_taken")
    assert (await service.ask("GET", "/org/get?organization_name=acme-labs", headers=headers)).json() == before.json()
    assert await logged_in(service)


async def test_an_account_may_create_another_organization_with_its_password_only(service: Service) -> None:
    await created(service)
    second = {**ACME, "organization_name": "Second"}
    wrong = await service.ask("POST", "/org/create", body={**second, "password": "not the password"})
    problem(wrong, 409, "user.exists")
    made = await service.ask("POST", "/org/create", body=second)
    assert made.status_code == 201
    assert len(await service.rows(tables.users)) == 1


async def test_the_plan_can_be_chosen(service: Service) -> None:
    made = await service.ask("POST", "/org/create", body={**ACME, "plan": "free"})
    assert (made.json()["organization"]["plan"], made.json()["organization"]["collection_name"]) == ("free", None)


async def test_an_admin_changes_their_address_and_password(service: Service) -> None:
    headers = await created(service)
    other = await logged_in(service)
    body = {"email": "ada.lovelace@acme.example.com", "password": "a very new password"}
    changed = await service.ask("PUT", "/org/update", body=body, headers=headers)
    assert (changed.status_code, changed.json()["name"]) == (200, "Acme Labs")
    assert await logged_in(service, **body)
    old = {"email": ACME["email"], "password": ACME["password"]}
    problem(await service.ask("POST", "/admin/login", body=old), 401, "auth.bad_credentials")
    # The session that changed the password goes on, every other one has ended.
    assert (await service.ask("GET", "/v1/me", headers=headers)).json()["email"] == body["email"]
    problem(await service.ask("GET", "/v1/me", headers=other), 401, "auth.token_invalid")


async def test_an_address_of_somebody_else_stops_the_whole_update(service: Service) -> None:
    headers = await created(service)
    await service.stored_user("taken@acme.example.com")
    body = {"organization_name": "Acme Inc", "email": "TAKEN@acme.example.com"}
    problem(await service.ask("PUT", "/org/update", body=body, headers=headers), 409, "user.exists")
    assert (await service.ask("GET", "/org/get?organization_name=Acme%20Labs", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "request.invalid", ""),
        ({"organization_name": None}, "request.invalid", "/organization_name"),
        ({"organization_name": "\u0000"}, None, None),
        ({"organization_name": "api"}, "organization.name_reserved", "/organization_name"),
        ({"organization_name": "Acme Inc", "email": "x"}, "email.invalid", "/email"),
        ({"organization_name": "Acme Inc", "password": "short"}, "password.unacceptable", "/password"),
        ({"organization_name": "Acme Inc", "role": "owner"}, "request.invalid", ""),
        ({"id": "org_x"}, "request.invalid", ""),
        ({"plan": "free"}, "request.invalid", ""),
    ],
)
async def test_an_update_that_is_wrong_anywhere_changes_nothing(
    service: Service, body: dict[str, Any], code: str | None, pointer: str | None
) -> None:
    headers = await created(service)
    answer = await service.ask("PUT", "/org/update", body=body, headers=headers)
    if code is None:
        problem(answer, 400, "request.malformed")
    else:
        assert [fault["pointer"] for fault in problem(answer, 422, code)["errors"]] == [pointer]
    found = await service.ask("GET", "/org/get?organization_name=Acme%20Labs", headers=headers)
    assert (found.status_code, found.json()["slug"]) == (200, "acme-labs")


async def test_roles(service: Service) -> None:
    acme = await service.organization("Acme", "enterprise")
    query = "?organization_name=acme"
    for person in acme.people.values():
        assert (await service.ask("GET", "/org/get" + query, person)).status_code == 200
    for person in (acme.viewer, acme.member):
        answer = await service.ask("PUT", "/org/update", person, {"organization_name": "Nova"})
        problem(answer, 403, "auth.forbidden")
    for person in (acme.viewer, acme.member, acme.admin):
        problem(await service.ask("DELETE", "/org/delete" + query, person), 403, "auth.forbidden")
    assert (await service.ask("PUT", "/org/update", acme.admin, {"organization_name": "Nova"})).status_code == 200
    closed = await service.ask("DELETE", "/org/delete?organization_name=Nova", acme.owner)
    assert closed.json() == {"id": acme.id, "status": "closed", "purge_at": "2026-12-23T10:00:00.000Z"}


async def test_the_name_is_needed_and_needed_once(service: Service) -> None:
    acme = await service.organization("Acme")
    for query in ("", "?organization_name=acme&organization_name=other", "?organization_name=acme&x=1"):
        problem(await service.ask("GET", "/org/get" + query, acme.owner), 422, "request.invalid")
        problem(await service.ask("DELETE", "/org/delete" + query, acme.owner), 422, "request.invalid")


async def test_an_update_based_on_an_older_state_is_refused(service: Service) -> None:
    acme = await service.organization("Acme")
    body = {"organization_name": "Nova"}
    there = await service.ask("PUT", "/org/update", acme.owner, body, headers={"if-none-match": "*"})
    problem(there, 412, "precondition.failed")
    stale = await service.ask("PUT", "/org/update", acme.owner, body, headers={"if-match": '"1.1"'})
    problem(stale, 412, "precondition.failed")
