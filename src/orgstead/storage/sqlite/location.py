"""``sqlite:///relative/path.db`` and ``sqlite:////absolute/path.db``, with their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from orgstead.errors import ConfigurationError
from orgstead.storage.sqlite.lock import WriterLock

EXAMPLE = "sqlite:///orgstead-data/main.db"
BUSY_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is and how it is opened.

    ``busy_timeout_ms`` is how long a write waits for another process's lock. ``max_pages`` bounds the file in pages of
    4 KiB: the tests use it to meet a real full disk.
    """

    path: Path
    busy_timeout_ms: int = BUSY_TIMEOUT_MS
    max_pages: int | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def files(self) -> tuple[Path, ...]:
        """The database's own file, what the engine keeps beside it while it is open, and the lock of its writer."""
        beside = (self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-shm"))
        return (self.path, *beside, WriterLock.file(self.path))


def parse(url: str) -> Location:
    """The place that ``url`` names: ``?busy_timeout_ms=N`` and ``?max_pages=N`` are its only parameters.

    Raises ``ConfigurationError`` where it names none.
    """
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.fragment or path in ("", ":memory:") or path.endswith("/") or "\0" in path:
        raise ConfigurationError(
            "A sqlite URL has three slashes and the path of a file (four where the path is absolute).",
            next=f"set ORGSTEAD_DATABASE_URL to a URL such as {EXAMPLE}",
        )
    numbers: dict[str, int] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in ("busy_timeout_ms", "max_pages") or not (
            value.isascii() and value.isdigit() and len(value) < 10
        ):
            raise ConfigurationError(
                "The parameters of a sqlite URL are busy_timeout_ms and max_pages, each a whole number.",
                next="remove what follows the question mark in ORGSTEAD_DATABASE_URL",
            )
        numbers[name] = int(value)
    return Location(Path(path), **numbers)
