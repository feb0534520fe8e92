"""How many requests an organization may make: counted before any work, by plan, and apart from others'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from orgstead.errors import RateLimited
from orgstead.model import Role
from orgstead.rates import Rates
from orgstead.storage import tables
from tests.api.actors import SCOPE, Service, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio


class Ticks:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
async def limited(services: Services, ticks: Ticks, anyio_backend: str) -> AsyncIterator[Service]:
    """A service whose free plan allows five requests a second, ten at once."""
    async with services(plans={"free": {"requests_per_second": 5}}) as service:
        service.app.rates = Rates(ticks=ticks)
        yield service


async def test_an_organization_has_its_rate_and_no_more(limited: Service, ticks: Ticks) -> None:
    acme, other = await limited.organization("Acme"), await limited.organization("Other")
    path = acme.path + "/collections/notes/records"
    for number in range(10):
        person = list(acme.people.values())[number % 4]
        assert (await limited.ask("GET", acme.path, person)).status_code == 200
    for method, url, body in (("GET", acme.path, None), ("POST", path, {"data": {}}), ("GET", path + "/x", None)):
        answer = await limited.ask(method, url, acme.owner, body)
        document = problem(answer, 429, "rate.limited")
        assert answer.headers["retry-after"] == "1"
        assert "5 requests a second" in document["detail"]
    assert (await limited.ask("GET", other.path, other.owner)).status_code == 200
    ticks.now += 0.2
    assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200
    assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 429
    ticks.now += 3600
    answers = [(await limited.ask("GET", acme.path, acme.owner)).status_code for _ in range(11)]
    assert answers == [200] * 10 + [429]


async def test_what_is_beyond_the_rate_costs_no_work(limited: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = await limited.organization("Acme")
    for _ in range(10):
        assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200

    async def counted(*args: Any) -> Any:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(limited.app.storage, "access", counted)
    problem(await limited.ask("GET", acme.path, acme.owner), 429, "rate.limited")


async def test_what_is_beyond_the_rate_is_refused_unread_and_nothing_else_is(limited: Service) -> None:
    """Its body is not even judged. A token that nobody has seen and public routes are not refused with it."""
    acme = await limited.organization("Acme")
    path = acme.path + "/collections/notes/records"
    for _ in range(10):
        assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200
    for token, status in ((acme.owner.token, 429), ("not.a.token", 400)):
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        answer = await limited.client.post(path, content=b"{", headers=headers)
        assert answer.status_code == status
    for url in ("/openapi.json", "/.well-known/jwks.json"):
        assert (await limited.ask("GET", url, acme.owner)).status_code == 200


async def test_who_was_removed_cannot_use_up_the_rate(limited: Service) -> None:
    acme = await limited.organization("Acme")
    assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200

    async def leave(tx: Any) -> None:
        await tx.remove(tables.memberships, acme.id, acme.member.user_id)

    await limited.app.storage.run(SCOPE, leave)
    for _ in range(30):
        problem(await limited.ask("GET", acme.path, acme.member), 401, "auth.token_invalid")
    for _ in range(9):
        assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200


async def test_who_is_beyond_the_rate_can_still_log_out(limited: Service) -> None:
    acme = await limited.organization("Acme")
    for _ in range(10):
        assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200
    for person in acme.people.values():
        problem(await limited.ask("GET", "/v1/me", person), 429, "rate.limited")
        assert (await limited.ask("POST", "/v1/auth/logout", person)).status_code == 204
        problem(await limited.ask("POST", "/v1/auth/logout", person), 401, "auth.token_invalid")


async def test_logging_out_is_no_way_around_the_rate(limited: Service, ticks: Ticks) -> None:
    """A session that does not end by it may ask so often, and a program, which has none, no oftener than for others."""
    acme = await limited.organization("Acme")
    program = await limited.program(acme, Role.OWNER)
    no_key = "k" * 256
    for _ in range(2):
        refused = await limited.ask("POST", "/v1/auth/logout", acme.owner, key=no_key)
        problem(refused, 422, "idempotency.key_invalid")
    answer = await limited.ask("POST", "/v1/auth/logout", acme.owner, key=no_key)
    assert "plan" not in problem(answer, 429, "rate.limited")["detail"]
    assert answer.headers["retry-after"] == "1"
    assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200
    statuses = [(await limited.ask("POST", "/v1/auth/logout", program)).status_code for _ in range(10)]
    assert (set(statuses), statuses[-1]) == ({403, 429}, 429)
    ticks.now += 1
    assert (await limited.ask("POST", "/v1/auth/logout", acme.owner)).status_code == 204


async def test_another_plan_is_another_rate(limited: Service) -> None:
    acme = await limited.organization("Acme")
    for _ in range(9):
        assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200
    changed = await limited.ask("POST", acme.path + "/plan", acme.owner, {"plan": "pro"})
    assert changed.status_code == 200
    # What is left is what was left: the new plan is learned from a request that the old one lets pass.
    problem(await limited.ask("GET", acme.path, acme.owner), 429, "rate.limited")


async def test_a_plan_without_a_rate_is_not_held_to_one(limited: Service) -> None:
    acme = await limited.organization("Acme", plan="enterprise")
    for _ in range(50):
        assert (await limited.ask("GET", acme.path, acme.owner)).status_code == 200


def test_buckets_are_bounded(ticks: Ticks) -> None:
    rates = Rates(ticks=ticks, capacity=3)
    for number in range(10):
        rates.spend(f"org_{number}")
        rates.learn(f"org_{number}", 5)
    assert len(rates._buckets) == 3


def test_nobody_is_looked_at_while_nobody_can_have_used_up_their_rate(ticks: Ticks) -> None:
    rates = Rates(ticks=ticks)
    assert rates.are_quiet()
    for number in range(10):
        assert rates.are_quiet(), number
        rates.spend("org_a")
        rates.learn("org_a", 5)
    assert not rates.are_quiet()
    for _ in range(8):
        rates.spend("org_b")
        rates.learn("org_b", 5)
    assert not rates.are_quiet()
    ticks.now += 0.2
    rates.check("org_a")
    assert rates.are_quiet()
    rates.spend("org_a")
    assert not rates.are_quiet()


def test_a_rate_below_one_is_used_up_by_the_request_that_made_it_known(ticks: Ticks) -> None:
    rates = Rates(ticks=ticks)
    rates.spend("org_a")
    rates.learn("org_a", 0.1)
    assert not rates.are_quiet()
    ticks.now += 9.9
    assert not rates.are_quiet()
    with pytest.raises(RateLimited):
        rates.check("org_a")
    ticks.now += 0.2
    assert rates.are_quiet()
    rates.spend("org_a")
