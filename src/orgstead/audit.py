"""The audit log: one hash-chained entry per mutation, written in the transaction of the mutation.

Each organization has a chain of its own. An entry's hash covers all its other fields and the hash before it, and
``audit_heads`` holds the end of the chain, so that an entry changed, removed, reordered or cut off is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import orjson

from orgstead import kit
from orgstead.model import AuditEntry, AuditHead, Json
from orgstead.storage.port import Transaction
from orgstead.storage.tables import audit_entries, audit_heads

GENESIS = "0" * 64
"""The ``previous`` hash of a chain's first entry."""


class Actor(msgspec.Struct, frozen=True):
    """Who does something: a user's id, or ``operator`` or ``system``; with the request it came by, if any."""

    id: str
    request_id: str | None = None
    address: str | None = None


OPERATOR = Actor("operator")
SYSTEM = Actor("system")


def entry_hash(entry: AuditEntry) -> str:
    """SHA-256 (hex) over the canonical JSON of every field but the hash itself."""
    return _hash({column: getattr(entry, column) for column in audit_entries.columns if column != "hash"})


def _hash(fields: dict[str, Any]) -> str:
    hashed = {**fields, "at": kit.rfc3339(fields["at"])}
    return hashlib.sha256(orjson.dumps(hashed, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def record(
    tx: Transaction,
    org_id: str,
    actor: Actor,
    action: str,
    details: Mapping[str, Json] | None = None,
    *,
    at: datetime,
) -> None:
    """Append an entry to the organization's chain. ``action`` is like ``organization.renamed``; no secret in it.

    The end of the chain is locked: of two entries at once, the second is appended to the first. Raises ``NotFound``
    when the organization is gone.
    """
    head = await tx.lock(audit_heads, org_id)
    entry, end = _linked(head, org_id, actor, action, details or {}, at)
    await tx.add(audit_entries, entry)
    await tx.replace(audit_heads, end)


def beginning(
    org_id: str, actor: Actor, action: str, details: Mapping[str, Json], *, at: datetime
) -> tuple[AuditEntry, AuditHead]:
    """The first entry of an organization's chain and the chain's end, to be added with the organization."""
    return _linked(None, org_id, actor, action, details, at)


def _linked(
    head: AuditHead | None,
    org_id: str,
    actor: Actor,
    action: str,
    details: Mapping[str, Json],
    at: datetime,
) -> tuple[AuditEntry, AuditHead]:
    """The entry that follows ``head``, and the head that follows it."""
    fields: dict[str, Any] = {
        "org_id": org_id,
        "seq": head.seq + 1 if head else 1,
        "id": kit.new_id("aud"),
        "at": at,
        "actor": actor.id,
        "action": action,
        "details": dict(details),
        "request_id": actor.request_id,
        "address": actor.address,
        "previous": head.hash if head else GENESIS,
    }
    entry = AuditEntry(**fields, hash=_hash(fields))
    end = head or AuditHead(org_id=org_id, seq=0, hash=GENESIS)
    return entry, replace(end, seq=entry.seq, hash=entry.hash)


@dataclass(slots=True)
class Chain:
    """A chain while it is read: ``expected`` is the number of the next entry, or of the first that is not right."""

    expected: int = 1
    previous: str = GENESIS
    broken: bool = False

    @property
    def is_empty(self) -> bool:
        return self.expected == 1

    def follow(self, entry: AuditEntry) -> None:
        """Take the next entry in the order of ``seq``; after one that is not as it was written, nothing counts."""
        if self.broken:
            return
        if (entry.seq, entry.previous, entry.hash) == (self.expected, self.previous, entry_hash(entry)):
            self.expected, self.previous = self.expected + 1, entry.hash
        else:
            self.broken = True

    def ends_at(self, head: AuditHead | None) -> bool:
        """Is everything as it was written, to the end that the head knows?"""
        if self.broken or head is None:
            return not self.broken and self.is_empty
        return (head.seq, head.hash) == (self.expected - 1, self.previous)


async def first_broken(tx: Transaction, org_id: str) -> int | None:
    """The number of the first entry of the chain that is not as it was written, or None if all are.

    A chain cut off at its end is reported at the first missing number.
    """
    chain = Chain()
    where = {"org_id": org_id}
    while entries := await tx.page(audit_entries, where, order=("seq",), after=(chain.expected - 1, org_id), limit=500):
        for entry in entries:
            chain.follow(entry)
        if chain.broken:
            break
    head = await tx.find(audit_heads, org_id=org_id)
    return None if chain.ends_at(head) else chain.expected
