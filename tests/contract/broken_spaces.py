"""Storages that break a promise on purpose, each in one way: spaces, digests and the hot read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from orgstead.errors import SpaceMismatch, StorageError
from orgstead.model import Access, SlotState
from orgstead.storage.port import Digest, Scope, Space, Storage, Table, Transaction
from orgstead.storage.tables import slots
from tests.contract.broken_units import EVERYTHING, Sound, Verbs

# --- spaces ---------------------------------------------------------------------------------------------------------


class ClosesOneSlot(Sound):
    """Promise 9: ``close_space`` forgets all slots but the first."""

    async def close_space(self, space: Space) -> None:
        async def close(tx: Transaction) -> None:
            for slot in (await tx.page(slots, {"epoch": space.epoch}, limit=100))[:1]:
                await tx.replace(slots, replace(slot, state=SlotState.CLOSED))

        await self.storage.run(space, close)


class OpensWithEmptyCounters(Sound):
    """Promise 9: ``open_space`` forgets what was counted."""

    async def open_space(self, space: Space) -> None:
        await self.storage.open_space(space)

        await self.storage.run(space, _fresh_slots, space.epoch)


class CreateStartsAgain(Sound):
    """Promise 9: ``create_space`` repeated sets the slots back to what they were at first."""

    async def create_space(self, space: Space, *, slots: int = 1) -> None:
        await self.storage.create_space(space, slots=slots)
        await self.storage.run(space, _fresh_slots, space.epoch)


async def _fresh_slots(tx: Transaction, epoch: int) -> None:
    for slot in await tx.page(slots, {"epoch": epoch}, limit=100):
        await tx.replace(slots, replace(slot, state=SlotState.OPEN, records=0, bytes=0))


class RenameTrustsItsCaller(Sound):
    """Promise 9: ``rename_space`` takes every disagreement for "it was done"."""

    async def rename_space(self, space: Space, name: str) -> None:
        try:
            await self.storage.rename_space(space, name)
        except SpaceMismatch:
            return


class RenameKeepsTheOldName(Sound):
    """Promise 9: after the rename there is a space of the old name again."""

    async def rename_space(self, space: Space, name: str) -> None:
        await self.storage.rename_space(space, name)
        await self.storage.create_space(space)


class DropsNothing(Sound):
    """Promise 9: ``drop_space`` says it is done while everything is there."""

    async def drop_space(self, space: Space, *, batch: int = 1000) -> None:
        return None


class FenceLetsStaleWritersIn(Sound):
    """Promise 9: the fence is not looked at."""

    class verbs(Verbs):  # noqa: N801
        async def adjust(self, table: Table[Any], *key: Any, **kwargs: Any) -> bool:
            await self.tx.adjust(table, *key, **kwargs)
            return True


class ListsAPageTwice(Sound):
    """``spaces`` repeats the space that it goes on after."""

    async def spaces(self, *, after: str = "", limit: int = 1000) -> Any:
        page = await self.storage.spaces(after=after, limit=limit)
        return [*page[:1], *page][:limit] if after else page


# --- digests, access ------------------------------------------------------------------------------------------------


class DigestCountsOnly(Sound):
    """Promise 10: the hash is of the number of rows."""

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        count = (await self.storage.digest(scope, table)).count
        return Digest(count, f"{count + 1:x}")


class DigestKnowsThePlacement(Sound):
    """Promise 10: where the rows are is part of the hash."""

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        digest = await self.storage.digest(scope, table)
        place = scope.name if isinstance(scope, Space) else None
        return Digest(digest.count, f"{hash((digest.hash, place)) & (2**64 - 1):x}")


class CachedAccess(Sound):
    """``access`` remembers."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._cache: dict[tuple[str, ...], Access] = {}

    async def access(self, *key: str) -> Access:
        if key not in self._cache:
            self._cache[key] = await self.storage.access(*key)
        return self._cache[key]


class MixedUpAccess(Sound):
    """``access`` gives those who ask at the same moment each other's answer."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._asking: list[tuple[str, ...]] = []

    async def access(self, *key: str) -> Access:
        self._asking.append(key)
        await asyncio.sleep(0)
        return await self.storage.access(*self._asking.pop())


class JoinedAccess(Sound):
    """``access`` lets those who come late have the answer that is on its way."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._under_way: dict[tuple[str, ...], asyncio.Task[Access]] = {}

    async def access(self, *key: str) -> Access:
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._ask(*key))
        return await asyncio.shield(task)

    async def _ask(self, *key: str) -> Access:
        found = await self.storage.access(*key)
        for _ in range(10):
            await asyncio.sleep(0)
        del self._under_way[key]
        return found


class SharedAccess(Sound):
    """``access`` fails for everybody when one who asks leaves."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._spoilt = False

    async def access(self, *key: str) -> Access:
        try:
            await asyncio.sleep(0)
            found = await self.storage.access(*key)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._spoilt = True
            raise
        if self._spoilt:
            raise StorageError
        return found


class AccessInParts(Sound):
    """``access`` reads its parts at different times."""

    async def access(self, *key: str) -> Access:
        early = await self.storage.access(*key)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self.storage.run(EVERYTHING, _nothing)
        return replace(await self.storage.access(*key), organization=early.organization)


async def _nothing(tx: Transaction) -> None:
    """A unit that does nothing but wait for its turn."""
