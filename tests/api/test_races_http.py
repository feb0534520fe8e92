"""Requests that race for one thing over HTTP: one of them gets it, the others are told so, and nothing is left over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from orgstead.failpoints import arm
from orgstead.model import OrganizationStatus, Role
from orgstead.passwords import Passwords
from orgstead.storage import tables
from orgstead.throttles import Throttles
from tests.api.actors import PASSWORD, Service, problem
from tests.api.conftest import Services
from tests.api.matrix import assert_decent
from tests.api.opening import CHEAP
from tests.apps import assert_clean, recover, space_names

pytestmark = pytest.mark.anyio


@pytest.fixture
async def patient(services: Services, anyio_backend: str) -> AsyncIterator[Service]:
    """A service that lets everybody wait as long as it takes, so that races are decided by what they race for."""
    async with services(http={"allowed_hosts": ["test"], "deadline_seconds": 90}) as service:
        service.app.__dict__["passwords"] = Passwords(**CHEAP, max_wait_seconds=60)
        service.app.__dict__["throttles"] = Throttles(clock=service.watch, max_wait_seconds=60)
        yield service


def tally(answers: list[httpx2.Response]) -> dict[int, int]:
    """status -> how many; every answer is a decent one."""
    for answer in answers:
        assert_decent(answer)
    return Counter(answer.status_code for answer in answers)


def sign_up(name: str, number: int, **changes: str) -> dict[str, str]:
    email = f"racer{number}@people.example.com"
    return {"organization_name": name, "email": email, "password": PASSWORD, **changes}


# --- one name ---------------------------------------------------------------------------------------------------------


async def test_of_a_hundred_strangers_one_gets_the_name_and_the_others_leave_nothing(patient: Service) -> None:
    answers = await asyncio.gather(
        *(patient.ask("POST", "/org/create", body=sign_up("Contested", n, plan="enterprise")) for n in range(100))
    )
    assert tally(answers) == {201: 1, 409: 99}
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"organization.name_taken"}
    (organization,) = await patient.rows(tables.organizations)
    (owner,) = await patient.rows(tables.users)
    (membership,) = await patient.rows(tables.memberships)
    assert (organization.slug, organization.status) == ("contested", OrganizationStatus.ACTIVE)
    assert (membership.user_id, membership.role) == (owner.id, Role.OWNER)
    assert await space_names(patient.app) == {"org_contested"}
    await assert_clean(patient.app)


async def test_of_many_spellings_of_one_name_one_is_taken(patient: Service) -> None:
    """B2: they have one slug, and the slug is what is unique."""
    acme = await patient.organization("Acme")
    spellings = [
        "Blue Sky",
        "blue sky",
        "BLUE SKY",
        "Blue-Sky",
        "blue_sky",
        "Blue.Sky",
        "Blue  Sky",
        "Blué Sky",
        "Blue Sky!",
    ]
    answers = await asyncio.gather(
        *(patient.ask("POST", "/v1/organizations", acme.owner, {"name": name}) for name in spellings * 11)
    )
    assert tally(answers) == {201: 1, 409: 98}
    assert sorted(row.slug for row in await patient.rows(tables.organizations)) == ["acme", "blue-sky"]
    await assert_clean(patient.app)


async def test_of_many_renames_to_one_name_one_succeeds(service: Service) -> None:
    standings = [await service.organization(f"Racer {n}", plan="enterprise") for n in range(8)]
    answers = await asyncio.gather(
        *(service.ask("POST", f"{racer.path}/rename", racer.owner, {"name": "Contested"}) for racer in standings)
    )
    assert tally(answers) == {200: 1, 409: 7}
    for racer, answer in zip(standings, answers, strict=True):
        located = await service.located(racer.id)
        expected = "contested" if answer.status_code == 200 else racer.slug
        assert (located.organization.slug, located.placement.space) == (expected, f"org_{expected}")
    await assert_clean(service.app)


async def test_a_create_and_a_rename_do_not_both_get_the_name(service: Service) -> None:
    """B7"""
    acme, racer = await service.organization("Acme"), await service.organization("Racer", plan="enterprise")
    for number in range(20):
        name = f"Contested {number}"
        answers = await asyncio.gather(
            service.ask("POST", f"{racer.path}/rename", racer.owner, {"name": name}),
            service.ask("POST", "/v1/organizations", acme.owner, {"name": name, "plan": "enterprise"}),
        )
        assert sorted(answer.status_code for answer in answers) in ([200, 409], [201, 409]), number
        slug = f"contested-{number}"
        holders = [row.id for row in await service.rows(tables.organizations) if row.slug == slug]
        assert holders == [answer.json()["id"] for answer in answers if answer.status_code < 300]
    await assert_clean(service.app)


async def test_a_purge_and_a_create_do_not_both_have_the_name(service: Service) -> None:
    """B8: the name is the old one's, then kept for its owner; a stranger never gets it."""
    acme = await service.organization("Acme")
    for number in range(5):
        racer = await service.organization(f"Contested {number}", plan="enterprise")
        body = {"name": f"Contested {number}", "plan": "enterprise"}
        purge = f"{racer.path}?purge=now&confirm={racer.slug}"
        answers = await asyncio.gather(
            service.ask("DELETE", purge, racer.owner),
            *(service.ask("POST", "/v1/organizations", acme.owner, body) for _ in range(5)),
        )
        assert tally(answers) == {200: 1, 409: 5}
        later = await service.ask("POST", "/v1/organizations", acme.owner, body)
        problem(later, 409, "organization.name_taken")
        own = {"organization_name": body["name"], "email": racer.owner.email, "password": PASSWORD}
        assert (await service.ask("POST", "/org/create", body=own)).status_code == 201
    assert await space_names(service.app) == {f"org_contested-{number}" for number in range(5)}
    await assert_clean(service.app)


