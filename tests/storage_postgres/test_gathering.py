"""How callers are asked for together: nobody waits for others, and nobody is answered by what was asked before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from orgstead.errors import StorageError
from orgstead.model import Access
from orgstead.storage.postgres.access import Caller, Gathering

pytestmark = pytest.mark.anyio


class Questions:
    """Stands for the database: each question is answered when the test says so. An answer's epoch tells which it is."""

    def __init__(self) -> None:
        self.asked: list[list[Caller]] = []
        self.ends: list[asyncio.Event] = []
        self.error: Exception | None = None

    async def ask(self, callers: Sequence[Caller]) -> list[Access]:
        number = len(self.asked)
        self.asked.append(list(callers))
        self.ends.append(asyncio.Event())
        await self.ends[number].wait()
        if self.error is not None:
            raise self.error
        return [Access(None, None, None, None, 1000 * number + int(caller[0])) for caller in callers]


def caller(number: int) -> Caller:
    return str(number), "usr", "ses"


async def turns() -> None:
    """Until everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


def asking(gathering: Gathering, *numbers: int) -> list[asyncio.Task[Access]]:
    return [asyncio.create_task(gathering.access(caller(number))) for number in numbers]


def epochs(tasks: Sequence[asyncio.Task[Access]]) -> list[int | None]:
    return [task.result().user_epoch for task in tasks]


async def test_who_asks_in_one_turn_is_asked_for_together_and_gets_their_own_answer() -> None:
    questions = Questions()
    tasks = asking(Gathering(questions.ask), 1, 2, 3)
    await turns()
    assert questions.asked == [[caller(1), caller(2), caller(3)]]
    questions.ends[0].set()
    await asyncio.wait(tasks)
    assert epochs(tasks) == [1, 2, 3]


async def test_who_comes_while_a_question_is_under_way_is_asked_for_anew() -> None:
    """What was committed before they came may be later than what that question sees."""
    questions = Questions()
    gathering = Gathering(questions.ask)
    first = asking(gathering, 1)
    await turns()
    second = asking(gathering, 1)
    await turns()
    for end in questions.ends:
        end.set()
    await asyncio.wait([*first, *second])
    assert (epochs(first), epochs(second)) == ([1], [1001])


async def test_those_who_come_while_enough_questions_are_under_way_are_the_next() -> None:
    questions = Questions()
    gathering = Gathering(questions.ask)
    early = []
    for number in (1, 2):
        early += asking(gathering, number)
        await turns()
    late = []
    for number in (3, 4, 5):
        late += asking(gathering, number)
        await turns()
    assert questions.asked == [[caller(1)], [caller(2)]]
    questions.ends[1].set()
    await turns()
    assert questions.asked[2:] == [[caller(3), caller(4), caller(5)]]
    assert [task.done() for task in early] == [False, True]
    for end in questions.ends:
        end.set()
    await asyncio.wait([*early, *late])
    assert epochs(late) == [2003, 2004, 2005]


async def test_a_question_is_bounded() -> None:
    questions = Questions()
    tasks = asking(Gathering(questions.ask), *range(600))
    while not all(task.done() for task in tasks):
        await turns()
        for end in questions.ends:
            end.set()
    assert [len(asked) for asked in questions.asked] == [256, 256, 88]
    assert [(epoch or 0) % 1000 for epoch in epochs(tasks)] == list(range(600))


async def test_who_leaves_takes_nobody_with_them() -> None:
    questions = Questions()
    tasks = asking(Gathering(questions.ask), 1, 2, 3)
    await turns()
    tasks[0].cancel()
    await turns()
    questions.ends[0].set()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert epochs(tasks[1:]) == [2, 3]


async def test_a_failure_is_told_to_all_who_asked_and_the_next_question_is_a_new_one() -> None:
    questions = Questions()
    questions.error = StorageError()
    gathering = Gathering(questions.ask)
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
    assert epochs(again) == [1003]


async def test_when_the_loop_ends_nobody_waits_for_ever() -> None:
    questions = Questions()
    gathering = Gathering(questions.ask)
    tasks = asking(gathering, 1, 2)
    await turns()
    for task in asyncio.all_tasks() - {asyncio.current_task(), *tasks}:
        if "_answers" in repr(task.get_coro()):
            task.cancel()
    await asyncio.wait(tasks, timeout=10)
    assert all(task.cancelled() for task in tasks)
