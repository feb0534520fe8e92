"""Who waits in this process for the next event of an organization.

A change that this process makes wakes them at once; those of other processes are found by looking every second. So
nobody depends on being woken, and a lost call is a second's delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Arrivals:
    """The waiting of one process, by organization."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def tell(self, org_id: str) -> None:
        """Something was committed in the organization's space."""
        for event in self._waiting.get(org_id, ()):
            event.set()

    @contextmanager
    def awaited(self, org_id: str) -> Iterator[asyncio.Event]:
        """An event that ``tell`` sets, to be cleared before looking."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(org_id, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(org_id, None)