# --- one account ------------------------------------------------------------------------------------------------------


async def test_a_hundred_sign_ups_of_one_person_make_one_account(patient: Service) -> None:
    """B10: each has the right password, so each organization is theirs."""
    address = {"email": "ada@people.example.com"}
    answers = await asyncio.gather(
        *(patient.ask("POST", "/org/create", body={**sign_up(f"Venture {n}", n), **address}) for n in range(100))
    )
    assert tally(answers) == {201: 100}
    (owner,) = await patient.rows(tables.users)
    assert {answer.json()["admin"]["id"] for answer in answers} == {owner.id}
    assert {row.user_id for row in await patient.rows(tables.memberships)} == {owner.id}
    assert len(await patient.rows(tables.organizations)) == 100
    await assert_clean(patient.app)


async def test_of_sign_ups_with_two_passwords_those_with_the_accounts_own_succeed(patient: Service) -> None:
    email = "ada@people.example.com"
    passwords = [("first passphrase", "second passphrase")[n % 2] for n in range(20)]
    answers = await asyncio.gather(
        *(
            patient.ask("POST", "/org/create", body=sign_up(f"Venture {n}", n, email=email, password=password))
            for n, password in enumerate(passwords)
        )
    )
    (owner,) = await patient.rows(tables.users)
    for password, answer in zip(passwords, answers, strict=True):
        if await patient.app.passwords.verify(owner.password_hash, password):
            # Ten wrong guesses end the right ones from that address, too.
            assert answer.status_code in (201, 429), answer.text
        else:
            assert answer.status_code in (409, 429), answer.text
    assert len(await patient.rows(tables.organizations)) == tally(answers)[201] > 0


async def test_two_people_do_not_both_get_one_address(service: Service) -> None:
    acme = await service.organization("Acme")
    wanted = {"email": "wanted@people.example.com"}
    answers = await asyncio.gather(
        *(service.ask("PUT", "/org/update", person, wanted) for person in (acme.owner, acme.admin))
    )
    assert tally(answers) == {200: 1, 409: 1}
    assert len([row for row in await service.rows(tables.users) if row.email == wanted["email"]]) == 1


# --- one session ------------------------------------------------------------------------------------------------------


async def test_two_hundred_log_ins_are_let_in_or_told_to_wait(service: Service) -> None:
    """B11: what does not fit into the queue of hashes is refused at once, as no wrong password."""
    acme = await service.organization("Acme")
    body = {"email": acme.owner.email, "password": PASSWORD}
    before = len(await service.rows(tables.sessions))
    answers = await asyncio.gather(*(service.ask("POST", "/v1/auth/login", body=body) for _ in range(200)))
    let_in = [answer for answer in answers if answer.status_code == 200]
    assert let_in
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 503, "service.overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    assert len(await service.rows(tables.sessions)) == before + len(let_in)
    assert len({answer.json()["refresh_token"] for answer in let_in}) == len(let_in)
    assert (await service.ask("POST", "/v1/auth/login", body=body)).status_code == 200


