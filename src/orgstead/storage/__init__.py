"""Opening a database: the only place that knows which engines there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orgstead.errors import ConfigurationError
from orgstead.kit import Clock, now
from orgstead.storage.port import Storage

DEFAULT_URL = "sqlite:///orgstead-data/main.db"
"""The embedded database in the folder that the service was started in: needs no server."""


@dataclass(frozen=True, slots=True)
class Description:
    """What may be said about a database without opening it.

    ``url`` carries no credentials and no parameters. ``folder`` is the local folder that the database lives in, or None
    where a server keeps it; ``file`` is the database's own file there. ``concurrent`` says whether several processes
    may write to it at once.
    """

    url: str
    folder: Path | None
    file: Path | None
    concurrent: bool


def describe(url: str) -> Description:
    """Describe the database at ``url`` without touching it. Raises ``ConfigurationError`` for a URL of no engine."""
    _require_known(url)
    from orgstead.storage.sqlite.location import parse

    location = parse(url)
    return Description(location.url, location.path.parent, location.path, concurrent=False)


async def open_storage(url: str, *, writable: bool = True, clock: Clock = now) -> Storage:
    """Open the database at ``url``; the engine is chosen by the URL's scheme and imported only then.

    ``writable=False`` opens it beside a process that writes to it; ``run`` then raises ``StorageReadOnly``. A missing
    database is created where ``writable``. The schema is not looked at: call ``check`` or ``migrate``. ``clock`` dates
    the migrations. Raises ``ConfigurationError`` for an unknown scheme, a place that cannot be used, or a database
    that another process has open for writing (``DatabaseInUse``).
    """
    _require_known(url)
    from orgstead.storage.sqlite.engine import SqliteStorage

    return SqliteStorage.open(url, writable=writable, clock=clock)


def _require_known(url: str) -> None:
    scheme, separator, _ = url.partition(":")
    if not separator or scheme != "sqlite":
        raise ConfigurationError(
            "The database URL begins with a scheme that this version does not know; it knows sqlite.",
            next=f"set ORGSTEAD_DATABASE_URL to a URL such as {DEFAULT_URL}",
        )


__all__ = ["DEFAULT_URL", "Description", "describe", "open_storage"]
