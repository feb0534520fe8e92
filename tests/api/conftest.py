"""Fixtures of tests of the HTTP API: the whole application over a new database of each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import httpx2
import pytest

from orgstead.api import application
from tests.api.actors import Service
from tests.api.opening import new_app
from tests.engines import selected
from tests.watch import Watch


@pytest.fixture(scope="session", params=selected())
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn: for fixtures only, no test looks at it."""
    return str(request.param)


class Services(Protocol):
    """Opens services whose settings differ from the usual."""

    def __call__(self, **changes: Any) -> AbstractAsyncContextManager[Service]: ...


@pytest.fixture(scope="session")
def services(engine: str) -> Services:
    """Open a service with other settings: ``async with services(signup="closed") as service``."""

    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[Service]:
        watch = Watch()
        async with new_app(engine, watch, **changes) as app:
            transport = httpx2.ASGITransport(app=application.build(app), client=("192.0.2.1", 50_000))
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                yield Service(app, client, watch)

    return opened


@pytest.fixture
async def service(services: Services, anyio_backend: str) -> AsyncIterator[Service]:
    """The application over a new database, and a client for it."""
    async with services() as service:
        yield service


@pytest.fixture
def client(service: Service) -> httpx2.AsyncClient:
    """A client of ``service`` at http://test, without any credential."""
    return service.client
