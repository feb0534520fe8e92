"""``Storage`` on this engine."""

from __future__ import annotations

from orgstead.kit import Clock
from orgstead.storage.port import Storage


class PostgresStorage:
    """The promises of ``port.Storage``."""

    @classmethod
    async def open(cls, url: str, *, migration_url: str | None = None, writable: bool, clock: Clock) -> Storage:
        """See ``open_storage``."""
        raise NotImplementedError
