"""Whether the file that is open is still the one at its path.

A file that is removed or replaced stays usable for whoever has it open: every write would succeed, be acknowledged, and
be gone with the process. The engine does not look, so that each commit does.
"""

from __future__ import annotations

import os
import sqlite3

from orgstead.storage.sqlite import failures


class Presence:
    """Remembers which file a connection has open. ``check`` costs one ``stat``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        # Empty for a database that has no file.
        self._path: str = connection.execute("PRAGMA database_list").fetchone()[2]
        self._opened = self._identity()

    def is_kept(self) -> bool:
        """Is the file where it was?"""
        return self._identity() == self._opened

    def check(self) -> None:
        """Raise ``StorageError`` unless it is."""
        if not self.is_kept():
            raise failures.gone()

    def is_writable(self) -> bool:
        """Is it on a file system that takes writes? One with a broken disk becomes read-only while files are open."""
        return not (self._path and os.statvfs(self._path).f_flag & os.ST_RDONLY)

    def log_bytes(self) -> int:
        """The size of the log beside the file; 0 where there is none."""
        try:
            return os.stat(f"{self._path}-wal").st_size if self._path else 0
        except OSError:
            return 0

    def _identity(self) -> tuple[int, int] | None:
        if not self._path:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
