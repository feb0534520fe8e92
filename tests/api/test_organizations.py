"""/v1/organizations over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from orgstead import operations
from orgstead.api import application
from orgstead.api.signup import SIGN_UP
from orgstead.errors import RateLimited
from orgstead.failpoints import arm
from orgstead.kit import rfc3339
from orgstead.model import OrganizationStatus, Role
from orgstead.organizations import MAX_METADATA_BYTES, OPERATOR
from orgstead.storage import tables
from tests.api.actors import PASSWORD, Service, problem
from tests.api.conftest import Services
from tests.api.opening import SIGNUP_TOKEN

pytestmark = pytest.mark.anyio

OWNER = {"email": "ada@acme.example.com", "password": PASSWORD}


# --- creating -------------------------------------------------------------------------------------------------------


async def test_a_stranger_creates_an_organization_and_can_log_in_to_it(service: Service) -> None:
    made = await service.ask("POST", "/v1/organizations", body={"name": "Acme Labs", "owner": OWNER})
    assert made.status_code == 201
    organization = made.json()
    assert organization["slug"] == "acme-labs"
    assert (organization["plan"], organization["placement"]["kind"]) == ("free", "pooled")
    assert organization["collection_name"] is None
    assert made.headers["location"] == f"/v1/organizations/{organization['id']}"

    granted = await service.ask("POST", "/v1/auth/login", body=OWNER)
    headers = {"authorization": f"bearer {granted.json()['access_token']}"}
    read = await service.ask("GET", made.headers["location"], headers=headers)
    assert read.json() == organization
    assert read.headers["etag"] == made.headers["etag"]


async def test_a_caller_becomes_the_owner_of_what_they_create(service: Service) -> None:
    acme = await service.organization("Acme")
    made = await service.ask("POST", "/v1/organizations", acme.viewer, {"name": "Second"})
    assert made.status_code == 201
    (membership,) = await service.rows(tables.memberships, org_id=made.json()["id"])
    assert (membership.user_id, membership.role) == (acme.viewer.user_id, Role.OWNER)


async def test_the_owner_is_either_the_caller_or_in_the_body(service: Service) -> None:
    acme = await service.organization("Acme")
    neither = problem(await service.ask("POST", "/v1/organizations", body={"name": "Nova"}), 422, "request.invalid")
    assert neither["errors"][0]["pointer"] == "/owner"
    both = await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Nova", "owner": OWNER})
    assert problem(both, 422, "request.invalid")["errors"][0]["pointer"] == "/owner"


async def test_an_existing_account_signs_up_again_with_its_password_only(service: Service) -> None:
    await service.stored_user(OWNER["email"])
    wrong = {**OWNER, "password": "some other password"}
    refused = await service.ask("POST", "/v1/organizations", body={"name": "Acme", "owner": wrong})
    problem(refused, 409, "user.exists")
    made = await service.ask("POST", "/v1/organizations", body={"name": "Acme", "owner": OWNER})
    assert made.status_code == 201
    assert len(await service.rows(tables.users)) == 1


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"name": "\u200b"}, "organization.name_invalid", "/name"),
        ({"name": "api"}, "organization.name_reserved", "/name"),
        ({"name": "Acme", "slug": "-"}, "organization.slug_invalid", "/slug"),
        ({"name": "Acme", "plan": "gold"}, "plan.unknown", "/plan"),
        ({"name": "Acme", "owner": {**OWNER, "email": "nobody"}}, "email.invalid", "/owner/email"),
        ({"name": "Acme", "owner": {**OWNER, "password": "short"}}, "password.unacceptable", "/owner/password"),
        ({"name": 7}, "request.invalid", "/name"),
        ({"name": None}, "request.invalid", "/name"),
        ({"name": {"$gt": ""}}, "request.invalid", "/name"),
        ({"name": "Acme", "plan": None}, "request.invalid", "/plan"),
        ({"name": "Acme", "metadata": []}, "request.invalid", "/metadata"),
        ({"name": "Acme", "metadata": {"a": "x" * MAX_METADATA_BYTES}}, "request.invalid", "/metadata"),
        ({"name": "Acme", "owner": {"email": OWNER["email"]}}, "request.invalid", "/owner/password"),
        ({"name": "Acme", "external_id": "x"}, "request.invalid", ""),
        ({"name": "Acme", "status": "active"}, "request.invalid", ""),
        ({"name": "Acme", "owner": {**OWNER, "role": "owner"}}, "request.invalid", "/owner"),
    ],
)
async def test_what_is_wrong_is_named_by_its_place(
    service: Service, body: dict[str, Any], code: str, pointer: str
) -> None:
    answer = await service.ask("POST", "/v1/organizations", body={"owner": OWNER, **body})
    assert [fault["pointer"] for fault in problem(answer, 422, code)["errors"]] == [pointer]
    assert await service.rows(tables.organizations) == []


async def test_nothing_of_the_input_comes_back(service: Service) -> None:
    canary = "canary-5d1f"
    for body in (
        {canary: 1},
        {"name": [canary]},
        {"name": "\u202e" + canary},
        {"plan": canary},
        {"slug": canary + "!"},
    ):
        answer = await service.ask("POST", "/v1/organizations", body={"name": "Acme", "owner": OWNER, **body})
        assert answer.status_code == 422
        assert canary not in answer.text


async def test_a_body_that_is_no_object_or_missing_is_refused(service: Service) -> None:
    bodies: list[Any] = [[], "x", 7, True, None]
    for body in bodies:
        problem(await service.ask("POST", "/v1/auth/login", body=body), 422, "request.invalid")


async def test_one_of_a_hundred_creates_of_one_name_succeeds(service: Service) -> None:
    acme = await service.organization("Acme")
    answers = await asyncio.gather(
        *(service.ask("POST", "/v1/organizations", acme.owner, {"name": "Contested"}) for _ in range(100))
    )
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [201] + [409] * 99
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"organization.name_taken"}
    organizations = await service.rows(tables.organizations)
    assert sorted(row.slug for row in organizations) == ["acme", "contested"]
    assert all(row.status is OrganizationStatus.ACTIVE for row in organizations)
    assert len(await service.rows(tables.placements)) == 2


def sign_up_at(path: str) -> dict[str, Any]:
    """What a stranger sends to sign up."""
    return {"name": "Nova", "owner": OWNER} if path.startswith("/v1") else {"organization_name": "Nova", **OWNER}


# --- sign-up modes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/organizations", "/org/create"])
async def test_a_closed_service_lets_no_stranger_sign_up(services: Services, path: str) -> None:
    async with services(signup="closed") as service:
        body = sign_up_at(path)
        problem(await service.ask("POST", path, body=body), 403, "signup.closed")
        acme = await service.organization("Acme")
        assert (await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Nova"})).status_code == 201


@pytest.mark.parametrize("path", ["/v1/organizations", "/org/create"])
async def test_a_sign_up_token_is_asked_for(services: Services, path: str) -> None:
    async with services(signup="token", signup_token=SIGNUP_TOKEN) as service:
        body = sign_up_at(path)
        problem(await service.ask("POST", path, body=body), 401, "auth.required")
        for wrong in (SIGNUP_TOKEN + "x", SIGNUP_TOKEN[:-1], "é"):
            headers = {b"authorization": f"Bearer {wrong}".encode()}
            answer = await service.client.post(path, json=body, headers=headers)
            problem(answer, 401, "auth.token_invalid")
        assert await service.rows(tables.organizations) == []
        right = {"authorization": f"Bearer {SIGNUP_TOKEN}"}
        assert (await service.ask("POST", path, body=body, headers=right)).status_code == 201


@pytest.mark.parametrize("path", ["/v1/organizations", "/org/create"])
async def test_sign_up_tokens_cannot_be_guessed(services: Services, path: str) -> None:
    """Wrong ones are counted by address, so that nobody is kept out by what others do."""
    async with services(signup="token", signup_token=SIGNUP_TOKEN) as service:
        transport = httpx2.ASGITransport(app=application.build(service.app), client=("198.51.100.7", 50_000))
        right, wrong = {"authorization": f"Bearer {SIGNUP_TOKEN}"}, {"authorization": "Bearer a-guess"}
        for _ in range(10):
            problem(await service.ask("POST", path, body=sign_up_at(path), headers=wrong), 401, "auth.token_invalid")
        for headers in (wrong, right):
            answer = await service.ask("POST", path, body=sign_up_at(path), headers=headers)
            problem(answer, 429, "rate.limited")
            assert 0 < int(answer.headers["retry-after"]) <= 15 * 60
        assert await service.rows(tables.organizations) == []
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as elsewhere:
            answer = await elsewhere.post(path, json=sign_up_at(path), headers=right)
            assert answer.status_code == 201, answer.text
        service.watch.advance(minutes=16)
        problem(await service.ask("POST", path, body=sign_up_at(path), headers=right), 409, "organization.name_taken")


async def test_guesses_from_everywhere_lock_nobody_out_of_signing_up(services: Services) -> None:
    async with services(signup="token", signup_token=SIGNUP_TOKEN) as service:
        for number in range(60):
            with suppress(RateLimited):
                async with service.app.throttles.attempt(SIGN_UP, f"198.51.100.{number}"):
                    pass
        right = {"authorization": f"Bearer {SIGNUP_TOKEN}"}
        answer = await service.ask("POST", "/org/create", body=sign_up_at("/org/create"), headers=right)
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("path", ["/v1/organizations", "/org/create"])
async def test_tokens_that_have_expired_keep_nobody_from_signing_up(services: Services, path: str) -> None:
    """A program goes on with its own until it is told that it is of no use any more: that is no guess."""
    async with services(signup="token", signup_token=SIGNUP_TOKEN) as service:
        acme = await service.organization("Acme")
        service.watch.advance(minutes=20)
        for _ in range(12):
            answer = await service.ask("POST", path, acme.owner, sign_up_at(path))
            problem(answer, 401, "auth.token_invalid")
        right = {"authorization": f"Bearer {SIGNUP_TOKEN}"}
        answer = await service.ask("POST", path, body=sign_up_at(path), headers=right)
        assert answer.status_code == 201, answer.text


async def test_a_credential_of_a_caller_is_no_guess_at_the_sign_up_token(services: Services) -> None:
    async with services(signup="token", signup_token=SIGNUP_TOKEN) as service:
        acme = await service.organization("Acme")
        program = await service.program(acme, Role.OWNER)
        for number in range(12):
            answer = await service.ask("POST", "/v1/organizations", program, {"name": f"Nova {number}"})
            problem(answer, 403, "auth.forbidden")
            answer = await service.ask("POST", "/v1/organizations", acme.owner, {"name": f"Nova {number}"})
            assert answer.status_code == 201, answer.text


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_foreign_and_a_missing_organization_are_the_same_answer(service: Service) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    same = {"x-request-id": "one-and-the-same"}
    foreign = await service.ask("GET", other.path, acme.owner, headers=same)
    missing = await service.ask("GET", "/v1/organizations/org_01arz3ndektsv4rrffq69g5fav", acme.owner, headers=same)
    garbage = await service.ask("GET", "/v1/organizations/%2e%2e", acme.owner, headers=same)
    problem(foreign, 404, "resource.not_found")
    assert foreign.content == missing.content == garbage.content
    assert foreign.headers == missing.headers == garbage.headers


@pytest.mark.parametrize("path", ["{own}", "/org/get?organization_name=acme", "/v1/me", "/v1/operations/{operation}"])
async def test_who_has_the_current_tag_is_told_so_without_a_body(service: Service, path: str) -> None:
    acme = await service.organization("Acme")
    (operation,) = await service.rows(tables.operations, org_id=acme.id)
    path = path.format(own=acme.path, operation=operation.id)
    tag = (await service.ask("GET", path, acme.viewer)).headers["etag"]
    for header in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        answer = await service.ask("GET", path, acme.viewer, headers={"if-none-match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == "no-store"
    answer = await service.ask("GET", path, acme.viewer, headers={"if-none-match": '"x"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, tag)


async def test_who_may_not_read_is_not_told_that_nothing_changed(service: Service) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    (operation,) = await service.rows(tables.operations, org_id=acme.id)
    for path in (acme.path, "/org/get?organization_name=acme", f"/v1/operations/{operation.id}"):
        answer = await service.ask("GET", path, other.owner, headers={"if-none-match": "*"})
        problem(answer, 404, "resource.not_found")


async def test_the_tag_of_an_account_is_of_what_is_shown(service: Service) -> None:
    acme = await service.organization("Acme")
    user = (await service.rows(tables.users, id=acme.admin.user_id))[0]
    again = await service.logged_in(acme.organization, user, Role.ADMIN)
    tags = [(await service.ask("GET", "/v1/me", person)).headers["etag"] for person in (acme.admin, again, acme.owner)]
    assert len(set(tags)) == len(tags)
    await service.ask("PUT", "/org/update", again, {"email": "new@acme.example.com"})
    changed = await service.ask("GET", "/v1/me", again, headers={"if-none-match": tags[1]})
    assert (changed.status_code, changed.json()["email"]) == (200, "new@acme.example.com")


async def test_every_change_of_the_body_changes_the_tag(service: Service) -> None:
    acme = await service.organization("Acme", "enterprise")
    seen: dict[str, bytes] = {}
    for action, body in (
        ("", {"name": "Acme 2"}),
        ("", {"metadata": {"a": 1}}),
        ("/rename", {"name": "Acme 3"}),
        ("/suspend", None),
        ("/reactivate", None),
    ):
        answer = await service.ask("PATCH" if not action else "POST", acme.path + action, acme.owner, body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] not in seen
        seen[answer.headers["etag"]] = answer.content
    read = await service.ask("GET", acme.path, acme.owner)
    assert seen[read.headers["etag"]] == read.content


@pytest.mark.parametrize("order", [None, "created_at", "-created_at"])
async def test_the_list_is_of_the_callers_own_organizations_page_by_page(service: Service, order: str | None) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    wanted = [acme.id]
    for number in range(4):
        made = await service.ask("POST", "/v1/organizations", acme.owner, {"name": f"Further {number}"})
        wanted.append(made.json()["id"])
    found: list[str] = []
    first = query = "?limit=2" + (f"&order={order}" if order else "")
    while True:
        page = (await service.ask("GET", "/v1/organizations" + query, acme.owner)).json()
        assert page["object"] == "list"
        assert len(page["data"]) <= 2
        found += [organization["id"] for organization in page["data"]]
        if page["next_cursor"] is None:
            break
        query = f"{first}&cursor={page['next_cursor']}"
    assert found == (wanted[::-1] if order == "-created_at" else wanted)
    assert other.id not in found


async def test_a_cursor_is_good_for_its_own_order_only(service: Service) -> None:
    acme = await service.organization("Acme")
    await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Further"})
    orders = {"created_at": "-created_at", "-created_at": "created_at"}
    for order, opposite in orders.items():
        path = f"/v1/organizations?limit=1&order={order}"
        cursor = (await service.ask("GET", path, acme.owner)).json()["next_cursor"]
        answer = await service.ask("GET", f"/v1/organizations?cursor={cursor}&order={opposite}", acme.owner)
        problem(answer, 400, "cursor.invalid")
    implied = await service.ask("GET", f"/v1/organizations?cursor={cursor}", acme.owner)
    problem(implied, 400, "cursor.invalid")


async def test_a_cursor_is_good_for_its_own_list_and_person_only(service: Service) -> None:
    acme = await service.organization("Acme")
    await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Further"})
    cursor = (await service.ask("GET", "/v1/organizations?limit=1", acme.owner)).json()["next_cursor"]
    assert cursor
    altered = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for bad in (altered, cursor + "A", "", "x", "%ff", "x" * 4000):
        answer = await service.ask("GET", f"/v1/organizations?cursor={bad}", acme.owner)
        problem(answer, 400, "cursor.invalid")
    answer = await service.ask("GET", f"/v1/organizations?cursor={cursor}", acme.viewer)
    problem(answer, 400, "cursor.invalid")


BAD_QUERIES = """
limit=0 limit=201 limit=-1 limit=1e3 limit= limit=NaN limit=%201 limit=1_0 limit=1&limit=2 offset=5 filter[org_id]=x
order= order=name order=-id order=CREATED_AT order=%2Bcreated_at order=created_at&order=-created_at
"""


@pytest.mark.parametrize("query", BAD_QUERIES.split())
async def test_a_query_that_is_not_understood_is_refused(service: Service, query: str) -> None:
    acme = await service.organization("Acme")
    problem(await service.ask("GET", f"/v1/organizations?{query}", acme.owner), 422, "request.invalid")


# --- changing -------------------------------------------------------------------------------------------------------


async def test_a_merge_patch_changes_what_it_names(service: Service) -> None:
    acme = await service.organization("Acme")
    await service.ask("PATCH", acme.path, acme.admin, {"metadata": {"crm": {"id": 7, "by": "x"}, "keep": True}})
    patched = await service.ask(
        "PATCH", acme.path, acme.admin, {"name": "Acme Ltd", "metadata": {"crm": {"by": None, "new": []}}}
    )
    assert patched.json()["name"] == "Acme Ltd"
    assert patched.json()["slug"] == "acme"
    assert patched.json()["metadata"] == {"crm": {"id": 7, "new": []}, "keep": True}


async def test_a_patch_of_nothing_changes_nothing(service: Service) -> None:
    acme = await service.organization("Acme")
    before = await service.ask("GET", acme.path, acme.admin)
    after = await service.ask("PATCH", acme.path, acme.admin, {})
    assert (after.status_code, after.content) == (200, before.content)


@pytest.mark.parametrize("field", ["id", "slug", "status", "role", "epoch", "external_id", "version", "created_at"])
async def test_a_patch_cannot_assign_what_is_not_offered(service: Service, field: str) -> None:
    acme = await service.organization("Acme")
    before = await service.located(acme.id)
    problem(await service.ask("PATCH", acme.path, acme.owner, {field: "x"}), 422, "request.invalid")
    assert await service.located(acme.id) == before


async def test_metadata_cannot_grow_beyond_its_limit_by_patches(service: Service) -> None:
    acme = await service.organization("Acme")
    half = "x" * (MAX_METADATA_BYTES // 2)
    assert (await service.ask("PATCH", acme.path, acme.owner, {"metadata": {"a": half}})).status_code == 200
    answer = await service.ask("PATCH", acme.path, acme.owner, {"metadata": {"b": half}})
    assert problem(answer, 422, "request.invalid")["errors"][0]["pointer"] == "/metadata"


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("PATCH", "", {"name": "Nova"}),
        ("DELETE", "", None),
        ("POST", "/rename", {"name": "Nova"}),
        ("POST", "/plan", {"plan": "pro"}),
        ("POST", "/suspend", None),
    ],
)
async def test_a_change_based_on_an_older_state_is_refused(
    service: Service, method: str, action: str, body: Any
) -> None:
    acme = await service.organization("Acme")
    old = (await service.ask("GET", acme.path, acme.owner)).headers["etag"]
    new = (await service.ask("PATCH", acme.path, acme.owner, {"metadata": {"a": 1}})).headers["etag"]
    for tag in (old, f"W/{new}", "x", '"', new.strip('"'), ""):
        answer = await service.ask(method, acme.path + action, acme.owner, body, headers={"if-match": tag})
        problem(answer, 412, "precondition.failed")
    for tag in ("*", new, f"W/{new}", "x", ""):
        answer = await service.ask(method, acme.path + action, acme.owner, body, headers={"if-none-match": tag})
        problem(answer, 412, "precondition.failed")
    answer = await service.ask(method, acme.path + action, acme.owner, body, headers={"if-match": f'"x", {new}'})
    assert answer.status_code == 200


async def test_of_fifty_concurrent_changes_of_one_state_one_succeeds(service: Service) -> None:
    acme = await service.organization("Acme")
    tag = (await service.ask("GET", acme.path, acme.owner)).headers["etag"]
    answers = await asyncio.gather(
        *(
            service.ask("PATCH", acme.path, acme.owner, {"metadata": {"n": n}}, headers={"if-match": tag})
            for n in range(50)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 49


# --- renaming -------------------------------------------------------------------------------------------------------


async def test_a_rename_renames_the_collection_and_leaves_a_redirect(service: Service) -> None:
    acme, other = await service.organization("Acme", "enterprise"), await service.organization("Other")
    renamed = await service.ask("POST", acme.path + "/rename", acme.admin, {"name": "Acme Laboratories"})
    assert renamed.status_code == 200
    assert renamed.json()["collection_name"] == "org_acme-laboratories"
    assert renamed.json()["placement"]["epoch"] == acme.placement.epoch + 1
    taken = await service.ask("POST", other.path + "/rename", other.owner, {"name": "ACME"})
    problem(taken, 409, "organization.name_taken")
    back = await service.ask("POST", acme.path + "/rename", acme.admin, {"name": "Acme"})
    assert back.json()["collection_name"] == "org_acme"


async def test_of_two_renames_at_once_one_is_refused_or_both_happen_in_turn(service: Service) -> None:
    acme = await service.organization("Acme", "enterprise")
    answers = await asyncio.gather(
        *(service.ask("POST", acme.path + "/rename", acme.owner, {"name": f"Acme {n}"}) for n in range(2))
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert 200 in {answer.status_code for answer in answers}
    located = await service.located(acme.id)
    assert located.placement.space == f"org_{located.organization.slug}"
    assert located.organization.operation_id is None


# --- plans, suspending, ending --------------------------------------------------------------------------------------


async def test_a_plan_changes_where_the_data_can_stay(service: Service) -> None:
    acme = await service.organization("Acme")
    changed = await service.ask("POST", acme.path + "/plan", acme.owner, {"plan": "pro"})
    assert changed.json()["plan"] == "pro"
    moved = await service.ask("POST", acme.path + "/plan", acme.owner, {"plan": "enterprise"})
    problem(moved, 409, "placement.move_unavailable")
    unknown = await service.ask("POST", acme.path + "/plan", acme.owner, {"plan": "gold"})
    assert problem(unknown, 422, "plan.unknown")["errors"][0]["pointer"] == "/plan"


async def test_a_suspension_stops_everyone_until_the_owner_ends_it(service: Service) -> None:
    acme = await service.organization("Acme")
    assert (await service.ask("POST", acme.path + "/suspend", acme.owner)).json()["status"] == "suspended"
    for person in acme.people.values():
        problem(await service.ask("GET", acme.path, person), 423, "organization.suspended")
        problem(await service.ask("GET", "/v1/me", person), 423, "organization.suspended")
    problem(await service.ask("POST", acme.path + "/reactivate", acme.admin), 403, "auth.forbidden")
    assert (await service.ask("POST", acme.path + "/reactivate", acme.owner)).json()["status"] == "active"
    assert (await service.ask("GET", acme.path, acme.viewer)).status_code == 200


async def test_an_owner_reactivates_with_the_session_they_have_and_cannot_log_in_for_another(service: Service) -> None:
    acme = await service.organization("Acme")
    login = {"email": acme.owner.email, "password": PASSWORD}
    refresh_token = (await service.ask("POST", "/v1/auth/login", body=login)).json()["refresh_token"]
    await service.ask("POST", acme.path + "/suspend", acme.owner)
    problem(await service.ask("POST", "/v1/auth/login", body=login), 401, "auth.bad_credentials")
    granted = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": refresh_token})
    headers = {"authorization": f"Bearer {granted.json()['access_token']}"}
    assert (await service.ask("POST", acme.path + "/reactivate", headers=headers)).json()["status"] == "active"


async def test_what_the_operator_suspended_an_owner_cannot_reactivate(service: Service) -> None:
    acme = await service.suspended("Acme", by=OPERATOR)
    answer = await service.ask("POST", acme.path + "/reactivate", acme.owner)
    problem(answer, 409, "organization.status_conflict")


async def test_a_closed_organization_is_dead_to_all_but_the_owner_who_restores_it(service: Service) -> None:
    acme = await service.organization("Acme", "enterprise")
    ended = await service.ask("DELETE", acme.path, acme.owner)
    assert ended.json() == {"id": acme.id, "status": "closed", "purge_at": "2026-12-23T10:00:00.000Z"}
    for person in acme.people.values():
        for path in (acme.path, "/v1/me", "/v1/organizations", "/v1/organizations/org_01arz3ndektsv4rrffq69g5fav"):
            document = problem(await service.ask("GET", path, person), 401, "auth.token_invalid")
            assert ("/restore" in document["detail"]) is (person is acme.owner)
    problem(await service.ask("POST", acme.path + "/restore", acme.admin), 401, "auth.token_invalid")
    login = await service.ask("POST", "/v1/auth/login", body={"email": acme.owner.email, "password": PASSWORD})
    again = {"authorization": f"Bearer {login.json()['access_token']}"}
    document = problem(await service.ask("GET", "/v1/me", headers=again), 401, "auth.token_invalid")
    assert "/restore" in document["detail"]
    restored = await service.ask("POST", acme.path + "/restore", acme.owner)
    assert (restored.status_code, restored.json()["status"]) == (200, "active")
    assert (await service.ask("GET", acme.path, acme.viewer)).status_code == 200


async def test_a_purge_is_confirmed_by_the_slug_and_final(service: Service) -> None:
    acme = await service.organization("Acme", "enterprise")
    for query in ("purge=now", "purge=now&confirm=Acme", "purge=now&confirm=other"):
        answer = await service.ask("DELETE", f"{acme.path}?{query}", acme.owner)
        assert problem(answer, 422, "organization.confirmation_required")["errors"][0]["pointer"] == "/confirm"
    problem(await service.ask("DELETE", f"{acme.path}?purge=later", acme.owner), 422, "request.invalid")
    assert (await service.located(acme.id)).organization.status is OrganizationStatus.ACTIVE
    purged = await service.ask("DELETE", f"{acme.path}?purge=now&confirm=acme", acme.owner)
    assert purged.json() == {"id": acme.id, "status": "purged", "purge_at": "2026-11-23T10:00:00.000Z"}
    assert await service.rows(tables.organizations) == []
    assert await service.app.storage.spaces() == []
    problem(await service.ask("POST", acme.path + "/restore", acme.owner), 401, "auth.token_invalid")


async def test_a_purge_that_takes_longer_is_told_with_what_the_caller_needs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody of a purged organization can ask how it went: the answer itself says what will be, and it goes on."""
    acme, go = await service.organization("Acme", "enterprise"), asyncio.Event()

    async def held_up() -> None:
        await go.wait()

    monkeypatch.setattr(operations, "WAIT_SECONDS", 0.01)
    with arm("delete.mid_purge", held_up):
        answer = await service.ask("DELETE", f"{acme.path}?purge=now&confirm={acme.slug}", acme.owner)
        assert (answer.status_code, answer.json()) == (
            200,
            {"id": acme.id, "status": "purging", "purge_at": rfc3339(service.watch())},
        )
        problem(await service.ask("GET", acme.path, acme.owner), 401, "auth.token_invalid")
    go.set()
    await service.app.close()  # waits for what goes on in the background


async def test_a_name_released_by_a_purge_is_kept_for_its_former_owner(service: Service) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    again = await service.ask("POST", "/v1/organizations", acme.owner, {"name": "Further"})
    assert again.status_code == 201
    await service.ask("DELETE", f"{acme.path}?purge=now&confirm=acme", acme.owner)
    taken = await service.ask("POST", "/v1/organizations", other.owner, {"name": "Acme"})
    problem(taken, 409, "organization.name_taken")
    service.watch.advance(minutes=1)
    (owner,) = await service.rows(tables.users, id=acme.owner.user_id)
    further = (await service.located(again.json()["id"])).organization
    person = await service.logged_in(further, owner, Role.OWNER)
    assert (await service.ask("POST", "/v1/organizations", person, {"name": "Acme"})).status_code == 201
