"""The limits of size and time around the real routes; each limit by itself is in the tests of the layer that has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import httpx2
import pytest

from orgstead.api import application
from orgstead.api.listening import Address
from orgstead.api.server import Bound, ServerOptions, serve
from orgstead.failpoints import arm
from orgstead.model import OrganizationStatus
from orgstead.storage import tables
from tests.api import matrix
from tests.api.actors import PASSWORD, Service, problem
from tests.api.conftest import Services
from tests.api.matrix import ROUTES, Key, Town, founded, name_of, send
from tests.apps import assert_clean, recover

pytestmark = pytest.mark.anyio

CREATE = {"organization_name": "Nova", "email": "ada@people.example.com", "password": PASSWORD}
KEYS = matrix.with_body()


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def town(services: Services, anyio_backend: str) -> AsyncIterator[Town]:
    """A town in which nothing is ever accepted, so that it stays as it is."""
    async with services() as service:
        yield await founded(service)


@pytest.mark.parametrize("key", KEYS, ids=map(name_of, KEYS))
async def test_a_stream_over_the_limit_is_not_read_to_its_end(town: Town, key: Key) -> None:
    """H5: without a Content-Length, nothing but counting says that it is too large."""
    taken = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b'{"name":"'
        for _ in range(200):
            taken += 1
            yield b"a" * 65_536

    before = await matrix.state(town)
    call = ROUTES[key].make(town, town.own, "owner")
    answer = await town.service.client.request(
        key[0],
        key[1].format(**call.path),
        headers={**town.own.owner.headers, "content-type": "application/json"},
        content=stream(),
    )
    problem(answer, 413, "request.body_too_large")
    assert taken <= 17, "one megabyte and the piece that was too much"
    assert await matrix.state(town) == before


async def test_the_limit_is_the_settings(services: Services) -> None:
    async with services(http={"allowed_hosts": ["test"], "max_body_bytes": 1024}) as service:
        town = await founded(service)
        room = 1024 - len(json.dumps({"name": ""}))
        key = ("PATCH", matrix.OWN)
        for length, status in ((room, 422), (room + 1, 413)):
            call = replace(ROUTES[key].make(town, town.own, "owner"), body=None)
            body = json.dumps({"name": "a" * length}).encode()
            json_ = {"content-type": "application/json"}
            answer = await send(town, key, call, {**town.own.owner.headers, **json_}, body)
            assert answer.status_code == status


# --- time -------------------------------------------------------------------------------------------------------------

HASTY = {"allowed_hosts": ["test"], "deadline_seconds": 0.2}


async def _for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("point", ["create.before_intent", "create.after_claim", "create.after_space"])
async def test_a_create_beyond_its_deadline_is_done_wholly_or_not_at_all(services: Services, point: str) -> None:
    """R59: the answer says to ask again, and whoever does, with the same key, gets the one organization."""
    async with services(http=HASTY) as service:
        with arm(point, _for_ever):
            answer = await service.ask("POST", "/org/create", body=CREATE, key="one")
            problem(answer, 503, "service.deadline_exceeded")
            assert int(answer.headers["retry-after"]) >= 1
            await _cancel_background(service)
        await recover(service.app)
        again = await service.ask("POST", "/org/create", body=CREATE, key="one")
        assert again.status_code == 201
        (organization,) = await service.rows(tables.organizations)
        assert (organization.id, organization.status) == (
            again.json()["organization"]["id"],
            OrganizationStatus.ACTIVE,
        )
        assert len(await service.rows(tables.users)) == 1
        await assert_clean(service.app)


@pytest.mark.parametrize("point", ["rename.after_claim", "rename.after_close", "rename.after_flip"])
async def test_a_rename_beyond_its_deadline_is_completed_later(services: Services, point: str) -> None:
    async with services(http=HASTY) as service:
        acme = await service.organization("Acme", plan="enterprise")
        with arm(point, _for_ever):
            answer = await service.ask("POST", f"{acme.path}/rename", acme.owner, {"name": "Renamed"}, key="one")
            problem(answer, 503, "service.deadline_exceeded")
            await _cancel_background(service)
        await recover(service.app)
        again = await service.ask("POST", f"{acme.path}/rename", acme.owner, {"name": "Renamed"}, key="one")
        assert (again.status_code, again.json()["collection_name"]) == (200, "org_renamed")
        await assert_clean(service.app)


async def _cancel_background(service: Service) -> None:
    """What goes on after an answer would stand still for ever: it ends, as it would with its process."""
    tasks = list(service.app._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_log_in_beyond_its_deadline_begins_no_session(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services(http=HASTY) as service:
        acme = await service.organization("Acme")
        before = await service.rows(tables.sessions)

        async def verify(stored: str, password: str) -> bool:
            await _for_ever()
            return True

        monkeypatch.setattr(service.app.passwords, "verify", verify)
        body = {"email": acme.owner.email, "password": PASSWORD}
        problem(await service.ask("POST", "/v1/auth/login", body=body), 503, "service.deadline_exceeded")
        monkeypatch.undo()
        assert await service.rows(tables.sessions) == before
        assert (await service.ask("POST", "/v1/auth/login", body=body)).status_code == 200


# --- many at once -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Bound]:
    """The service on free ports of this machine."""
    served = application.serving(service.app)
    ready: asyncio.Future[Bound] = asyncio.get_running_loop().create_future()
    options = ServerOptions(public=Address("127.0.0.1", 0), management=Address("127.0.0.1", 0))
    task = asyncio.create_task(serve(served.public, served.management, options, ready=ready.set_result))
    try:
        yield await ready
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


HALVES = (
    b"POST /org/create HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    b"POST /admin/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"GET /v1/me HTTP/1.1\r\nHost: test\r\nAuthorization: Bea",
    b"G",
)
"""Requests that never go on."""


async def test_two_hundred_half_sent_requests_stop_nobody(service: Service) -> None:
    """H8, with the real routes: creating, logging in, reading and the state of health."""
    async with serving(service) as bound, AsyncExitStack() as stack:
        for number in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", bound.public)
            stack.callback(writer.close)
            writer.write(HALVES[number % len(HALVES)])
            await writer.drain()
        async with httpx2.AsyncClient(headers={"host": "test"}) as client:
            url = f"http://127.0.0.1:{bound.public}"
            created = await client.post(f"{url}/org/create", json=CREATE)
            assert created.status_code == 201
            login = {"email": CREATE["email"], "password": PASSWORD}
            token = (await client.post(f"{url}/admin/login", json=login)).json()["access_token"]
            read = await client.get(f"{url}/v1/me", headers={"authorization": f"Bearer {token}"})
            assert read.json()["email"] == CREATE["email"]
            health = await client.get(f"http://127.0.0.1:{bound.management}/healthz", headers={"host": "localhost"})
            assert health.status_code == 200
