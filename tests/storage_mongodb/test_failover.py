"""A replica set of three loses its primary under writers: nothing acknowledged is lost. Needs a real ``mongod``."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack
from pathlib import Path

import pymongo
import pytest

from orgstead.errors import StorageError
from orgstead.storage.port import OrgScope
from orgstead.storage.tables import memberships
from tests.contract.work import do, rows_of
from tests.rows import org_id, sample
from tests.servers import mongodb
from tests.storage_mongodb.work import opened

WRITERS = 8


@pytest.mark.real_mongodb
async def test_acknowledged_writes_survive_the_loss_of_the_primary(tmp_path: Path) -> None:
    if shutil.which("mongod") is None:
        pytest.skip("three nodes are started here: mongod must be on PATH")
    with ExitStack() as stack:
        members = dict(_member(stack, tmp_path) for _ in range(3))
        mongodb.initiate("rs0", list(members))
        url = f"mongodb://{','.join(members)}/orgstead?replicaSet=rs0"
        async with opened(url) as storage:
            await storage.migrate()
            org = org_id()
            acknowledged: set[str] = set()
            gone: list[int] = []
            enough, stop = asyncio.Event(), asyncio.Event()

            async def write() -> None:
                while not stop.is_set():
                    row = sample(memberships, org)
                    try:
                        await do(storage, OrgScope(org), "add", memberships, row)
                    except StorageError:
                        continue
                    acknowledged.add(row.user_id)
                    if len(acknowledged) >= 50:
                        enough.set()
                    if gone and len(acknowledged) >= gone[0] + 50:
                        stop.set()

            async def lose_the_primary() -> None:
                await enough.wait()
                await asyncio.to_thread(members[_primary(url)].close)
                gone.append(len(acknowledged))

            async with asyncio.TaskGroup() as group:
                for _ in range(WRITERS):
                    group.create_task(write())
                group.create_task(lose_the_primary())
            found = {row.user_id for row in await rows_of(storage, OrgScope(org), memberships, limit=100_000)}
            assert acknowledged <= found


def _member(stack: ExitStack, folder: Path) -> tuple[str, ExitStack]:
    alone = stack.enter_context(ExitStack())
    return alone.enter_context(mongodb.member(folder, "rs0")), alone


def _primary(url: str) -> str:
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(url)
    with client:
        client.admin.command("ping")
        assert client.primary is not None
        return f"{client.primary[0]}:{client.primary[1]}"
