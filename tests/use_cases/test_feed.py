"""The change feed: every change once, in the order of the commits, without gaps; and what became too old."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from orgstead import feed, placements, purging, record_collections, records, renaming
from orgstead.app import App
from orgstead.errors import NotFound, OrgsteadError
from orgstead.record_batches import Change, Op
from orgstead.record_errors import FeedExpired
from orgstead.renaming import NewName
from tests import apps
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio


async def test_every_change_is_told_in_order(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.create("notes", {}, id="a")
    await shelf.replace("notes", "a", {"n": 1})
    await shelf.patch("notes", "a", {"n": 2})
    await shelf.define("notes", indexes=[["n"]])
    await shelf.run(records.batch, [Change(Op.CREATE, "notes", "b", {}), Change(Op.DELETE, "notes", "a")], shelf.terms)
    await shelf.delete("notes", "b")
    await shelf.run(record_collections.remove, "notes", shelf.terms)
    events = await shelf.events()
    assert [(event.seq, event.type, event.record_id, event.record_version) for event in events] == [
        (1, "collection.created", None, None),
        (2, "record.created", "a", 1),
        (3, "record.updated", "a", 2),
        (4, "record.updated", "a", 3),
        (5, "collection.updated", None, None),
        (6, "record.created", "b", 1),
        (7, "record.deleted", "a", None),
        (8, "record.deleted", "b", None),
        (9, "collection.deleted", None, None),
    ]
    assert {(event.collection, event.actor) for event in events} == {("notes", apps.TESTER.id)}
    assert feed.shown(events[1])["type"] == "record.created"


async def test_what_was_rolled_back_is_not_told(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.create("notes", {}, id="a")
    with pytest.raises(OrgsteadError):
        await shelf.create("notes", {}, id="a")
    with pytest.raises(NotFound):
        await shelf.delete("notes", "b")
    assert [event.seq for event in await shelf.events()] == [1, 2]


async def test_a_reader_among_writers_misses_nothing(app: App) -> None:
    """Who has seen a number has seen all before it, however the commits fall."""
    shelf = await Shelf.made(app)
    await shelf.define("notes")
    seen: list[int] = []

    async def follow() -> None:
        after = 0
        while after < 1 + 8 * 15:
            found = await shelf.read(feed.read, after=after, limit=7)
            seen.extend(event.seq for event in found.events)
            after = found.after
            await asyncio.sleep(0)

    async def write(writer: int) -> None:
        for number in range(15):
            await shelf.create("notes", {}, id=f"w{writer}-{number}")

    await asyncio.wait_for(asyncio.gather(follow(), *(write(writer) for writer in range(8))), 60)
    assert seen == list(range(1, 2 + 8 * 15))


async def test_numbers_go_on_under_another_name(app: App) -> None:
    shelf = await Shelf.made(app, "Acme", "enterprise")
    await shelf.create("notes", {})
    await renaming.rename(app, shelf.placement.org_id, NewName(name="Acme Labs"), apps.TESTER)
    await shelf.create("notes", {})
    assert [event.seq for event in await shelf.events()] == [1, 2, 3]


async def test_events_expire_and_a_reader_is_told(app: App, clock: apps.Clock) -> None:
    shelf, other = await Shelf.made(app), await Shelf.made(app, "Other", "enterprise")
    await shelf.fill("notes", [{}] * 5)
    await other.fill("notes", [{}])
    assert await feed.forget_expired(app) == 0
    clock.pass_(timedelta(days=8))
    await shelf.create("notes", {})
    assert await feed.forget_expired(app) == 6 + 2
    assert [event.seq for event in await shelf.events(after=6)] == [7]
    for after in (0, 5):
        with pytest.raises(FeedExpired):
            await shelf.events(after=after)
    with pytest.raises(FeedExpired):
        await other.events(after=0)
    assert await other.events(after=2) == []
    with pytest.raises(FeedExpired):  # a number of a database that was there before a restore
        await other.events(after=3)
    await other.create("notes", {})
    assert [event.seq for event in await other.events(after=2)] == [3]


async def test_a_new_reader_begins_at_the_end(app: App) -> None:
    shelf = await Shelf.made(app)
    assert await shelf.read(feed.end) == 0
    await shelf.create("notes", {})
    end = await shelf.read(feed.end)
    await shelf.create("notes", {}, id="x")
    assert [event.record_id for event in await shelf.events(after=end)] == ["x"]


async def test_a_purge_takes_everything(app: App) -> None:
    """The receipt counts what the new tables held; ``app`` ends with ``fsck``."""
    for plan in ("free", "enterprise"):
        shelf = await Shelf.made(app, f"Acme {plan}", plan)
        await shelf.define("notes", indexes=[["n"]])
        await shelf.fill("notes", [{"n": n} for n in range(3)])
        operation = await apps.purged(app, shelf.placement.org_id)
        removed = (await app.storage.read(apps.SCOPE, purging.receipt, shelf.placement.org_id)).removed
        assert operation.state == "succeeded"
        wanted = {"records": 3, "collections": 1, "index_entries": 3, "record_events": 4, "slots": 1}
        assert {table: removed[table] for table in wanted} == wanted
        space = placements.space_of(shelf.placement)
        with pytest.raises(NotFound):
            await app.storage.read(space, records.get, space, "notes", "r0")
