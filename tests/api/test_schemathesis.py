"""Requests generated from the OpenAPI document, sent to a real server by two people who must not see each other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from orgstead.api import application
from orgstead.api.listening import Address
from orgstead.api.server import Bound, ServerOptions, serve
from tests.api.actors import Service, Standing
from tests.api.opening import new_app
from tests.support import EVERYTHING, PROJECT, SEED
from tests.watch import Watch

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900 if EVERYTHING else 120)]

EXAMPLES = 200 if EVERYTHING else 4
RANDOM = SEED if EVERYTHING else 1
"""By default the same requests each time: a run that fails fails again. ``make test-all`` tries others."""

CONFIGURATION = PROJECT / "tests" / "schemathesis.toml"

ENDING = ("org_delete", "organizations_delete", "organizations_suspend", "auth_logout", "auth_change_password")
"""Operations after which a caller, or everyone, is refused: tried apart, so that the others have callers."""


@asynccontextmanager
async def serving(engine: str) -> AsyncIterator[tuple[int, dict[str, Standing]]]:
    """A server on a free port, and two organizations on it."""
    watch = Watch()
    async with new_app(engine, watch, http={"allowed_hosts": ["127.0.0.1", "test"]}) as app:
        transport = httpx2.ASGITransport(app=application.build(app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            service = Service(app, client, watch)
            standings = {"alder": await service.organization("Alder"), "birch": await service.organization("Birch")}
        ready: asyncio.Future[Bound] = asyncio.get_running_loop().create_future()
        options = ServerOptions(public=Address("127.0.0.1", 0), management=Address("127.0.0.1", 0))
        served = application.serving(app)
        server = asyncio.create_task(serve(served.public, served.management, options, ready=ready.set_result))
        try:
            yield (await ready).public, standings
        finally:
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server


@pytest.mark.parametrize("ending", [False, True], ids=["callers stay", "callers end"])
async def test_generated_requests_find_nothing(engine: str, tmp_path: Path, ending: bool) -> None:
    filters = ("--include-operation-id", "--exclude-operation-id")
    names = [argument for name in ENDING for argument in (filters[not ending], name)]
    async with serving(engine) as (port, standings):
        credentials = [
            {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {standing.owner.token}"}]}
            for name, standing in standings.items()
        ]
        (tmp_path / "credentials.json").write_text(json.dumps({"auth": credentials}))
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIGURATION)),
            *("run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "all", "--no-color"),
            *("--seed", str(RANDOM), "--max-examples", str(EXAMPLES), *names),
            cwd=tmp_path,
            env={
                **os.environ,
                "ORGSTEAD_TEST_CREDENTIALS": str(tmp_path / "credentials.json"),
                "PYTHONPATH": str(PROJECT),
            },
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            output = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0, output
