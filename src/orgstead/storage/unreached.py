"""Why a database server was not reached, in words for whoever starts the service."""

from __future__ import annotations

from typing import Final

from orgstead.errors import StorageError

REFUSED: Final = "the connection was refused, so nothing listens there"
UNKNOWN_HOST: Final = "the name of its host is unknown"
SILENT: Final = "nothing came back in time"
CUT: Final = "the connection was cut; what listens there may be another kind of server"
FOREIGN: Final = "what listens there is another kind of server"


def unreached(cause: str) -> StorageError:
    """The error that says so."""
    return StorageError(f"The database did not answer: {cause}. Nothing was changed.", retry_after=1.0)
