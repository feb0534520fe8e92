"""Importing records of many organizations from one file, whose lines name their organization.

Lines are read in windows and grouped: each transaction has lines of one organization only, and several organizations
are written side by side. What stands in the way of one, such as its quota, does not hold up the others. Every line gets
an outcome, in the order of the file; as in ``record_import`` the same lines again change nothing where they have ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from orgstead import kit, organizations, record_definitions, record_import
from orgstead.audit import Actor
from orgstead.errors import NotFound, PlacementMoved, Unavailable
from orgstead.model import OrganizationStatus
from orgstead.organizations import Located
from orgstead.record_batches import terms_of
from orgstead.record_import import Line, Outcome, Result
from orgstead.storage.port import SystemScope

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("import records")

WINDOW: Final = 10_000
"""Lines that are read before they are grouped."""

WINDOW_BYTES: Final = 32 * 1_048_576

SIDE_BY_SIDE: Final = 32
"""Organizations that are written at the same time: engines make one commit of many transactions."""

WRITABLE = frozenset({OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED})


@dataclass(frozen=True, slots=True)
class Addressed:
    """A line, and the id, slug or external id of the organization that it is for."""

    organization: str
    line: Line


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a line, and the id of its organization where there is one."""

    organization: str
    organization_id: str | None
    outcome: Outcome


async def import_records(
    app: App, collection: str, lines: Iterable[Addressed], actor: Actor
) -> AsyncGenerator[list[Told], None]:
    """Create a record of each line in its organization's collection; yield the outcomes of each window once they are
    durable.

    Raises ``InvalidDefinition`` for the collection's name and what stops the whole import, such as a full disk, after
    the outcomes of the window that it stopped; of what follows them nothing was written. A window that has begun is
    finished, and its outcomes yielded, even when the caller is cancelled.
    """
    record_definitions.checked_name(collection)
    remaining = iter(lines)
    windows = iter(lambda: _window(remaining), [])
    works = (_import_window(app, collection, window, actor) for window in windows)
    async for told, failure in app.one_by_one(works):
        yield told
        if failure:
            raise failure


def _window(lines: Iterable[Addressed]) -> list[Addressed]:
    window: list[Addressed] = []
    size = 0
    for line in islice(lines, WINDOW):
        window.append(line)
        size += line.line.bytes
        if size > WINDOW_BYTES:
            break
    return window


async def _import_window(
    app: App, collection: str, window: Sequence[Addressed], actor: Actor
) -> tuple[list[Told], Unavailable | None]:
    """What became of the lines, and what stopped some of them and would stop others."""
    found = await located(app, list(dict.fromkeys(one.organization for one in window if one.organization)))
    # By organization, not by what a line calls it: lines that name the same one differently keep their order.
    groups: dict[str | None, tuple[Located | None, list[Line]]] = {}
    for addressed in window:
        where = found.get(addressed.organization)
        groups.setdefault(where.organization.id if where else None, (where, []))[1].append(addressed.line)
    room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def group(where: Located | None, lines: Sequence[Line]) -> tuple[list[Outcome], Unavailable | None]:
        async with room:
            return await _import_group(app, collection, where, lines, actor)

    ended = await kit.all_of(group(*item) for item in groups.values())
    outcomes = {outcome.line: outcome for result, _ in ended for outcome in result}
    ids = {name: one.organization.id for name, one in found.items()}
    told = [Told(one.organization, ids.get(one.organization), outcomes[one.line.number]) for one in window]
    return told, next((failure for _, failure in ended if failure), None)


async def located(app: App, names: Sequence[str]) -> Mapping[str, Located]:
    """The organizations of these ids, slugs or external ids, as far as there are any, with their placements."""
    found: dict[str, Located] = {}
    for begin in range(0, len(names), 500):
        found.update(await app.storage.read(SCOPE, organizations.resolve_many, names[begin : begin + 500]))
    return found


async def _import_group(
    app: App, collection: str, where: Located | None, lines: Sequence[Line], actor: Actor
) -> tuple[list[Outcome], Unavailable | None]:
    """The lines of one organization, in transactions of their own."""
    if where is None:
        return _refused(lines, "There is no organization of this id, slug or external id."), None
    organization = where.organization
    if organization.status not in WRITABLE:
        return _refused(lines, f"The organization is {organization.status}."), None
    terms = terms_of(app, organization.plan, actor)
    outcomes: list[Outcome] = []
    try:
        async for batch in record_import.import_records(app, where.placement, collection, lines, terms):
            outcomes += batch
    except (PlacementMoved, NotFound):
        outcomes += _refused(lines[len(outcomes) :], "The organization's data is being moved or removed; try again.")
    except Unavailable as failure:
        return outcomes + _refused(lines[len(outcomes) :], "It was not written, because the import stopped."), failure
    return outcomes, None


def _refused(lines: Sequence[Line], reason: str) -> list[Outcome]:
    return [Outcome(line.number, Result.REFUSED, line.id, line.unreadable or reason) for line in lines]
