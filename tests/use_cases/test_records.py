"""Records: one by one and in batches, with versions, limits and schemas, whole or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given

from orgstead import placements, records, renaming
from orgstead.app import App
from orgstead.errors import InvalidInput, InvalidValue, NotFound, OrgsteadError, PlacementMoved, PreconditionFailed
from orgstead.model import IndexEntry
from orgstead.record_batches import Change, Op, merged
from orgstead.record_errors import (
    InvalidDefinition,
    InvalidRecord,
    InvalidRecordId,
    RecordExists,
    RecordTooLarge,
    UniqueTaken,
)
from orgstead.renaming import NewName
from orgstead.storage import tables
from tests import apps
from tests.use_cases.record_values import documents
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio

AWKWARD = {
    "$set": {"a.b": 1, "$where": "x"},
    "_id": 1,
    "org_id": "org_other",
    "__proto__": {"a": 1},
    "": "",
    "ints": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)],
    "floats": [0.0, -0.5, 1.0, 5e-324, 1.7976931348623157e308],
    "text": "\x01\x7f ä İ \ufdd0 \uffff 😀 \U0010ffff",
    "nothing": [None, [], {}, "", False, [[]]],
}


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_record_through_its_life(app: App, plan: str) -> None:
    shelf = await Shelf.made(app, plan=plan)
    created = await shelf.create("notes", AWKWARD)
    assert created.id.startswith("rec_")
    assert (created.data, created.version) == (AWKWARD, 1)
    assert await shelf.get("notes", created.id) == created
    replaced = await shelf.replace("notes", created.id, {"a": {"b": 1, "c": 2}})
    assert (replaced.data, replaced.version) == ({"a": {"b": 1, "c": 2}}, 2)
    patched = await shelf.patch("notes", created.id, {"a": {"b": None, "d": 3}, "e": [None]})
    assert (patched.data, patched.version) == ({"a": {"c": 2, "d": 3}, "e": [None]}, 3)
    assert await shelf.get("notes", created.id) == patched
    assert patched.created_at == created.created_at
    await shelf.delete("notes", created.id)
    with pytest.raises(NotFound):
        await shelf.get("notes", created.id)
    assert await shelf.read(records.count, "notes") == 0


async def test_values_come_back_as_they_went_in(app: App) -> None:
    """Types, too: 1 is not 1.0, and a negative zero stays one."""
    shelf = await Shelf.made(app)
    data = {"one": 1, "float": 1.0, "zero": -0.0, "true": True}
    created = await shelf.create("notes", data)
    found = (await shelf.get("notes", created.id)).data
    assert repr(found) == repr(data)


@pytest.mark.parametrize("id", ["a", "A", "a.b~c_d-e", "0", "~", "...", "x" * 128])
async def test_ids_that_are_given(app: App, id: str) -> None:
    shelf = await Shelf.made(app)
    assert (await shelf.create("notes", {}, id=id)).id == id
    assert (await shelf.get("notes", id)).id == id
    with pytest.raises(RecordExists):
        await shelf.create("notes", {"other": 1}, id=id)
    assert (await shelf.get("notes", id)).data == {}


@pytest.mark.parametrize("id", ["", ".", "..", "../x", "a/b", "a b", "ä", "a\n", "\0", "%00", "x" * 129, "x" * 10_240])
async def test_ids_that_are_refused(app: App, id: str) -> None:
    shelf = await Shelf.made(app)
    with pytest.raises(InvalidRecordId):
        await shelf.create("notes", {}, id=id)
    with pytest.raises(NotFound):
        await shelf.get("notes", id)
    assert await shelf.read(records.get_many, "notes", [id]) == []
    assert (await shelf.usage()).seq == 0


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a.b", "_a", "a" * 64, "ä", "a\n", "$a"])
async def test_collections_that_are_refused(app: App, name: str) -> None:
    shelf = await Shelf.made(app)
    with pytest.raises(InvalidDefinition):
        await shelf.create(name, {})
    with pytest.raises(InvalidDefinition):
        await shelf.define(name)
    for read in (shelf.page(name), shelf.get(name, "a"), shelf.read(records.count, name)):
        with pytest.raises(NotFound):
            await read


@pytest.mark.parametrize(
    "data",
    [[], "x", None, {"a": 2**63}, {"a": -(2**63) - 1}, {"a": float("nan")}, {"a": "\0"}, {"a\0": 1}, {"a": "\ud800"}],
)
async def test_data_that_cannot_be_kept_changes_nothing(app: App, data: Any) -> None:
    shelf = await Shelf.made(app)
    with pytest.raises((InvalidRecord, InvalidValue)):
        await shelf.create("notes", data)
    assert (await shelf.usage()).seq == 0
    with pytest.raises(NotFound):
        await shelf.page("notes")


async def test_a_record_has_a_greatest_size(app: App) -> None:
    shelf = await Shelf.made(app)
    shelf.max_bytes = 20
    await shelf.create("notes", {"t": "x" * 12}, id="a")
    with pytest.raises(RecordTooLarge, match="20 bytes"):
        await shelf.create("notes", {"t": "x" * 13})
    with pytest.raises(RecordTooLarge):
        await shelf.patch("notes", "a", {"u": 1})
    assert (await shelf.usage()).bytes == 20


# --- versions ---------------------------------------------------------------------------------------------------------


async def test_a_version_that_is_not_the_stored_one_changes_nothing(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.create("notes", {"n": 1}, id="a")
    await shelf.replace("notes", "a", {"n": 2}, if_version=1)
    for version in (1, 3, 0):
        with pytest.raises(PreconditionFailed):
            await shelf.replace("notes", "a", {"n": 9}, if_version=version)
        with pytest.raises(PreconditionFailed):
            await shelf.patch("notes", "a", {"n": 9}, if_version=version)
        with pytest.raises(PreconditionFailed):
            await shelf.delete("notes", "a", if_version=version)
    assert (await shelf.get("notes", "a")).data == {"n": 2}
    await shelf.delete("notes", "a", if_version=2)


async def test_what_is_missing_cannot_be_changed(app: App) -> None:
    shelf = await Shelf.made(app)
    for change in (shelf.replace("notes", "a", {}), shelf.patch("notes", "a", {}), shelf.delete("notes", "a")):
        with pytest.raises(NotFound):
            await change
    assert (await shelf.usage()).seq == 0


async def test_fifty_patches_at_once_lose_none(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.create("notes", {}, id="a")
    await asyncio.gather(*(shelf.patch("notes", "a", {f"k{n}": n}) for n in range(50)))
    found = await shelf.get("notes", "a")
    assert (found.version, found.data) == (51, {f"k{n}": n for n in range(50)})


async def test_of_fifty_who_saw_one_version_one_wins(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.create("notes", {}, id="a")
    tries = (shelf.replace("notes", "a", {"n": n}, if_version=1) for n in range(50))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 49


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_a_batch_makes_all_its_changes(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("notes", [{"n": n} for n in range(3)])
    changes = [
        Change(Op.CREATE, "notes", None, {"new": 1}),
        Change(Op.REPLACE, "notes", "r0", {"n": 10}, 1),
        Change(Op.PATCH, "notes", "r1", {"m": 11}),
        Change(Op.DELETE, "notes", "r2"),
        Change(Op.CREATE, "tasks", "t", {"in": "another collection"}),
    ]
    made, replaced, patched, deleted, other = await shelf.run(records.batch, changes, shelf.terms)
    assert deleted is None
    assert (replaced.data, replaced.version, patched.data) == ({"n": 10}, 2, {"n": 1, "m": 11})
    assert await shelf.get("notes", made.id) == made
    assert await shelf.get("tasks", "t") == other
    assert await shelf.ask("notes") == ["r0", "r1", made.id]
    found = await shelf.read(records.get_many, "notes", ["r1", "nothing", "r0", "r2", "r1"])
    assert [record.id for record in found] == ["r1", "r0"]


@pytest.mark.parametrize(
    ("change", "error", "pointer"),
    [
        (Change(Op.CREATE, "notes", "r0", {}), RecordExists, "/operations/1"),
        (Change(Op.REPLACE, "notes", "nothing", {}), NotFound, "/operations/1"),
        (Change(Op.PATCH, "notes", "r0", {}, 7), PreconditionFailed, "/operations/1"),
        (Change(Op.DELETE, "nothing", "r0"), NotFound, "/operations/1"),
        (Change(Op.CREATE, "notes", "a b", {}), InvalidRecordId, "/operations/1/id"),
        (Change(Op.CREATE, "No Name", "new", {}), InvalidDefinition, "/operations/1/collection"),
        (Change(Op.CREATE, "notes", "new", {"n": "text"}), InvalidRecord, "/operations/1/data/n"),
        (Change(Op.CREATE, "notes", "new", {"sku": 0}), UniqueTaken, "/operations/1/data/sku"),
        (Change(Op.CREATE, "notes", "new", {"sku": 99}), UniqueTaken, "/operations/1/data/sku"),
        (Change(Op.DELETE, "notes", "first"), InvalidInput, "/operations/1/id"),
    ],
)
async def test_a_batch_makes_none_of_its_changes(app: App, change: Change, error: Any, pointer: str) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("notes", schema={"properties": {"n": {"type": "integer"}}}, unique=[["sku"]])
    await shelf.fill("notes", [{"n": n, "sku": n} for n in range(3)])
    before = await shelf.usage(), await shelf.entries("notes")
    changes = [Change(Op.CREATE, "notes", "first", {"sku": 99}), change, Change(Op.DELETE, "notes", "r2")]
    with pytest.raises(error) as raised:
        await shelf.run(records.batch, changes, shelf.terms)
    assert [problem.pointer for problem in raised.value.problems] == [pointer]
    assert (await shelf.usage(), await shelf.entries("notes")) == before
    assert await shelf.ask("notes") == ["r0", "r1", "r2"]


@pytest.mark.parametrize("size", [0, 501])
async def test_a_batch_has_a_size(app: App, size: int) -> None:
    shelf = await Shelf.made(app)
    with pytest.raises(InvalidInput):
        await shelf.run(records.batch, [Change(Op.CREATE, "notes", None, {})] * size, shelf.terms)


async def test_values_can_change_places_in_a_batch(app: App) -> None:
    """A unique value that one change gives up is free for another."""
    shelf = await Shelf.made(app)
    await shelf.define("notes", unique=[["sku"]])
    await shelf.fill("notes", [{"sku": n} for n in range(3)])
    changes = [
        Change(Op.REPLACE, "notes", "r0", {"sku": 1}),
        Change(Op.REPLACE, "notes", "r1", {"sku": 0}),
        Change(Op.CREATE, "notes", "new", {"sku": 2}),
        Change(Op.DELETE, "notes", "r2"),
    ]
    await shelf.run(records.batch, changes, shelf.terms)
    assert await shelf.ask("notes", None, ["sku"]) == ["r1", "r0", "new"]


# --- unique fields ----------------------------------------------------------------------------------------------------


async def test_of_fifty_records_with_one_value_one_is_made(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("notes", unique=[["email"]])
    results = await asyncio.gather(
        *(shelf.create("notes", {"email": "a@example.com", "n": n}) for n in range(50)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, UniqueTaken) for result in results) == 49
    assert (await shelf.usage()).records == 1


async def test_null_and_missing_are_not_unique(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("notes", unique=[["a", "b"]])
    for data in ({}, {}, {"a": 1}, {"a": 1}, {"a": None, "b": 1}, {"a": None, "b": 1}, {"a": 1, "b": 1}):
        await shelf.create("notes", data)
    with pytest.raises(UniqueTaken):
        await shelf.create("notes", {"a": 1, "b": 1.0})


async def test_unique_is_within_the_organization_and_the_collection(app: App) -> None:
    ours, theirs = await Shelf.made(app, "Ours"), await Shelf.made(app, "Theirs")
    for shelf in (ours, theirs):
        for name in ("notes", "tasks"):
            await shelf.define(name, unique=[["sku"]])
            await shelf.create(name, {"sku": "x"})


async def test_the_engine_itself_refuses_a_second_claim(app: App) -> None:
    """Whatever is looked at before: the constraint is a key."""
    shelf = await Shelf.made(app)
    await shelf.define("notes", unique=[["sku"]])
    await shelf.create("notes", {"sku": 1}, id="a")
    ((number, key, _),) = await shelf.entries("notes")

    async def claim(tx: Any, space: Any) -> None:
        await tx.add(
            tables.index_entries,
            IndexEntry(org_id=space.org_id, collection="notes", number=number, key=key, id="b"),
        )

    with pytest.raises(OrgsteadError):
        await shelf.run(claim)


# --- the fence --------------------------------------------------------------------------------------------------------


async def test_who_has_a_stale_placement_writes_where_the_space_is_now(app: App) -> None:
    shelf = await Shelf.made(app, "Acme", "enterprise")
    await shelf.create("notes", {}, id="a")
    await renaming.rename(app, shelf.placement.org_id, NewName(name="Acme Labs"), apps.TESTER)
    await shelf.create("notes", {}, id="b")
    assert await shelf.ask("notes") == ["a", "b"]
    assert (await shelf.get("notes", "a")).version == 1
    assert [event.seq for event in await shelf.events()] == [1, 2, 3]


async def test_a_closed_space_takes_no_records(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.create("notes", {}, id="a")
    space = placements.space_of(shelf.placement)
    await app.storage.close_space(space)
    for change in (
        shelf.create("notes", {}),
        shelf.patch("notes", "a", {}),
        shelf.delete("notes", "a"),
        shelf.define("x"),
    ):
        with pytest.raises(PlacementMoved):
            await change
    assert await shelf.ask("notes") == ["a"]
    await app.storage.open_space(space)


# --- merge patch ------------------------------------------------------------------------------------------------------

RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    before = repr(target)
    assert merged(target, patch) == result
    assert repr(target) == before


@given(documents(), documents())
def test_a_patch_applied_twice_is_a_patch_applied_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merged(target, patch)
    assert merged(once, patch) == once
