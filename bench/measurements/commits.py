"""Many writers whose transactions are committed together, against a commit for each; durable both times."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.options import Options
from bench.results import Result, Target
from orgstead import kit
from orgstead.model import Event
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction
from orgstead.storage.sqlite import connections, location
from orgstead.storage.sqlite.engine import SqliteStorage
from orgstead.storage.sqlite.writer import MAX_BATCH, Writer

_WRITERS = 64
_SCOPE = SystemScope("bench")


def run(options: Options) -> list[Result]:
    """Transactions per second of 64 writers, each of which adds one row at a time."""
    rates: dict[int, list[float]] = {MAX_BATCH: [], 1: []}
    for _ in range(options.rounds):
        for batch, found in rates.items():
            found.append(asyncio.run(_rate(options.folder / "commits", batch, options.seconds)))
    together, alone = median(rates[MAX_BATCH]), median(rates[1])
    return [
        Result(
            f"group commit ÷ a commit for each, {_WRITERS} writers",
            together / alone,
            "x",
            Target(5, 10, at_least=True),
            {"together/s": together, "alone/s": alone},
        )
    ]


async def _rate(folder: Path, batch: int, seconds: float) -> float:
    place = location.parse(f"sqlite:///{folder / 'main.db'}")
    lock = connections.claim(place)
    writer = Writer(connections.open_writer(place), max_batch=batch)
    storage = SqliteStorage(place.url, kit.now, connections.Readers(place, shared=True), writer, lock)
    try:
        await storage.migrate()
        before = writer.units
        began = perf_counter()
        await asyncio.gather(*(_write(storage, number, began + seconds) for number in range(_WRITERS)))
        return (writer.units - before) / (perf_counter() - began)
    finally:
        await storage.close()
        shutil.rmtree(folder)


async def _write(storage: SqliteStorage, number: int, until: float) -> None:
    at = kit.now()
    written = 0
    while perf_counter() < until:
        await storage.run(_SCOPE, _add, Event(org_id=f"org_{number}", id=str(written), type="bench", created_at=at))
        written += 1


async def _add(tx: Transaction, event: Event) -> None:
    await tx.add(tables.events, event)
