"""The engines that are measured, their databases, and what each is held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from bench import postgres_server
from bench.results import Target
from tests.servers import mongodb

MakeDatabase = Callable[[Path], Mapping[str, str]]
"""Makes the database of a place, which is a folder; returns the settings that reach it."""

DATABASE = "database.json"
"""The file in a place's folder that says where its database is."""


@dataclass(frozen=True, slots=True)
class Engine:
    """``databases`` keeps a server running while it is open, with the data of kept places in the folder it is given.

    ``measurements`` are the names of those that say something about this engine; ``targets`` are by measurement, or
    by what it measures where that is several things.
    """

    name: str
    databases: Callable[[Path], AbstractContextManager[MakeDatabase]]
    measurements: tuple[str, ...]
    targets: Mapping[str, Target]


@contextmanager
def _files(kept: Path) -> Iterator[MakeDatabase]:
    yield lambda folder: {"database_url": f"sqlite:///{folder / 'main.db'}"}


@contextmanager
def _postgres(kept: Path) -> Iterator[MakeDatabase]:
    with postgres_server.running(kept / "postgres") as make_database:
        yield make_database


@contextmanager
def _mongodb(kept: Path) -> Iterator[MakeDatabase]:
    """The server of the tests, which is none to measure the speed of: what it is sent is what MongoDB would be."""
    server = replace(mongodb.server(), real=True)
    yield lambda folder: {"database_url": server.url(f"bench_{folder.name}")}


_OF_RECORDS = ("records", "bulk_records", "pages", "exporting", "fairness")

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "sqlite": Engine(
            "SQLite",
            _files,
            ("reading", "hashing", "tail", "commits", "growth", "starting", "importing", *_OF_RECORDS),
            MappingProxyType(
                {
                    "reading": Target(0.50, 0.60, at_least=True),
                    "importing": Target(2000, 3000, at_least=True),
                    "records get": Target(0.45, 0.55, at_least=True),
                    "records create": Target(0.30, at_least=True),
                    "bulk_records": Target(10_000, at_least=True),
                }
            ),
        ),
        "postgres": Engine(
            "PostgreSQL",
            _postgres,
            ("reading", "hashing", "growth", "importing", "processes", *_OF_RECORDS),
            MappingProxyType(
                {
                    "reading": Target(0.33, 0.40, at_least=True),
                    "importing": Target(1000, 2000, at_least=True),
                    "bulk_records": Target(5000, at_least=True),
                }
            ),
        ),
        "mongodb": Engine("MongoDB", _mongodb, ("round_trips",), MappingProxyType({})),
    }
)


def settings_of(folder: Path) -> Mapping[str, str]:
    """The settings that reach the database of a place."""
    settings: dict[str, str] = json.loads((folder / DATABASE).read_text())
    return settings


def variables_of(folder: Path) -> dict[str, str]:
    """``settings_of`` as environment variables."""
    return {f"ORGSTEAD_{name.upper()}": value for name, value in settings_of(folder).items()}


def make(folder: Path, databases: MakeDatabase) -> None:
    """Make a place with an empty database; one that is there already stays, and is written down where it is now."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATABASE).write_text(json.dumps(dict(databases(folder))))
