"""Whatever reads many records takes a few megabytes of memory, however large the records are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from orgstead import aggregates, operations, queries, record_tables, records
from orgstead.app import App
from orgstead.errors import InvalidInput
from orgstead.queries import PAGE_BYTES
from orgstead.record_batches import MAX_CHANGED_BYTES, Change, Op
from orgstead.record_errors import DefinitionViolated
from orgstead.storage.port import Space, Transaction
from tests import apps, support
from tests.engines import cuts_answers
from tests.use_cases.shelves import EVERYTHING, Shelf

pytestmark = pytest.mark.anyio

MEBIBYTE = 1_048_576
COUNT = 64
SMALL = 300
"""Small records that come first: what was read does not say how large the next ones are."""


ID_ORDER = [f"r{n:03}" for n in range(SMALL + COUNT)]


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    """Bytes of a large record; little more than half where memory is not measured, and a stand-in takes long."""
    return MEBIBYTE if cuts_answers(request.node.callspec.params["database"]) else MEBIBYTE * 9 // 16


@pytest.fixture
async def shelf(app: App, size: int) -> Shelf:
    """An organization whose records are small at the beginning, and large from then on."""
    found = await Shelf.made(app, plan="enterprise")
    await found.define("notes", indexes=[["n"]])
    text = "x" * (size - 100)
    documents = [{"n": n, "m": -n, **({"text": text} if n >= SMALL else {})} for n in range(len(ID_ORDER))]
    changes = [Change(Op.CREATE, "notes", one, data) for one, data in zip(ID_ORDER, documents, strict=True)]
    for batch in (changes[:SMALL], *(changes[begin : begin + 8] for begin in range(SMALL, len(changes), 8))):
        await found.run(records.batch, batch, found.terms)
    return found


async def a_page(shelf: Shelf, **query: Any) -> None:
    page = await shelf.page("notes", queries.parse(**query), limit=200)
    assert page.mark is not None
    assert sum(record.bytes for record in page.records) <= PAGE_BYTES


async def summed(shelf: Shelf) -> None:
    request = aggregates.parse({"field": "n", "gte": 0}, None, {"n": {"sum": "n"}})
    (found,) = await shelf.read(aggregates.run, "notes", request, EVERYTHING)
    assert found == {"n": sum(range(SMALL + COUNT))}


async def exported(shelf: Shelf) -> None:
    assert await shelf.read(_counted) == SMALL + COUNT


async def _counted(tx: Transaction, space: Space) -> int:
    return sum([len(batch) async for batch in record_tables.pages(tx, "notes")])


async def indexed(shelf: Shelf) -> None:
    await shelf.define("notes", indexes=[["n"], ["m"]])
    assert len(await shelf.entries("notes")) == 2 * (SMALL + COUNT)


async def checked(shelf: Shelf) -> None:
    schema = {"properties": {"n": {"maximum": SMALL + COUNT - 2}}}
    with pytest.raises(DefinitionViolated) as raised:
        await shelf.define("notes", schema=schema, indexes=[["n"]])
    (problem,) = raised.value.problems
    assert problem.pointer == f"/records/{ID_ORDER[-1]}/data/n"


async def examined(shelf: Shelf) -> None:
    assert await apps.findings(shelf.app) == []


READINGS: dict[str, Callable[[Shelf], Awaitable[None]]] = {
    "the large ones by id": lambda shelf: a_page(shelf, order=["-id"]),
    "the large ones by an index": lambda shelf: a_page(shelf, order=["-n"]),
    "some by a range": lambda shelf: a_page(shelf, where={"field": "n", "gte": SMALL}),
    "a sorted page": lambda shelf: a_page(shelf, order=["m"]),
    "an aggregate": summed,
    "what an export reads": exported,
    "a new index": indexed,
    "a new schema": checked,
    "fsck": examined,
}


async def test_large_records_are_read_a_few_at_a_time(shelf: Shelf, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "WAIT_SECONDS", 600)  # a new definition is in force when it is answered
    traced = size == MEBIBYTE
    peaks: dict[str, int] = {}
    for name in READINGS if traced else support.sample("ways to read large records on mongodb", [*READINGS], 3):
        reading = READINGS[name]
        if not traced:
            await reading(shelf)
            continue
        tracemalloc.start()
        try:
            await reading(shelf)
            peaks[name] = tracemalloc.get_traced_memory()[1] // MEBIBYTE
        finally:
            tracemalloc.stop()
    assert {name: peak for name, peak in peaks.items() if peak >= COUNT * 3 // 4} == {}

    for order, expected in ((["-id"], ID_ORDER[::-1]), (["-n"], ID_ORDER[::-1]), (["m"], ID_ORDER[::-1])):
        found = await shelf.walk("notes", queries.parse(order=order), limit=200)
        assert [record.id for record in found] == expected

    before = await shelf.usage()
    fits = MAX_CHANGED_BYTES // size
    for op, data in ((Op.DELETE, None), (Op.PATCH, {"more": 1}), (Op.REPLACE, {"n": -1})):
        changes = [Change(op, "notes", one, data) for one in ID_ORDER[-fits - 1 :]]
        with pytest.raises(InvalidInput) as raised:
            await shelf.run(records.batch, changes, shelf.terms)
        assert raised.value.problems[0].pointer == "/operations"
    assert await shelf.usage() == before
    await shelf.run(records.batch, [Change(Op.DELETE, "notes", one) for one in ID_ORDER[-fits:]], shelf.terms)
    assert (await shelf.usage()).records == before.records - fits
