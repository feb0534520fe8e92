"""One writing process for each database file, enforced by a lock file beside it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orgstead.errors import DatabaseInUse


class WriterLock:
    """Holds ``<database>.lock`` for as long as this process writes; the file names the process to people.

    The kernel lets go of the lock when the process dies, however it dies, so the file itself is never stale and is
    never removed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @staticmethod
    def file(database: Path) -> Path:
        """Where the lock of the database is."""
        return database.with_name(database.name + ".lock")

    @classmethod
    def acquire(cls, database: Path) -> WriterLock:
        """Take the lock or raise ``DatabaseInUse`` with the process that has it. Raises ``OSError`` too.

        ``database`` is resolved: one file has one lock, by whatever link it is named.
        """
        descriptor = os.open(cls.file(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise DatabaseInUse(
                f"The database is open for writing in {who}; this engine allows one writing process.",
                next=f"stop {who}, or use the HTTP API of the service that is running",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let go. May be repeated."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
