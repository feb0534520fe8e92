"""``make real-import``: both real lists into a fresh database, and an account that is held against the files.

    python -m bench.real_records [--data FOLDER] [--organizations N]

The database is the one that the settings name, and must be empty; a new file in a temporary folder unless
``ORGSTEAD_DATABASE_URL`` is set. Every 50th organization is on ``enterprise`` and so has a space of its own. The exit
code is 1 where anything differs from what the files say. A test does the same on each engine.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orgstead import aggregates, importing, integrity, queries, record_import, record_import_many, spaces
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.config import load
from orgstead.model import PlacementKind
from orgstead.record_import_many import Addressed
from orgstead.storage.port import SystemScope

ROOT = Path(__file__).parent.parent
SCOPE = SystemScope("real import")
COLLECTION = "assignments"
DEDICATED_EVERY = 50
AGGREGATE = aggregates.parse(
    group_by=["registry"],
    measures={"count": {"count": True}, "sum": {"sum": "block"}, "min": {"min": "block"}, "max": {"max": "block"}},
)


@dataclass(slots=True)
class Lists:
    """The two files: organizations in their order, and the records of each by its external id."""

    organizations: list[dict[str, str]] = field(default_factory=list)
    records: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def only(self, chosen: Sequence[dict[str, str]]) -> Lists:
        """The lists cut to these organizations."""
        kept = {one["external_id"] for one in chosen}
        return Lists(list(chosen), {name: rows for name, rows in self.records.items() if name in kept})

    @property
    def count(self) -> int:
        """How many records there are."""
        return sum(map(len, self.records.values()))

    def organization_lines(self) -> Iterator[importing.Line]:
        """Lines for the import of organizations, every 50th on a plan with a space of its own."""
        for number, row in enumerate(self.organizations):
            plan = "enterprise" if number % DEDICATED_EVERY == 0 else "pro"
            yield importing.Line(number + 2, {**row, "plan": plan})

    def record_lines(self) -> Iterator[Addressed]:
        """Lines for the import of records. ``block`` is the assignment as a number, to have one to add up."""
        number = 1
        for name, rows in self.records.items():
            for row in rows:
                number += 1
                data = {"registry": row["registry"], "address": row["address"], "block": block(row)}
                yield Addressed(name, record_import.Line(number, data, row["assignment"], len(row["address"])))

    def expected(self, name: str) -> list[dict[str, Any]]:
        """What the aggregate of an organization must answer, from the file alone."""
        groups: dict[str, list[int]] = {}
        for row in self.records.get(name, ()):
            groups.setdefault(row["registry"], []).append(block(row))
        return [
            {"registry": registry, "count": len(blocks), "sum": sum(blocks), "min": min(blocks), "max": max(blocks)}
            for registry, blocks in sorted(groups.items())
        ]


def block(row: Mapping[str, str]) -> int:
    """The number that an assignment is."""
    return int(row["assignment"], 16)


def read(folder: Path) -> Lists:
    """Both files of the folder."""
    lists = Lists()
    with (folder / "organizations.csv").open(newline="", encoding="utf-8") as file:
        lists.organizations = list(csv.DictReader(file))
    with (folder / "assignments.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            lists.records.setdefault(row["organization"], []).append(row)
    return lists


@dataclass(slots=True)
class Account:
    """What an import did, and every difference between what it should have done and what is there."""

    organizations: Counter[str] = field(default_factory=Counter)
    kinds: Counter[PlacementKind] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def _nothing(_title: str) -> None: ...


async def import_both(app: App, lists: Lists, say: Callable[[str], object] = _nothing) -> Account:
    """Import the organizations, then their records; nothing may be refused, lost or there before."""
    account = Account()
    say("importing organizations")
    async for batch in importing.import_organizations(app, lists.organization_lines(), OPERATOR):
        account.organizations.update(outcome.result.value for outcome in batch)
    say("importing records")
    async for told in record_import_many.import_records(app, COLLECTION, lists.record_lines(), OPERATOR):
        account.records.update(one.outcome.result.value for one in told)
    made = account.organizations["created"] + account.organizations["renamed"]
    if made != len(lists.organizations) or account.organizations.total() != made:
        account.differences.append(f"{len(lists.organizations)} organizations were to be made, {made} were")
    if account.records != Counter({"created": lists.count}):
        account.differences.append(f"{lists.count} records were to be made: {dict(account.records)}")
    return account


async def compare(app: App, lists: Lists, account: Account, names: Sequence[str]) -> None:
    """Hold the aggregates of these organizations against the file."""
    rules = queries.rules_of(app.settings)
    for begin in range(0, len(names), 500):
        found = await record_import_many.located(app, names[begin : begin + 500])
        for name in names[begin : begin + 500]:
            if name not in found:
                account.differences.append(f"{name} is not there")
                continue
            placement = found[name].placement
            account.kinds[placement.kind] += 1
            expected = lists.expected(name)
            if not expected:
                continue  # an organization without records has no collection
            groups = await spaces.read(app, placement, aggregates.run, COLLECTION, AGGREGATE, rules)
            if groups != expected:
                account.differences.append(f"{name}: the file says {expected}, the database {groups}")
            account.compared += 1
            for group in groups:
                account.totals.update({"count": group["count"], "sum": group["sum"]})


# --- the command ------------------------------------------------------------------------------------------------------


@contextmanager
def _database() -> Iterator[Mapping[str, str]]:
    """The environment of the settings: as it is, or with a new file where no database is named."""
    if os.environ.get("ORGSTEAD_DATABASE_URL"):
        yield os.environ
        return
    with TemporaryDirectory(prefix="orgstead-") as folder:
        yield {**os.environ, "ORGSTEAD_DATABASE_URL": f"sqlite:///{Path(folder, 'main.db')}"}


async def run(lists: Lists, environ: Mapping[str, str]) -> Account:
    """Everything, with a line on standard error for each part."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

    app = await App.open(load(environ=environ).settings)
    try:
        await app.storage.migrate()
        await app.storage.check()
        if await app.storage.spaces(limit=1):
            raise SystemExit("The database is not empty: name another one in ORGSTEAD_DATABASE_URL.")
        account = await import_both(app, lists, say)
        say("comparing aggregates")
        await compare(app, lists, account, [one["external_id"] for one in lists.organizations])
        totals = Counter(
            {"count": lists.count, "sum": sum(block(row) for rows in lists.records.values() for row in rows)}
        )
        if account.totals != totals:
            account.differences.append(f"the file adds up to {dict(totals)}, the database to {dict(account.totals)}")
        say("checking everything against everything (fsck)")
        async for finding in integrity.fsck(app):
            account.differences.append(f"fsck {finding.id} {finding.subject}: {finding.detail}")
        say("done")
    finally:
        await app.close()
    return account


