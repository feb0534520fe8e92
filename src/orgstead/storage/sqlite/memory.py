"""What the hot read found, kept for as long as it is what the read would find again.

Fresh on every request does not mean read on every request: one process writes, so that it knows of every change
(``changes``). A program that writes to the file all the same, beside the lock, is noticed by the next read, or by the
next transaction where this process has written since the last one.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import orjson

from orgstead.model import Access
from orgstead.recent import Recent
from orgstead.storage.sqlite.access import access
from orgstead.storage.sqlite.changes import Changes
from orgstead.storage.sqlite.connections import data_version

_MOST_KEPT: Final = 2048
"""Callers of one generation: some ten megabytes."""

_LARGEST_METADATA: Final = 512
"""Bytes of JSON: what organizations have made up themselves must not decide how much memory is taken."""

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
        self._version = -1
        """The ``data_version`` of the file when this was last looked at."""
        self._commits = -1
        """The number of the last commit of ours that the transaction has surely seen."""

    def look(self, connection: sqlite3.Connection, commits: int) -> None:
        """Once in each transaction, before ``access``: forget everything if none of our commits explains a new version.

        ``commits`` is the number of our commits when the transaction was begun: it has seen those, if not more.
        """
        version = data_version(connection)
        if version != self._version:
            self._version = version
            if self._changes.begun <= self._commits:  # no commit of ours that was not seen the last time
                self._kept = Recent(_MOST_KEPT)
        self._commits = commits

    def access(self, connection: sqlite3.Connection, key: Key) -> Access:
        """``access.access`` on this transaction."""
        kept = self._kept.get(key)
        if kept is not None and kept[1] >= self._changes.latest(*key):
            return kept[0]
        found = access(connection, *key)
        if _can_be_kept(found):
            self._kept.put(key, (found, self._commits))
        return found


def _can_be_kept(found: Access) -> bool:
    """Is all of it there, and small?"""
    organization = found.organization
    return (
        organization is not None
        and found.placement is not None
        and found.membership is not None
        and (found.session is not None or found.api_key is not None)
        and found.user_epoch is not None
        and (not organization.metadata or len(orjson.dumps(organization.metadata)) <= _LARGEST_METADATA)
    )
