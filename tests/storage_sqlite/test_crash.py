"""A process that is killed while it writes loses nothing that it acknowledged."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
import pytest

from orgstead.storage import open_storage
from tests.storage_sqlite.work import SYSTEM, add, ids

pytestmark = pytest.mark.anyio

# Sixteen clients write pairs of events; a pair is printed once ``run`` has returned.
CODE = """
import asyncio, sys
from orgstead.storage import open_storage
from tests.storage_sqlite.work import SYSTEM, add

async def pair(tx, id):
    await add(tx, id + "_a")
    await add(tx, id + "_b")

async def client(storage, name):
    for n in range(10**9):
        await storage.run(SYSTEM, pair, f"evt_{name}_{n}")
        sys.stdout.write(f"evt_{name}_{n}\\n")
        sys.stdout.flush()

async def main():
    storage = await open_storage(sys.argv[1])
    await storage.migrate()
    await asyncio.gather(*(client(storage, int(sys.argv[2]) + name) for name in range(16)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged_and_leaves_nothing_half_done(path: Path) -> None:
    url = f"sqlite:///{path}"
    for first in (0, 100):  # the second process starts from what the first one left
        async with await anyio.open_process([sys.executable, "-c", CODE, url, str(first)]) as process:
            assert process.stdout is not None
            acknowledged = ""
            while acknowledged.count("\n") < 200:
                acknowledged += (await process.stdout.receive()).decode()
            process.send_signal(signal.SIGKILL)
            async for rest in process.stdout:
                acknowledged += rest.decode()
        storage = await open_storage(url)  # the kernel released the dead process's lock
        await storage.check()
        kept = set(await storage.scan(SYSTEM, ids))
        promised = acknowledged.split("\n")[:-1]
        assert len(promised) >= 200
        assert {f"{pair}_{half}" for pair in promised for half in "ab"} <= kept
        assert _pairs(kept, "_a") == _pairs(kept, "_b")
        await storage.run(SYSTEM, add, f"evt_after_{first}")
        await storage.close()


def _pairs(kept: set[str], half: str) -> set[str]:
    return {event.removesuffix(half) for event in kept if event.endswith(half)}