def main(arguments: Sequence[str]) -> int:
    """Print the account; 0, or 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="python -m bench.real_records")
    default = ROOT / (os.environ.get("ORGSTEAD_TEST_DATA") or "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="folder of organizations.csv and assignments.csv")
    parser.add_argument("--organizations", type=int, help="only so many of the organizations")
    asked = parser.parse_args(arguments)
    if not (asked.data / "assignments.csv").is_file():
        parser.error("the real lists are not there: name their folder with --data or ORGSTEAD_TEST_DATA")
    lists = read(asked.data)
    lists = lists.only(lists.organizations[: asked.organizations])
    with _database() as environ:
        account = asyncio.run(run(lists, environ))
    rows = [
        ("organizations in the file", len(lists.organizations)),
        *((f"organizations {result}", number) for result, number in sorted(account.organizations.items())),
        *((f"organizations {kind}", number) for kind, number in sorted(account.kinds.items())),
        ("records in the file", lists.count),
        *((f"records {result}", number) for result, number in sorted(account.records.items())),
        ("organizations whose aggregates were compared", account.compared),
        ("records by aggregates", account.totals["count"]),
        ("sum of blocks by aggregates", account.totals["sum"]),
        ("differences", len(account.differences)),
    ]
    for what, number in rows:
        print(f"{what:<46}{number:>18,}")
    for difference in account.differences[:20]:
        print(f"difference: {difference}")
    return 1 if account.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
