"""Files that commands write: a new one, complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from orgstead.cli.errors import UsageError
from orgstead.errors import FileExists


@contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """A stream that becomes the file when the block ends well, and nothing when it does not.

    Only its owner can read the file. Raises ``FileExists`` where there is one already, unless ``replace``, and
    ``UsageError`` where it cannot be written.
    """
    if path.exists() and not replace:
        raise FileExists(next="name another one, or add --force")
    part = path.with_name(path.name + ".part")
    try:
        stream = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")
    except OSError as error:
        raise UsageError(f"The file cannot be written: {error.strerror}.") from None
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UsageError(f"The file cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
