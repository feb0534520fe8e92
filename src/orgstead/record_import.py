"""Importing records into a collection in bulk, from lines.

Every line gets an outcome, in order. A line whose id is there already changes nothing, so an import of lines with ids
that was interrupted is simply run again; lines without an id make a new record each time. Lines are written in batches,
each in one transaction; a line that is refused does not keep the others of its batch from being written.

In a rehearsal (``App.is_rehearsing``) the outcomes are those that there would be, with the ids that lines have.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

from msgspec import structs

from orgstead import record_definitions, spaces
from orgstead.errors import InvalidInput, OrgsteadError, Unavailable
from orgstead.model import Json, Placement
from orgstead.record_batches import Batch, Change, Op, Taken, Terms
from orgstead.record_errors import QuotaExceeded, RecordExists
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

BATCH: Final = 1000
BATCH_BYTES: Final = 8 * 1_048_576


class Result(StrEnum):
    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: its number (from 1, as an editor counts), its size, and the record or why there is none."""

    number: int
    data: dict[str, Json] | None
    id: str | None = None
    bytes: int = 0
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line. ``reason`` says why it was refused, ``pointer`` which place in it is at fault."""

    line: int
    result: Result
    record_id: str | None = None
    reason: str | None = None
    pointer: str | None = None


async def import_records(
    app: App, placement: Placement, collection: str, lines: Iterable[Line], terms: Terms
) -> AsyncGenerator[list[Outcome], None]:
    """Create a record of each line; yield the outcomes of each batch once they are durable.

    Raises ``InvalidDefinition`` for the collection's name and what stops the whole import, such as a full disk or a
    space that is being moved; what was yielded before stays done. A batch that has begun is finished, and its outcomes
    yielded, even when the caller is cancelled.
    """
    record_definitions.checked_name(collection)
    remaining = iter(lines)
    batches = iter(lambda: _batch(remaining), [])
    works = (
        _import_batch(app, placement, collection, batch, structs.replace(terms, at=app.clock())) for batch in batches
    )
    async for outcomes in app.one_by_one(works):
        yield outcomes


def _batch(lines: Iterable[Line]) -> list[Line]:
    """The next lines that one transaction takes."""
    batch: list[Line] = []
    size = 0
    for line in islice(lines, BATCH):
        batch.append(line)
        size += line.bytes
        if size > BATCH_BYTES:
            break
    return batch


async def _import_batch(
    app: App, placement: Placement, collection: str, batch: Sequence[Line], terms: Terms
) -> list[Outcome]:
    try:
        outcomes = await spaces.run(app, placement, import_batch, collection, batch, terms)
        if not app.is_rehearsing:
            return outcomes
        return [replace(outcome, record_id=line.id) for outcome, line in zip(outcomes, batch, strict=True)]
    except InvalidInput as error:
        if len(batch) == 1:
            return [_refused(batch[0], error)]
    # Some value cannot be stored, which only the attempt shows. Alone each line shows whether it is its own.
    return [o for line in batch for o in await _import_batch(app, placement, collection, [line], terms)]


async def import_batch(
    tx: Transaction, space: Space, collection: str, lines: Sequence[Line], terms: Terms
) -> list[Outcome]:
    """Create the records of up to 1,000 lines in one transaction, except those that are refused or there already.

    What a line is refused for is there: a record, or another line that is written. The quota is filled up to its limit.
    Raises ``PlacementMoved``, and ``InvalidValue`` where a value cannot be stored.
    """
    outcomes: dict[int, Outcome] = {}
    waiting = lines
    while waiting:
        waiting = await _attempt(tx, space, collection, waiting, terms, outcomes)
    return [outcomes[line.number] for line in lines]


async def _attempt(
    tx: Transaction, space: Space, collection: str, lines: Sequence[Line], terms: Terms, outcomes: dict[int, Outcome]
) -> Sequence[Line]:
    """Write what can be written of the lines and add their outcomes; those that are to be tried again, which are fewer:
    what stood in their way was not written in the end."""
    changes = {line.number: Change(Op.CREATE, collection, line.id, line.data) for line in lines}
    batch = await Batch.begun(tx, space, changes.values(), terms, one_by_one=True)
    taken: dict[int, Taken] = {}
    ids: set[str | None] = set()
    waiting: list[Line] = []  # for lines that stand in their way and may not be written in the end
    for line in lines:
        if line.unreadable is not None:
            outcomes[line.number] = Outcome(line.number, Result.REFUSED, line.id, line.unreadable)
            continue
        if line.id is not None and line.id in ids:
            waiting.append(line)
            outcomes[line.number] = Outcome(line.number, Result.EXISTS, line.id)
            continue
        try:
            taken[line.number] = batch.take(changes[line.number])
            ids.add(line.id)
        except RecordExists:
            outcomes[line.number] = Outcome(line.number, Result.EXISTS, line.id)
        except Unavailable:
            raise
        except OrgsteadError as error:
            outcomes[line.number] = _refused(line, error)
            if isinstance(error, QuotaExceeded):
                waiting.append(line)
    conflicts = {id(one): error for one, error in await batch.conflicts()}
    batch.drop([one for one in taken.values() if id(one) in conflicts])
    await batch.write()
    for line in lines:
        if (one := taken.get(line.number)) is None:
            continue
        if (conflict := conflicts.get(id(one))) is not None:
            outcomes[line.number] = _refused(line, conflict)
        else:
            outcomes[line.number] = Outcome(line.number, Result.CREATED, one.key[1])
    return waiting if conflicts else ()


def _refused(line: Line, error: OrgsteadError) -> Outcome:
    """The outcome with the first of the error's problems, which says more than the error."""
    if error.problems:
        problem = error.problems[0]
        return Outcome(line.number, Result.REFUSED, line.id, problem.detail, problem.pointer)
    return Outcome(line.number, Result.REFUSED, line.id, error.detail)
