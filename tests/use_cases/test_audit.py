"""The audit chain: whatever is changed, removed, reordered or cut off is found, at the entry where it begins."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from orgstead import audit, kit
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.model import AuditEntry, AuditHead
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Transaction
from tests import apps

pytestmark = pytest.mark.anyio

ORG = "org_chain"
OTHER = "org_other"


async def chain(app: App, length: int, org_id: str = ORG) -> list[AuditEntry]:
    """A chain of so many entries. Its organization need not exist."""
    for number in range(length):
        actor = Actor(f"usr_{number}", request_id=f"req_{number}", address="203.0.113.9")
        facts = {"number": number, "nested": {"Grüße": [1, 2.5, None, True]}}
        append = audit.record if number else apps.begin_chain
        await app.storage.run(apps.SCOPE, append, org_id, actor, "thing.done", facts, at=app.clock())
    return await apps.rows(app, tables.audit_entries, org_id=org_id)


async def first_broken(app: App) -> int | None:
    return await app.storage.read(apps.SCOPE, audit.first_broken, ORG)


async def test_a_chain_verifies_and_is_each_organizations_own(app: App) -> None:
    assert await first_broken(app) is None
    entries = await chain(app, 3)
    await chain(app, 2, OTHER)
    assert [(entry.seq, entry.previous) for entry in entries] == [
        (1, audit.GENESIS),
        (2, entries[0].hash),
        (3, entries[1].hash),
    ]
    assert (entries[2].actor, entries[2].request_id, entries[2].address) == ("usr_2", "req_2", "203.0.113.9")
    assert await first_broken(app) is None
    assert await app.storage.read(OrgScope(ORG), audit.first_broken, ORG) is None


async def test_a_chain_longer_than_a_page_verifies(app: App) -> None:
    async def many(tx: Transaction) -> None:
        await apps.begin_chain(tx, ORG, audit.SYSTEM, "thing.begun", {}, at=at)
        for _ in range(1000):
            await audit.record(tx, ORG, audit.SYSTEM, "thing.done", at=at)

    at = app.clock()
    await app.storage.run(apps.SCOPE, many)
    assert await first_broken(app) is None
    await app.storage.run(apps.SCOPE, _remove, 1001)
    assert await first_broken(app) == 1001


CHANGED: list[dict[str, Any]] = [
    {"actor": "usr_someone"},
    {"action": "thing.undone"},
    {"details": {"number": 1, "nested": {"Grüße": [1, 2.5, None, False]}}},
    {"details": {}},
    {"request_id": None},
    {"address": "203.0.113.8"},
    {"id": "aud_other"},
    {"previous": "1" * 64},
    {"hash": "0" * 64},
]


@pytest.mark.parametrize("values", CHANGED, ids=lambda values: next(iter(values)))
@pytest.mark.parametrize("seq", [1, 2, 3])
async def test_an_entry_that_was_changed_is_found(app: App, values: dict[str, Any], seq: int) -> None:
    await chain(app, 3)
    await app.storage.run(apps.SCOPE, _change, seq, values)
    assert await first_broken(app) == seq


async def test_every_field_is_hashed() -> None:
    entry = AuditEntry(org_id=ORG, seq=1, id="aud_1", at=kit.now(), actor="a", action="b", previous="c", hash="d")
    for column in tables.audit_entries.columns:
        values: dict[str, Any] = {"at": entry.at.replace(year=1999), "details": {"x": 1}, "seq": 2}
        value = values.get(column, "changed")
        same = audit.entry_hash(replace(entry, **{column: value})) == audit.entry_hash(entry)
        assert same == (column == "hash"), column


async def test_the_hash_of_an_entry_never_changes() -> None:
    """Written once, verified for years: this value must not depend on the version of anything."""
    entry = AuditEntry(
        org_id="org_1",
        seq=2,
        id="aud_1",
        at=kit.now().replace(2026, 1, 2, 3, 4, 5, 678000),
        actor="usr_1",
        action="organization.renamed",
        details={"b": "ü", "a": [1, None, True, 2.5]},
        request_id=None,
        address="::1",
        previous=audit.GENESIS,
        hash="",
    )
    text = (
        '{"action":"organization.renamed","actor":"usr_1","address":"::1","at":"2026-01-02T03:04:05.678Z",'
        '"details":{"a":[1,null,true,2.5],"b":"ü"},"id":"aud_1","org_id":"org_1","previous":"' + "0" * 64 + '",'
        '"request_id":null,"seq":2}'
    )
    assert audit.entry_hash(entry) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(("seq", "found"), [(1, 1), (2, 2), (3, 3)])
async def test_an_entry_that_was_removed_is_found(app: App, seq: int, found: int) -> None:
    await chain(app, 3)
    await app.storage.run(apps.SCOPE, _remove, seq)
    assert await first_broken(app) == found


async def test_a_chain_that_was_written_anew_does_not_end_where_its_head_says(app: App) -> None:
    entries = await chain(app, 3)
    forged = replace(entries[2], actor="usr_forger", hash="")
    forged = replace(forged, hash=audit.entry_hash(forged))
    await app.storage.run(apps.SCOPE, _change, 3, {"actor": forged.actor, "hash": forged.hash})
    assert await first_broken(app) == 4


async def test_two_entries_that_changed_places_are_found(app: App) -> None:
    await chain(app, 3)
    await app.storage.run(apps.SCOPE, _swap)
    assert await first_broken(app) == 2


async def test_a_head_without_entries_and_entries_without_a_head(app: App) -> None:
    await app.storage.run(apps.SCOPE, _add_head)
    assert await first_broken(app) == 1
    await app.storage.run(apps.SCOPE, _remove_head)
    await chain(app, 2)
    await app.storage.run(apps.SCOPE, _remove_head)
    assert await first_broken(app) == 3


async def _change(tx: Transaction, seq: int, values: dict[str, Any]) -> None:
    await tx.replace(tables.audit_entries, replace(await tx.get(tables.audit_entries, ORG, seq), **values))


async def _remove(tx: Transaction, seq: int) -> None:
    await tx.remove(tables.audit_entries, ORG, seq)


async def _swap(tx: Transaction) -> None:
    second, third = await tx.get(tables.audit_entries, ORG, 2), await tx.get(tables.audit_entries, ORG, 3)
    await tx.replace(tables.audit_entries, replace(third, seq=2))
    await tx.replace(tables.audit_entries, replace(second, seq=3))


async def _add_head(tx: Transaction) -> None:
    await tx.add(tables.audit_heads, AuditHead(org_id=ORG, seq=1, hash="0" * 64))


async def _remove_head(tx: Transaction) -> None:
    await tx.remove(tables.audit_heads, ORG)
