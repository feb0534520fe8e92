"""Ids: short, lower-case, never twice, and sorted by their age. Work side by side: heard of when all has ended."""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orgstead import kit

SHAPE = re.compile(r"org_[0-7][0-9a-hjkmnp-tv-z]{25}")


def test_an_id_is_its_prefix_and_a_ulid() -> None:
    before = time.time_ns() // 1_000_000
    made = kit.new_id("org")
    assert SHAPE.fullmatch(made)
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for char in made.removeprefix("org_"):
        number = number * 32 + digits.index(char)
    assert before <= number >> 80 <= time.time_ns() // 1_000_000
    assert number & (2**80 - 1)


def test_ids_of_several_threads_are_never_the_same() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = [
            made for batch in threads.map(lambda _: [kit.new_id("x") for _ in range(5000)], range(4)) for made in batch
        ]
    assert len(set(made)) == len(made)


def test_ids_sort_as_they_were_made_also_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5, 5, 5, 4, 1, 6, 6])
    monkeypatch.setattr(kit, "_ulids", kit._Ulids())
    monkeypatch.setattr(time, "time_ns", lambda: next(times) * 1_000_000)
    made = [kit.new_id("x") for _ in range(7)]
    assert made == sorted(made)
    assert len(set(made)) == 7
    assert [m[2:12] for m in made] == ["0000000005"] * 5 + ["0000000006"] * 2


def test_random_bits_differ_between_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1, 100))
    monkeypatch.setattr(kit, "_ulids", kit._Ulids())
    monkeypatch.setattr(time, "time_ns", lambda: next(times) * 1_000_000)
    assert len({kit.new_id("x")[12:] for _ in range(99)}) == 99


@pytest.mark.anyio
async def test_work_side_by_side_gives_its_results_in_order() -> None:
    first = asyncio.Event()

    async def waits() -> int:
        await first.wait()
        return 1

    async def goes_on() -> int:
        first.set()
        return 2

    assert await kit.all_of([waits(), goes_on()]) == [1, 2]


@pytest.mark.anyio
async def test_a_failure_is_heard_of_when_all_has_ended() -> None:
    ended: list[str] = []
    failed = asyncio.Event()

    async def fails() -> None:
        failed.set()
        raise LookupError

    async def takes_longer() -> None:
        await failed.wait()
        await asyncio.sleep(0)
        ended.append("longer")

    with pytest.raises(LookupError):
        await kit.all_of([takes_longer(), fails(), takes_longer()])
    assert ended == ["longer", "longer"]
