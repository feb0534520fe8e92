"""The App: everything a use case can need, opened once from the settings. Two can live in one process."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Coroutine, Iterable
from functools import cached_property
from typing import Any, ParamSpec, Self, TypeVar

from orgstead import archive_steps, creation, kit, purging, record_indexing, renaming
from orgstead.api_keys import KeyUses
from orgstead.arrivals import Arrivals
from orgstead.cursors import Cursors
from orgstead.errors import ConfigurationError
from orgstead.keys import Keys, load_or_create_key_file, load_signing_keys
from orgstead.passwords import Passwords
from orgstead.placements import FIRST_CELL
from orgstead.rates import Rates
from orgstead.rehearsal import Rehearsal, rehearsal_of
from orgstead.settings import Settings
from orgstead.storage import describe, open_storage, pending
from orgstead.storage.port import Storage
from orgstead.throttles import Attempts, Throttles
from orgstead.tokens import Tokens

T = TypeVar("T")
P = ParamSpec("P")

OPERATIONS = (creation.CREATE, renaming.RENAME, purging.PURGE, record_indexing.DEFINE, archive_steps.IMPORT)
"""The kinds of operations: whoever has an App can complete each, because importing it has registered them."""

KEY_FILE = "secret.key"
"""Name of the key file that dev mode makes in the data folder."""


async def open_directory(settings: Settings, *, writable: bool, make: bool = True) -> Storage:
    """The database that the settings name, as ``open_storage`` opens it."""
    migration_url = settings.migration_url.get_secret_value() if settings.migration_url else None
    return await open_storage(settings.database_url, migration_url=migration_url, writable=writable, make=make)


async def pending_migrations(settings: Settings) -> list[tuple[int, str]]:
    """What ``db upgrade`` would apply to the database that the settings name, as ``storage.pending`` says it."""
    migration_url = settings.migration_url.get_secret_value() if settings.migration_url else None
    return await pending(settings.database_url, migration_url=migration_url)


class App:
    """Owns the storages, the clock and the secrets. ``owner`` names this process in leases.

    Keys, tokens and passwords are made when first used, so that commands which need none of them start fast and
    without a secret; ``check`` makes them all. ``processes`` is how many processes of this machine are one service, and
    share its cores.
    """

    def __init__(self, settings: Settings, storage: Storage, *, clock: kit.Clock = kit.now, processes: int = 1) -> None:
        self.settings = settings
        self.storage = storage
        self.clock = clock
        self._processes = processes
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.rates = Rates()
        self.arrivals = Arrivals()
        self._cells: dict[str, Storage] = {FIRST_CELL: storage}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.key_uses = KeyUses(storage, self.in_background)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        writable: bool = True,
        make: bool = True,
        clock: kit.Clock = kit.now,
        processes: int = 1,
        rehearsing: bool = False,
    ) -> Self:
        """Open the database, as ``open_storage`` does; raises what that raises. ``rehearsing``: nothing is changed."""
        storage = await open_directory(settings, writable=writable, make=make)
        return cls(settings, rehearsal_of(storage) if rehearsing else storage, clock=clock, processes=processes)

    async def check(self) -> None:
        """Raise ``ConfigurationError`` unless the service could serve: schema, keys, password hashing."""
        await self.storage.check()
        _ = self.tokens, self.passwords, self.cursors

    async def close(self) -> None:
        """Wait for background work that has begun, then let go of everything."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        if "passwords" in self.__dict__:
            self.passwords.close()
        await self.storage.close()

    # --- storage ----------------------------------------------------------------------------------------------------

    def cell(self, name: str) -> Storage:
        """The database server that a placement names. Raises ``ConfigurationError`` if it is not configured."""
        try:
            return self._cells[name]
        except KeyError:
            raise ConfigurationError(
                f"An organization's data lives in the cell {name!r}, which is not configured.",
                next="Set ORGSTEAD_CELLS__<NAME> to its address.",
            ) from None

    @property
    def is_only_writer(self) -> bool:
        """True where the database admits one writing process, so that nothing of another one's can be at work in it."""
        return not describe(self.settings.database_url).concurrent

    @property
    def is_rehearsing(self) -> bool:
        """True where units of work are rolled back, so that what takes more than one cannot be gone on with."""
        return isinstance(self.storage, Rehearsal)

    def cell_names(self) -> tuple[str, ...]:
        return tuple(self._cells)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` to its end even if whoever asked for it goes away; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def one_by_one(self, works: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[T, None]:
        """The result of each work, done one after the other and each to its end: whoever is cancelled while one runs
        still gets its result, and is cancelled then."""
        for work in works:
            task = self.in_background(work)
            try:
                result = await asyncio.shield(task)
            except asyncio.CancelledError:
                yield await task
                raise
            yield result

    # --- secrets ----------------------------------------------------------------------------------------------------

    @cached_property
    def keys(self) -> Keys:
        """The secret key, and what is derived from it. In dev mode it is made on first use and kept in a file."""
        secret = self.settings.secret_key.get_secret_value() if self.settings.secret_key else None
        if secret is None and self.settings.mode == "dev":
            secret = load_or_create_key_file(self.settings.data_folder / KEY_FILE)
        files = [self.settings.jwt.key_file, *self.settings.jwt.retired_key_files]
        return Keys(secret, signing=[key for file in files if file for key in load_signing_keys(file)])

    @cached_property
    def tokens(self) -> Tokens:
        jwt = self.settings.jwt
        return Tokens(
            self.keys,
            issuer=self.settings.issuer,
            audience=jwt.audience,
            ttl_seconds=jwt.ttl,
            algorithm=jwt.algorithm,
            clock=self.clock,
        )

    @cached_property
    def cursors(self) -> Cursors:
        return Cursors(self.keys.derived("cursor"))

    @cached_property
    def passwords(self) -> Passwords:
        settings = self.settings.passwords
        return Passwords(
            memory_kib=settings.memory_kib,
            iterations=settings.iterations,
            parallelism=settings.parallelism,
            min_length=settings.min_length,
            threads=max(1, (os.cpu_count() or 1) // self._processes),
        )

    @cached_property
    def throttles(self) -> Attempts:
        return Throttles(clock=self.clock)
