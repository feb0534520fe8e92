"""Collections: what a definition may be, and that a change of it is whole or not at all, whoever writes meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from orgstead import operations, queries, record_collections, record_definitions, record_indexing, renaming
from orgstead.app import App
from orgstead.errors import FailpointReached, NotFound, OperationInProgress, OrgsteadError
from orgstead.failpoints import arm
from orgstead.model import OperationState
from orgstead.record_errors import (
    CollectionChanging,
    CollectionNotEmpty,
    DefinitionViolated,
    InvalidDefinition,
    InvalidRecord,
    UniqueTaken,
)
from orgstead.renaming import NewName
from orgstead.storage import tables
from tests import apps
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation is waited for to its end, however slow the machine is."""
    monkeypatch.setattr(operations, "WAIT_SECONDS", 100)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few records are many: definitions are changed by operations, in several batches."""
    monkeypatch.setattr(record_indexing, "SMALL", 2)
    monkeypatch.setattr(record_indexing, "BATCH", 3)


@pytest.fixture(params=["at once", "by an operation"])
def either(request: pytest.FixtureRequest) -> None:
    if request.param == "by an operation":
        request.getfixturevalue("few")


# --- what a definition may be -----------------------------------------------------------------------------------------


async def test_a_collection_is_made_and_shown(app: App) -> None:
    shelf = await Shelf.made(app)
    defined = await shelf.define(
        "items", schema={"type": "object"}, indexes=[["city"], ["address.city", "-price"], ["tags[]"]], unique=[["sku"]]
    )
    assert defined.created
    assert record_collections.shown(defined.collection) | {"created_at": 0, "updated_at": 0} == {
        "object": "collection",
        "name": "items",
        "schema": {"type": "object"},
        "indexes": [["city"], ["address.city", "-price"], ["tags[]"]],
        "unique": [["sku"]],
        "state": "ready",
        "created_at": 0,
        "updated_at": 0,
    }
    again = await shelf.define(
        "items", schema={"type": "object"}, indexes=[["tags[]"], ["city"], ["address.city", "-price"]], unique=[["sku"]]
    )
    assert (again.created, again.collection) == (False, defined.collection)
    assert [event.type for event in await shelf.events()] == ["collection.created"]


@pytest.mark.parametrize(
    ("indexes", "unique", "pointer"),
    [
        ("city", (), "/indexes"),
        ([[]], (), "/indexes/0"),
        (["city"], (), "/indexes/0"),
        ([["a", "b", "c", "d", "e"]], (), "/indexes/0"),
        ([["a"], [1]], (), "/indexes/1/0"),
        ([["a", "-a"]], (), "/indexes/0"),
        ([["a", "id"]], (), "/indexes/0/1"),
        ([["a..b"]], (), "/indexes/0/0"),
        ([["a[]", "b[]"]], (), "/indexes/0"),
        ((), [["a[]"]], "/unique/0"),
        ((), {"a": 1}, "/unique"),
        ([[f"f{n}"] for n in range(17)], (), "/indexes"),
    ],
)
def test_indexes_that_are_none(indexes: Any, unique: Any, pointer: str) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        record_definitions.parse(None, indexes, unique)
    assert [problem.pointer for problem in raised.value.problems] == [pointer]


async def test_collections_are_listed_by_name(app: App) -> None:
    shelf = await Shelf.made(app)
    for name in ("c", "a", "b"):
        await shelf.define(name)
    page = await shelf.read(record_collections.page, limit=2)
    rest = await shelf.read(record_collections.page, after=page[-1].name, limit=2)
    assert [collection.name for collection in page + rest] == ["a", "b", "c"]


async def test_an_empty_collection_is_removed(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("items", indexes=[["a"]])
    await shelf.create("items", {"a": 1}, id="r")
    with pytest.raises(CollectionNotEmpty):
        await shelf.run(record_collections.remove, "items", shelf.terms)
    await shelf.delete("items", "r")
    await shelf.run(record_collections.remove, "items", shelf.terms)
    for name in ("items", "nothing", "$"):
        with pytest.raises(NotFound):
            await shelf.run(record_collections.remove, name, shelf.terms)
    assert (await shelf.usage()).collections == 0


# --- schemas ----------------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0}, "a": {"properties": {"b": {"pattern": "^x+$"}}}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("data", "pointers"),
    [
        ({"n": 1, "a": {"b": "xx"}}, []),
        ({}, ["/data/n"]),
        ({"n": -1}, ["/data/n"]),
        ({"n": 1, "a": {"b": "y"}}, ["/data/a/b"]),
        ({"n": 1, "p": 1, "q/r": 1}, ["/data/p", "/data/q~1r"]),
        ({"n": "secret", "a": 1}, ["/data/n"]),
    ],
)
async def test_a_record_satisfies_its_schema(app: App, data: Any, pointers: list[str]) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("items", schema=SCHEMA)
    await shelf.create("items", {"n": 0}, id="there")
    for new in (True, False):
        write = shelf.create("items", data) if new else shelf.replace("items", "there", data)
        if not pointers:
            assert (await write).data == data
            continue
        with pytest.raises(InvalidRecord) as raised:
            await write
        assert sorted(problem.pointer for problem in raised.value.problems) == pointers
        assert "secret" not in str([problem.detail for problem in raised.value.problems])
    with pytest.raises(InvalidRecord):
        await shelf.patch("items", "there", {"n": None})


# --- changing a definition --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("either")
async def test_an_index_over_what_is_there(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n % 4, "tags": [n, "x"]} for n in range(10)])
    await shelf.define("items", indexes=[["n"], ["tags[]", "-n"]])
    first = await shelf.entries("items")
    assert len(first) == 10 + 20
    rules = queries.Rules(max_examined=0, max_aggregated=0)
    for where, order, wanted in (
        ({"field": "n", "eq": 1}, None, "159"),
        ({"field": "tags", "contains": "x"}, ["-n"], "7362951840"),
    ):
        found = await shelf.walk("items", queries.parse(where, order), rules=rules)
        assert sorted("".join(record.id[1] for record in found)) == sorted(wanted)
    await shelf.define("items", indexes=[["n"]])
    assert await shelf.entries("items") == {entry for entry in first if entry[0] == 1}
    defined = await shelf.define("items", indexes=[["-n"]])
    assert {number for number, _, _ in await shelf.entries("items")} == {3}
    assert list(defined.collection.indexes) == ["3"]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"schema": {"properties": {"n": {"maximum": 5}}}}, ["/records/r6/data/n", "/records/r7/data/n"]),
        ({"unique": [["m"]]}, ["/records/r3/data/m"]),
        ({"indexes": [["long"]]}, ["/records/r5/data/long"]),
        ({"unique": [["list"]]}, ["/records/r2/data/list"]),
    ],
)
async def test_what_violates_a_new_definition_is_reported_and_nothing_changes(
    app: App, change: Any, pointers: list[str]
) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("items", schema={"type": "object"}, indexes=[["n"]])
    documents: list[Any] = [{"n": n, "m": n} for n in range(8)]
    documents[3]["m"] = 0
    documents[5]["long"] = "x" * 501
    documents[2]["list"] = []
    await shelf.fill("items", documents)
    before = await shelf.entries("items"), (await shelf.usage()).seq
    shown = record_collections.shown(await shelf.read(record_collections.get, "items"))
    assert (shown["schema"], shown["indexes"], shown["unique"]) == ({"type": "object"}, [["n"]], [])
    assert shown["state"] == "ready"
    with pytest.raises(DefinitionViolated) as raised:
        await shelf.define("items", **change)
    assert [problem.pointer for problem in raised.value.problems] == pointers
    assert record_collections.shown(await shelf.read(record_collections.get, "items")) == shown
    assert (await shelf.entries("items"), (await shelf.usage()).seq) == before
    await shelf.create("items", {"n": 9, "m": 0, "long": "x" * 501})


@pytest.mark.usefixtures("few")
async def test_a_violation_in_a_later_batch_takes_everything_back(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"sku": n} for n in range(8)] + [{"sku": 0}])
    with pytest.raises(DefinitionViolated) as raised:
        await shelf.define("items", unique=[["sku"]], indexes=[["a"]])
    assert [problem.pointer for problem in raised.value.problems] == ["/records/r8/data/sku"]
    assert await shelf.entries("items") == set()
    assert (await shelf.read(record_collections.get, "items")).indexes == {}


@pytest.mark.usefixtures("few")
async def test_writers_during_a_build_lose_nothing(app: App) -> None:
    """Writes of every kind between the batches, of records before and behind where the build is."""
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n, "sku": n} for n in range(20)])
    step = 0

    async def meanwhile() -> None:
        nonlocal step
        step += 1
        await shelf.create("items", {"n": step, "sku": f"new{step}"}, id=f"a{step}")
        await shelf.create("items", {"n": step, "sku": f"newer{step}"}, id=f"z{step}")
        number = step % 8
        await shelf.patch("items", f"r{number}", {"n": -step})
        await shelf.patch("items", f"r{number}", {"sku": f"back{step}"})
        await shelf.patch("items", f"r{number}", {"sku": number})
        if step < 10:
            await shelf.delete("items", f"r{19 - step}")

    with ExitStack() as armed:
        for point in ("define.after_announce", "define.mid_build", "define.after_build"):
            armed.enter_context(arm(point, meanwhile))
        await shelf.define("items", indexes=[["-n"]], unique=[["sku"]])
    assert step > 5
    kept = await shelf.walk("items", queries.parse())
    found = await shelf.walk("items", queries.parse(None, ["n"]))
    assert [record.data["n"] for record in found] == sorted(record.data["n"] for record in kept)
    with pytest.raises(UniqueTaken):
        await shelf.create("items", {"sku": "new1"})


@pytest.mark.usefixtures("few")
async def test_during_a_build_writes_satisfy_both_definitions(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("items", schema={"properties": {"n": {"type": "integer"}}})
    await shelf.fill("items", [{"n": n} for n in range(8)])
    refused: list[OrgsteadError] = []

    async def meanwhile() -> None:
        for data in ({"n": 99}, {"n": "x"}):
            with pytest.raises(InvalidRecord) as raised:
                await shelf.create("items", data)
            refused.append(raised.value)
        for change in (shelf.define("items"), shelf.run(record_collections.remove, "items", shelf.terms)):
            with pytest.raises(CollectionChanging):
                await change
        with pytest.raises(OperationInProgress):
            await renaming.rename(app, shelf.placement.org_id, NewName(name="Other"), apps.TESTER)

    with arm("define.after_announce", meanwhile):
        await shelf.define("items", schema={"properties": {"n": {"maximum": 9}}})
    assert len(refused) == 2
    await shelf.create("items", {"n": "x"})


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "point",
    ["define.after_announce", "define.mid_build", "define.after_build", "define.after_settle", "define.mid_sweep"],
)
@pytest.mark.parametrize("violated", [False, True])
async def test_what_is_left_half_done_is_completed(app: App, point: str, violated: bool) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("items", indexes=[["old"]])
    await shelf.fill("items", [{"n": n, "old": n} for n in range(10)] + [{"n": 3 if violated else 30}])

    async def die() -> None:
        raise FailpointReached

    with arm(point, die), pytest.raises(FailpointReached):
        await shelf.define("items", unique=[["n"]])
    await shelf.create("items", {"n": "meanwhile", "old": 1}, id="x")
    await apps.recover(app)
    (operation,) = await apps.rows(app, tables.operations, kind=record_indexing.DEFINE)
    assert operation.state is OperationState.SUCCEEDED
    shown = record_collections.shown(await shelf.read(record_collections.get, "items"))
    assert (shown["indexes"], shown["unique"]) == (([["old"]], []) if violated else ([], [["n"]]))
    assert len(await shelf.entries("items")) == 12
    assert bool(operation.result.get("violations")) is violated


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("anew", [False, True], ids=["changed", "made anew"])
async def test_what_was_permitted_is_not_done_to_what_it_was_not_permitted_for(
    app: App, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """Between the transaction that permits a change and the one that begins its operation, others may be faster."""
    shelf = await Shelf.made(app)
    await shelf.define("items")
    await shelf.fill("items", [{"n": n} for n in range(8)])
    sound = record_indexing.begin

    async def slow(*args: Any) -> Any:
        monkeypatch.setattr(record_indexing, "begin", sound)
        if anew:
            for number in range(8):
                await shelf.delete("items", f"r{number}")
            await shelf.run(record_collections.remove, "items", shelf.terms)
            await shelf.fill("items", [{"n": n} for n in range(8)])
        else:
            await shelf.define("items", indexes=[["faster"]])
        return await sound(*args)

    monkeypatch.setattr(record_indexing, "begin", slow)
    with pytest.raises(CollectionChanging):
        await shelf.define("items", indexes=[["n"]])
    shown = record_collections.shown(await shelf.read(record_collections.get, "items"))
    assert (shown["indexes"], shown["state"]) == ([] if anew else [["faster"]], "ready")
    await shelf.define("items", indexes=[["n"]])


@pytest.mark.usefixtures("few")
async def test_what_cannot_be_done_is_taken_back(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in the middle: the old definition is the only one again, and the organization is free."""
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n} for n in range(10)])
    sound = record_indexing.check_and_build

    async def fault(tx: Any, collection: Any, limit: int) -> Any:
        if collection.pending["after"]:
            raise KeyError("a fault")
        return await sound(tx, collection, limit)

    monkeypatch.setattr(record_indexing, "check_and_build", fault)
    with pytest.raises(OrgsteadError):
        await shelf.define("items", indexes=[["n"]])
    assert await shelf.entries("items") == set()
    collection = await shelf.read(record_collections.get, "items")
    assert (collection.pending, collection.indexes) == ({}, {})


