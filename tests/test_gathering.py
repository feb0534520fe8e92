"""How one question is asked for many: nobody waits for others, and nobody is answered by what was asked before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from orgstead.errors import Overloaded, StorageError
from orgstead.storage.gathering import Gathering

pytestmark = pytest.mark.anyio


class Questions:
    """Stands for the database: each question is answered when the test says so. Thousands of an answer tell which."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.ends: list[asyncio.Event] = []
        self.error: Exception | None = None

    async def ask(self, keys: Sequence[int]) -> list[int]:
        number = len(self.asked)
        self.asked.append(list(keys))
        self.ends.append(asyncio.Event())
        await self.ends[number].wait()
        if self.error is not None:
            raise self.error
        return [1000 * number + key for key in keys]


def gathering_of(questions: Questions) -> Gathering[int, int]:
    return Gathering(questions.ask, 10.0)


async def turns() -> None:
    """Until everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


def asking(gathering: Gathering[int, int], *keys: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(gathering.answer(key)) for key in keys]


def results(tasks: Sequence[asyncio.Task[int]]) -> list[int]:
    return [task.result() for task in tasks]


async def test_who_asks_in_one_turn_is_asked_for_together_and_gets_their_own_answer() -> None:
    questions = Questions()
    tasks = asking(gathering_of(questions), 1, 2, 3)
    await turns()
    assert questions.asked == [[1, 2, 3]]
    questions.ends[0].set()
    await asyncio.wait(tasks)
    assert results(tasks) == [1, 2, 3]


async def test_who_comes_while_a_question_is_under_way_is_asked_for_anew() -> None:
    """What was committed before they came may be later than what that question sees."""
    questions = Questions()
    gathering = gathering_of(questions)
    first = asking(gathering, 1)
    await turns()
    second = asking(gathering, 1)
    await turns()
    for end in questions.ends:
        end.set()
    await asyncio.wait([*first, *second])
    assert (results(first), results(second)) == ([1], [1001])


async def test_those_who_come_while_enough_questions_are_under_way_are_the_next() -> None:
    questions = Questions()
    gathering = gathering_of(questions)
    early = []
    for number in (1, 2):
        early += asking(gathering, number)
        await turns()
    late = []
    for number in (3, 4, 5):
        late += asking(gathering, number)
        await turns()
    assert questions.asked == [[1], [2]]
    questions.ends[1].set()
    await turns()
    assert questions.asked[2:] == [[3, 4, 5]]
    assert [task.done() for task in early] == [False, True]
    for end in questions.ends:
        end.set()
    await asyncio.wait([*early, *late])
    assert results(late) == [2003, 2004, 2005]


async def test_a_question_is_bounded() -> None:
    questions = Questions()
    tasks = asking(gathering_of(questions), *range(600))
    while not all(task.done() for task in tasks):
        await turns()
        for end in questions.ends:
            end.set()
    assert [len(asked) for asked in questions.asked] == [256, 256, 88]
    assert [answer % 1000 for answer in results(tasks)] == list(range(600))


async def test_who_leaves_takes_nobody_with_them() -> None:
    questions = Questions()
    tasks = asking(gathering_of(questions), 1, 2, 3)
    await turns()
    tasks[0].cancel()
    await turns()
    questions.ends[0].set()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert results(tasks[1:]) == [2, 3]


async def test_who_has_left_before_the_question_is_not_asked_for() -> None:
    questions = Questions()
    gathering = gathering_of(questions)
    busy = []
    for key in (1, 2):
        busy += asking(gathering, key)
        await turns()
    gone, staying = asking(gathering, *range(10, 600)), asking(gathering, 3)
    await turns()
    for task in gone:
        task.cancel()
    for end in questions.ends:
        end.set()
    await turns()
    assert questions.asked == [[1], [2], [3]]
    questions.ends[2].set()
    await asyncio.wait([*busy, *staying])
    assert results(staying) == [2003]


async def test_who_waits_for_a_place_for_too_long_is_told_to_come_back() -> None:
    questions = Questions()
    gathering: Gathering[int, int] = Gathering(questions.ask, 0.001)
    busy = []
    for key in (1, 2):
        busy += asking(gathering, key)
        await turns()
    late = asking(gathering, 3, 4)
    await asyncio.wait(late)
    assert [type(task.exception()) for task in late] == [Overloaded, Overloaded]
    for end in questions.ends:
        end.set()
    await asyncio.wait(busy)
    again = asking(gathering, 5)
    await turns()
    questions.ends[2].set()
    await asyncio.wait(again)
    assert (results(busy), results(again)) == ([1, 1002], [2005])


async def test_a_failure_is_told_to_all_who_asked_and_the_next_question_is_a_new_one() -> None:
    questions = Questions()
    questions.error = StorageError()
    gathering = gathering_of(questions)
    tasks = asking(gathering, 1, 2)
    await turns()
    questions.ends[0].set()
    await asyncio.wait(tasks)
    assert [type(task.exception()) for task in tasks] == [StorageError, StorageError]
    questions.error = None
    again = asking(gathering, 3)
    await turns()
    questions.ends[1].set()
    await asyncio.wait(again)
    assert results(again) == [1003]


async def test_when_the_loop_ends_nobody_waits_for_ever() -> None:
    questions = Questions()
    gathering = gathering_of(questions)
    tasks = asking(gathering, 1, 2)
    await turns()
    for task in asyncio.all_tasks() - {asyncio.current_task(), *tasks}:
        if "_answers" in repr(task.get_coro()):
            task.cancel()
    await asyncio.wait(tasks, timeout=10)
    assert all(task.cancelled() for task in tasks)
