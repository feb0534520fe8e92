"""Opening a database: the only place that knows which engines there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from orgstead.errors import ConfigurationError
from orgstead.kit import Clock, now
from orgstead.storage.port import Storage

DEFAULT_URL = "sqlite:///orgstead-data/main.db"
"""The embedded database in the folder that the service was started in: needs no server."""

_EXTRAS = MappingProxyType({"postgresql": "postgres", "mongodb": "mongodb", "mongodb+srv": "mongodb"})
"""Scheme -> the extra that installs its driver."""

_SCHEMES = ("sqlite", *_EXTRAS)


@dataclass(frozen=True, slots=True)
class Description:
    """What may be said about a database without opening it.

    ``url`` carries no credentials and no parameters. ``folder`` is the local folder that the database lives in, or None
    where a server keeps it; ``files`` are those that it consists of there, its own first, whether they are there now
    or not. ``concurrent`` says whether several processes may write to it at once.
    """

    url: str
    folder: Path | None
    files: tuple[Path, ...]
    concurrent: bool


def describe(url: str) -> Description:
    """Describe the database at ``url`` without touching it. Raises ``ConfigurationError`` for a URL of no engine."""
    scheme = _scheme(url)
    if scheme == "sqlite":
        from orgstead.storage.sqlite import location

        place = location.parse(url)
        return Description(place.url, place.path.parent, place.files, concurrent=False)
    if scheme == "postgresql":
        from orgstead.storage.postgres import location as postgres

        return Description(postgres.parse(url).url, None, (), concurrent=True)
    from orgstead.storage.mongodb import location as mongodb

    return Description(mongodb.parse(url).url, None, (), concurrent=True)


async def open_storage(
    url: str, *, migration_url: str | None = None, writable: bool = True, make: bool = True, clock: Clock = now
) -> Storage:
    """Open the database at ``url``; the engine is chosen by the URL's scheme and imported only then.

    ``migration_url`` reaches the same database with the rights to change its schema and to make spaces, where the
    engine has such a distinction. ``writable=False`` opens it beside a process that writes to it; ``run`` then raises
    ``StorageReadOnly``. A missing database is created where ``writable`` and ``make`` and the engine is embedded. The
    schema is not looked at: call ``check`` or ``migrate``. ``clock`` dates the migrations.

    Raises ``ConfigurationError`` for an unknown scheme, a driver that is not installed, a place that cannot be used, or
    a database that another process has open for writing (``DatabaseInUse``).
    """
    scheme = _scheme(url)
    if scheme == "sqlite":
        from orgstead.storage.sqlite.engine import SqliteStorage

        return SqliteStorage.open(url, writable=writable, make=make, clock=clock)
    try:
        if scheme == "postgresql":
            from orgstead.storage.postgres.engine import PostgresStorage

            return await PostgresStorage.open(url, migration_url=migration_url, writable=writable, clock=clock)
        from orgstead.storage.mongodb.engine import MongoStorage

        return await MongoStorage.open(url, writable=writable, clock=clock)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "orgstead":
            raise
        raise ConfigurationError(
            f"The driver for {scheme} databases is not installed.",
            next=f"pip install 'orgstead[{_EXTRAS[scheme]}]'",
        ) from error


async def pending(url: str, *, migration_url: str | None = None) -> list[tuple[int, str]]:
    """What ``Storage.migrate`` would apply to the database at ``url``, as ``Storage.pending`` says it; nothing is made.

    An embedded database that is missing would get everything. Raises what ``open_storage`` and ``pending`` raise.
    """
    files = describe(url).files
    if files and not files[0].exists():
        from orgstead.storage import migrations

        return migrations.told(migrations.pending(0))
    storage = await open_storage(url, migration_url=migration_url, writable=False)
    try:
        return await storage.pending()
    finally:
        await storage.close()


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition(":")
    if not separator or scheme not in _SCHEMES:
        meant = next((known for known in _SCHEMES if scheme.startswith(known.removesuffix("ql"))), None)
        raise ConfigurationError(
            "The database URL begins with a scheme that this version does not know; it knows sqlite, postgresql and"
            " mongodb.",
            next=f"let ORGSTEAD_DATABASE_URL begin with {meant}:"
            if separator and meant
            else f"set ORGSTEAD_DATABASE_URL to a URL such as {DEFAULT_URL}",
        )
    return scheme


__all__ = ["DEFAULT_URL", "Description", "describe", "open_storage", "pending"]
