"""Working in an organization's space, wherever it is, with a placement that may have become stale meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from orgstead import placements
from orgstead.errors import NotFound, PlacementMoved
from orgstead.model import Placement
from orgstead.storage.port import OrgScope, Space, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

T = TypeVar("T")
P = ParamSpec("P")

Work = Callable[Concatenate[Transaction, Space, P], Awaitable[T]]
"""Takes the transaction and the space that it runs in, then what the caller gives."""


async def run(app: App, placement: Placement, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work(tx, space, …)`` as one transaction in the space.

    Where the space was moved or renamed since the placement was read, it is run once more where the space is now.
    Raises ``PlacementMoved`` while that is under way.
    """
    space = placements.space_of(placement)
    try:
        return await app.cell(placement.cell).run(space, work, space, *args, **kwargs)
    except PlacementMoved:
        current = await _current(app, placement)
        if current is None:
            raise
        space = placements.space_of(current)
        return await app.cell(current.cell).run(space, work, space, *args, **kwargs)


async def read(app: App, placement: Placement, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same on a snapshot, for work that only reads.

    What is not found is looked for again where the space has been moved or renamed since the placement was read.
    """
    space = placements.space_of(placement)
    try:
        return await app.cell(placement.cell).read(space, work, space, *args, **kwargs)
    except NotFound:
        current = await _current(app, placement)
        if current is None:
            raise
        space = placements.space_of(current)
        return await app.cell(current.cell).read(space, work, space, *args, **kwargs)


async def scan(app: App, placement: Placement, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``read`` for work that may take long."""
    space = placements.space_of(placement)
    try:
        return await app.cell(placement.cell).scan(space, work, space, *args, **kwargs)
    except NotFound:
        current = await _current(app, placement)
        if current is None:
            raise
        space = placements.space_of(current)
        return await app.cell(current.cell).scan(space, work, space, *args, **kwargs)


async def _current(app: App, stale: Placement) -> Placement | None:
    """The placement as it is now, or None if that is the one there was, or none is left."""
    try:
        current = await app.storage.read(OrgScope(stale.org_id), placements.get, stale.org_id)
    except NotFound:
        return None
    return None if (current.cell, current.epoch) == (stale.cell, stale.epoch) else current