@pytest.mark.usefixtures("few")
async def test_what_takes_longer_is_answered_with_its_operation(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n} for n in range(9)])
    monkeypatch.setattr(operations, "WAIT_SECONDS", 0)
    reached, go_on = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []
    begin = app.in_background

    def noted(work: Any) -> asyncio.Task[Any]:
        tasks.append(begin(work))
        return tasks[-1]

    async def pause() -> None:
        reached.set()
        await go_on.wait()

    monkeypatch.setattr(app, "in_background", noted)
    with arm("define.after_announce", pause):
        defined = await shelf.define("items", indexes=[["n"]])
        assert defined.operation is not None
        await reached.wait()
        shown = record_collections.shown(await shelf.read(record_collections.get, "items"))
        assert (shown["state"], shown["indexes"]) == ("changing", [])
        go_on.set()
        await asyncio.gather(*tasks)
    shown = record_collections.shown(await shelf.read(record_collections.get, "items"))
    assert (shown["state"], shown["indexes"]) == ("ready", [["n"]])


async def test_of_two_who_make_it_at_once_both_have_it(app: App) -> None:
    shelf = await Shelf.made(app)
    made = await asyncio.gather(*(shelf.define("items", indexes=[["a"]]) for _ in range(10)))
    assert sum(defined.created for defined in made) == 1
    assert (await shelf.usage()).collections == 1
    await asyncio.gather(*(shelf.create("notes", {"n": n}) for n in range(10)))
    assert (await shelf.usage()).collections == 2