async def test_refreshes_at_once_are_one_family(service: Service) -> None:
    """C32: within the grace all get the same next token, and there is never a second one alive."""
    acme = await service.organization("Acme")
    body = {"email": acme.owner.email, "password": PASSWORD}
    first = (await service.ask("POST", "/v1/auth/login", body=body)).json()["refresh_token"]

    async def refresh(token: str) -> httpx2.Response:
        return await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": token})

    before = await service.rows(tables.sessions)
    answers = await asyncio.gather(*(refresh(first) for _ in range(50)))
    assert tally(answers) == {200: 50}
    (second,) = {answer.json()["refresh_token"] for answer in answers}
    assert len(await service.rows(tables.sessions)) == len(before)
    service.watch.advance(seconds=31)
    assert (await refresh(second)).status_code == 200
    problem(await refresh(first), 401, "auth.token_invalid")


async def test_nothing_is_let_in_after_a_log_out_was_answered(service: Service) -> None:
    """R18: requests that race with the end of their session are served or refused; later ones are refused."""
    acme = await service.organization("Acme")
    out, *others = await asyncio.gather(
        service.ask("POST", "/v1/auth/logout", acme.owner),
        *(service.ask("GET", "/v1/me", acme.owner) for _ in range(20)),
    )
    assert out.status_code == 204
    assert tally(others).keys() <= {200, 401}
    problem(await service.ask("GET", "/v1/me", acme.owner), 401, "auth.token_invalid")


# --- one organization -------------------------------------------------------------------------------------------------


CHANGES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/rename", {"name": "Racer First"}),
    ("POST", "/rename", {"name": "Racer Second"}),
    ("PATCH", "", {"metadata": {"seen": True}}),
    ("POST", "/plan", {"plan": "free"}),
    ("POST", "/suspend", None),
    ("POST", "/reactivate", None),
    ("DELETE", "", None),
    ("POST", "/restore", None),
]
"""Everything that an owner can do to an organization."""


@pytest.mark.parametrize("point", ["rename.after_claim", "rename.after_close", "rename.after_flip"])
async def test_during_a_rename_every_other_change_waits(service: Service, point: str) -> None:
    """E8, without chance: the rename stands still while the others are asked for."""
    racer = await service.organization("Racer", plan="enterprise")
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stand_still() -> None:
        reached.set()
        await go_on.wait()

    with arm(point, stand_still):
        rename = asyncio.create_task(service.ask("POST", f"{racer.path}/rename", racer.owner, {"name": "Renamed"}))
        await reached.wait()
        for method, path, body in CHANGES:
            if path not in ("/reactivate", "/restore"):
                answer = await service.ask(method, racer.path + path, racer.owner, body)
                problem(answer, 409, "operation.in_progress")
        assert (await service.ask("GET", racer.path, racer.owner)).status_code == 200
        go_on.set()
        assert (await rename).json()["collection_name"] == "org_renamed"
    await assert_clean(service.app)


async def test_whatever_is_asked_at_once_leaves_an_organization_in_order(service: Service, seed: int) -> None:
    """E8: renames, suspensions, plans and the end of it, all at once; each is done wholly or refused."""
    choice = random.Random(seed)
    for number in range(4):
        racer = await service.organization(f"Number {number}", plan="enterprise")
        asked = [(method, path, _numbered(body, number)) for method, path, body in CHANGES * 2]
        choice.shuffle(asked)
        answers = await asyncio.gather(
            *(service.ask(method, racer.path + path, racer.owner, body) for method, path, body in asked)
        )
        assert tally(answers).keys() <= {200, 401, 409, 423}
        await recover(service.app)
        located = await service.located(racer.id)
        assert located.placement.space == f"org_{located.organization.slug}"
        assert located.organization.operation_id is None
    await assert_clean(service.app)


def _numbered(body: dict[str, Any] | None, number: int) -> dict[str, Any] | None:
    """The body with a name of its own, where it gives one."""
    return {**body, "name": f"{body['name']} {number}"} if body and "name" in body else body
