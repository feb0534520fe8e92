"""Reading many records in bounded memory: records differ in size by a factor of a million.

Everything that reads a number of records that somebody else decides says ``max_weight=READ_BYTES`` and goes on until
it has all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

from orgstead.model import Record
from orgstead.storage import tables
from orgstead.storage.port import Transaction

READ_BYTES: Final = 4 * 1_048_576
"""Bytes of records after which no more are read at once."""

KEYS: Final = 1000
"""Keys that are asked for at once."""


def weight(records: Iterable[Record]) -> int:
    """Bytes of these records."""
    return sum(record.bytes for record in records)


def may_go_on(records: Sequence[Record], limit: int) -> bool:
    """Can there be more behind a page that was read with this limit and ``READ_BYTES``?"""
    return len(records) >= limit or weight(records) >= READ_BYTES


async def by_keys(tx: Transaction, keys: Iterable[tuple[Any, ...]]) -> AsyncIterator[list[Record]]:
    """The records of these keys that exist, in no promised order, a few megabytes at a time."""
    remaining = dict.fromkeys(keys)
    while remaining:
        asked = list(remaining)[:KEYS]
        found = await tx.find_many(tables.records, asked, max_weight=READ_BYTES)
        if found:
            yield found
        # Those that are not among them do not exist, unless they were left out.
        answered = [(r.org_id, r.collection, r.id) for r in found] if weight(found) >= READ_BYTES else asked
        for key in answered:
            del remaining[key]
