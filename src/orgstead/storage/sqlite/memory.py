"""What the hot read found, kept for as long as it is what the read would find again.

Fresh on every request does not mean read on every request: one process writes, so that it knows of every change
(``changes``). A program that writes to the file all the same, beside the lock, is noticed when it commits.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from orgstead.model import Access
from orgstead.recent import Recent
from orgstead.storage.sqlite.access import access
from orgstead.storage.sqlite.changes import Changes

_MOST_KEPT: Final = 4096
"""Callers of one generation: some ten megabytes."""

Key = tuple[str, str, str]
"""Organization, user and credential."""


class Memory:
    """The callers that one thread's reading connection has looked up, with the commit that each was found at.

    Only what is there is kept. Rows that come into being can then change nothing, and a caller who is refused costs a
    read each time and no memory.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._kept: Recent[Key, tuple[Access, int]] = Recent(_MOST_KEPT)
        self._version = self._commits = -1

    def look(self, connection: sqlite3.Connection, commits: int) -> None:
        """Once in each transaction, before ``access``: forget everything if another process has committed.

        ``commits`` is the number of this process's commits that the transaction has surely seen.
        """
        ((version,),) = connection.execute("PRAGMA data_version").fetchall()
        if version != self._version:
            self._version = version
            if self._changes.begun <= self._commits:  # no commit of ours that was not seen the last time
                self._kept = Recent(_MOST_KEPT)
        self._commits = commits

    def access(self, connection: sqlite3.Connection, key: Key) -> Access:
        """``access.access`` on this transaction."""
        kept = self._kept.get(key)
        if kept is not None and kept[1] >= self._changes.latest(key[0]):
            return kept[0]
        found = access(connection, *key)
        if _is_whole(found):
            self._kept.put(key, (found, self._commits))
        return found


def _is_whole(found: Access) -> bool:
    return (
        found.organization is not None
        and found.placement is not None
        and found.membership is not None
        and (found.session is not None or found.api_key is not None)
        and found.user_epoch is not None
    )
