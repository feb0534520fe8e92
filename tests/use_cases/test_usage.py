"""Quotas: exact, never exceeded, and never in the way of what makes less."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orgstead import record_collections, records, usage
from orgstead.app import App
from orgstead.record_batches import Change, Op
from orgstead.record_errors import QuotaExceeded
from orgstead.settings import Settings
from orgstead.usage import Limits
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_usage_is_what_is_there(app: App, plan: str) -> None:
    """``app`` ends with ``fsck``, which counts again."""
    shelf = await Shelf.made(app, plan=plan)
    await shelf.define("empty")
    await shelf.fill("notes", [{"n": n} for n in range(5)])
    await shelf.replace("notes", "r0", {"text": "much longer than it was"})
    await shelf.patch("notes", "r1", {"n": None})
    await shelf.delete("notes", "r2")
    slot = await shelf.usage()
    found = (await shelf.page("notes")).records
    assert (slot.records, slot.collections) == (4, 2)
    assert slot.bytes == sum(record.bytes for record in found)
    assert usage.shown(Limits(records=7), slot)["records"] == {"used": 4, "limit": 7}


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_hundred_writers_never_exceed_it(app: App, plan: str) -> None:
    shelf = await Shelf.made(app, plan=plan)
    await shelf.fill("notes", [{}] * 9)
    shelf.limit(records=10)
    results = await asyncio.gather(*(shelf.create("notes", {"n": n}) for n in range(100)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 99
    assert (await shelf.usage()).records == 10


@pytest.mark.parametrize(
    ("limits", "what"), [({"records": 3}, "records"), ({"bytes": 21}, "bytes"), ({"collections": 1}, "collections")]
)
async def test_the_refusal_says_which_limit_and_how_much_is_used(app: App, limits: Any, what: str) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("notes", [{"n": n} for n in range(3)])
    shelf.limit(**limits)
    before = await shelf.usage()
    with pytest.raises(QuotaExceeded) as raised:
        await shelf.create("tasks", {"n": 1})
    error = raised.value
    assert (error.what, error.limit, error.used) == (what, limits[what], getattr(before, what))
    named = what if error.limit != 1 else what.removesuffix("s")
    assert f"plan allows {error.limit} {named} and it has {error.used}," in error.detail
    assert await shelf.usage() == before


async def test_a_batch_that_would_cross_it_changes_nothing(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("notes", [{"n": n} for n in range(3)])
    shelf.limit(records=4)
    two = [Change(Op.CREATE, "notes", None, {}) for _ in range(2)]
    with pytest.raises(QuotaExceeded):
        await shelf.run(records.batch, two, shelf.terms)
    assert (await shelf.usage()).records == 3
    await shelf.run(records.batch, [*two, Change(Op.DELETE, "notes", "r0")], shelf.terms)
    assert (await shelf.usage()).records == 4


async def test_a_limit_below_the_usage_blocks_only_growth(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("notes", [{"text": "x" * 10} for _ in range(5)])
    shelf.limit(records=2, bytes=10, collections=0)
    for growth in (shelf.create("notes", {}), shelf.patch("notes", "r0", {"more": 1}), shelf.define("other")):
        with pytest.raises(QuotaExceeded):
            await growth
    await shelf.replace("notes", "r0", {"text": "y" * 10})
    await shelf.replace("notes", "r0", {"text": ""})
    await shelf.delete("notes", "r1")
    assert len(await shelf.ask("notes")) == 4


async def test_collections_are_counted_and_given_back(app: App) -> None:
    shelf = await Shelf.made(app)
    shelf.limit(collections=1)
    await shelf.define("notes")
    await shelf.define("notes", indexes=[["a"]])
    with pytest.raises(QuotaExceeded):
        await shelf.define("tasks")
    await shelf.run(record_collections.remove, "notes", shelf.terms)
    await shelf.create("tasks", {})
    assert (await shelf.usage()).collections == 1


def test_plans_say_what_they_allow() -> None:
    settings = Settings.model_validate(
        {"plans": {"free": {"max_records": 5}, "trial": {"placement": "pooled", "max_bytes": 9}}}
    )
    assert usage.limits_of(settings, "free") == Limits(
        records=5, bytes=100 * 1_048_576, collections=100, members=100, api_keys=10
    )
    assert usage.limits_of(settings, "trial") == Limits(bytes=9)
    assert usage.limits_of(settings, "enterprise") == Limits()
    free = Settings.model_validate({"plans": {"free": {"max_records": "", "max_bytes": "7"}}})
    assert usage.limits_of(free, "free") == Limits(bytes=7, collections=100, members=100, api_keys=10)
    assert usage.limits_of(settings, "gone") == Limits(records=0, bytes=0, collections=0, members=0, api_keys=0)
