"""Usage over HTTP: exact, with the plan's limits; and the answers that spaces keep, which are forgotten in time."""

from __future__ import annotations

import pytest

from orgstead import answers, placements
from orgstead.model import IdempotentResponse
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from tests.api.actors import Service, Standing, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["free", "enterprise"], ids=["pooled", "dedicated"])
async def acme(service: Service, request: pytest.FixtureRequest) -> Standing:
    return await service.organization("Acme", plan=request.param)


async def test_usage_follows_every_change(service: Service, acme: Standing) -> None:
    path = acme.path + "/collections/notes/records"

    async def used() -> tuple[int, int, int]:
        answer = await service.ask("GET", acme.path + "/usage", acme.viewer)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        limit = service.app.settings.plans[acme.organization.plan].max_members
        assert (found["object"], found["members"]) == ("usage", {"used": 4, "limit": limit})
        return found["records"]["used"], found["bytes"]["used"], found["collections"]["used"]

    assert await used() == (0, 0, 0)
    await service.ask("POST", path, acme.member, {"id": "a", "data": {"n": 1}})
    assert await used() == (1, len('{"n":1}'), 1)
    await service.ask("PATCH", path + "/a", acme.member, {"data": {"m": "ä"}})
    assert await used() == (1, len('{"n":1,"m":"ä"}'.encode()), 1)
    problem(await service.ask("POST", path, acme.member, {"id": "a", "data": {}}), 409, "record.exists")
    assert await used() == (1, len('{"n":1,"m":"ä"}'.encode()), 1)
    await service.ask("DELETE", path + "/a", acme.member)
    assert await used() == (0, 0, 1)
    await service.ask("DELETE", acme.path + "/collections/notes", acme.admin)
    assert await used() == (0, 0, 0)


async def test_usage_names_the_limits_of_the_plan(services: Services, anyio_backend: str) -> None:
    async with services(
        plans={"free": {"max_records": 7, "max_bytes": 1000, "max_members": 9, "requests_per_second": 50}}
    ) as service:
        acme = await service.organization("Acme")
        found = (await service.ask("GET", acme.path + "/usage", acme.viewer)).json()
        limits = {what: found[what]["limit"] for what in ("records", "bytes", "collections", "members")}
        assert limits == {"records": 7, "bytes": 1000, "collections": 100, "members": 9}
        assert found["requests_per_second"] == 50


async def test_a_limit_below_the_usage_stops_growth_and_nothing_else(service: Service, acme: Standing) -> None:
    path = acme.path + "/collections/notes/records"
    for name in "abc":
        await service.ask("POST", path, acme.member, {"id": name, "data": {"text": "x" * 100}})
    plans = service.app.settings.plans
    plan = acme.organization.plan
    plans[plan] = plans[plan].model_copy(update={"max_records": 1, "max_bytes": 10})
    document = problem(await service.ask("POST", path, acme.member, {"data": {}}), 403, "quota.exceeded")
    assert document["quota"] == {"what": "records", "used": 3, "limit": 1}
    document = problem(
        await service.ask("PATCH", path + "/a", acme.member, {"data": {"more": 1}}), 403, "quota.exceeded"
    )
    assert document["quota"]["what"] == "bytes"
    assert (await service.ask("GET", path + "/a", acme.viewer)).status_code == 200
    assert (await service.ask("PUT", path + "/a", acme.member, {"data": {}})).status_code == 200
    assert (await service.ask("DELETE", path + "/b", acme.member)).status_code == 204


async def test_answers_in_spaces_are_forgotten_after_their_day(service: Service, acme: Standing) -> None:
    path = acme.path + "/collections/notes/records"
    for number in range(3):
        await service.ask("POST", path, acme.member, {"data": {}}, key=f"k{number}")
    assert await answers.forget_expired(service.app) == 0
    service.watch.advance(hours=24)
    assert await answers.forget_expired(service.app) == 3
    space = placements.space_of(acme.placement)
    assert await service.app.storage.read(space, _kept) == []


async def _kept(tx: Transaction) -> list[IdempotentResponse]:
    return await tx.page(tables.space_responses, limit=10)
