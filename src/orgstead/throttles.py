"""Brute-force protection: how many wrong passwords may be tried, for an account and from an address.

The service's sign-up token is guarded in the same way, as the password of an account that is nobody's.

An attempt is reserved before the costly hash, so that parallel guesses cannot race past a limit, and only wrong ones
count. Three limits hold over a window of time:

* ``pair``: one account from one address;
* ``address``: all accounts from one address (password spraying);
* ``account``: one account from all addresses that it has not lately been used from. Beyond it such an address is left
  ``unfamiliar_pair`` attempts of its own, and familiar ones are left alone. So guesses spread over many addresses get
  almost nowhere, and still nobody can lock the account's owner out (security.md R09).

Counters live in the memory of one process and are bounded. They are counted here rather than by the ``limits``
library: its memory storage starts a thread for each expiry, reads the wall clock itself and grows without bound, and
it knows no reservations.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from orgstead.errors import Overloaded, RateLimited, Unavailable
from orgstead.kit import Clock, now

_IPV6_PREFIX = 64
_MAX_KEY_LENGTH = 320


class Attempt:
    """One reserved attempt. It counts as wrong unless ``succeeded`` is called before it ends."""

    def __init__(self) -> None:
        self.right = False

    def succeeded(self) -> None:
        """The password was right: nothing is counted, and the address is familiar to the account from now on."""
        self.right = True


class Attempts(Protocol):
    """Where attempts are reserved: the counters themselves, or the way to those of another process."""

    def attempt(self, account: str, address: str | None) -> AbstractAsyncContextManager[Attempt]:
        """As ``Throttles.attempt``."""


class Throttles:
    """The counters. Limits are numbers of wrong attempts within ``window_seconds`` of the first.

    ``familiar_seconds`` is how long an address stays familiar after a success. ``max_wait_seconds`` is how long an
    attempt waits for others, whose outcome decides whether it is still allowed. ``capacity`` bounds the counters, and
    the familiar addresses, that are remembered; the oldest are forgotten. Not thread-safe: of one event loop.
    """

    def __init__(
        self,
        *,
        pair: int = 10,
        address: int = 100,
        account: int = 50,
        unfamiliar_pair: int = 2,
        window_seconds: float = 15 * 60,
        familiar_seconds: float = 30 * 24 * 3600,
        max_wait_seconds: float = 1.0,
        capacity: int = 100_000,
        clock: Clock = now,
    ) -> None:
        self._pair = pair
        self._address = address
        self._account = account
        self._unfamiliar_pair = unfamiliar_pair
        self._window = window_seconds
        self._familiar_for = familiar_seconds
        self._max_wait = max_wait_seconds
        self._capacity = capacity
        self._clock = clock
        self._wrong: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()
        self._familiar: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def attempt(self, account: str, address: str | None) -> AsyncIterator[Attempt]:
        """Reserve an attempt on ``account`` (any text that names it, whether it exists or not) from ``address``.

        The attempt ends with the block. It counts as wrong unless it succeeded, or the block raised ``Unavailable``,
        because then no password was compared. Raises ``RateLimited`` when a limit is reached, and ``Overloaded`` when
        the attempts that are running could still reach it and take too long.
        """
        pair = (account[:_MAX_KEY_LENGTH], network_of(address))
        counters = await self._reserved(pair)
        attempt = Attempt()
        counts = True
        try:
            yield attempt
        except Unavailable:
            counts = False
            raise
        finally:
            for counter in counters:
                self._running[counter] -= 1
                if not self._running[counter]:
                    del self._running[counter]
            if attempt.right:
                self._remember(pair)
            elif counts:
                for counter in counters:
                    self._count(counter)
            self._wake()

    async def _reserved(self, pair: tuple[str, str]) -> tuple[Hashable, ...]:
        """The counters of a new attempt, each with a place taken; waits while running attempts hold the last places."""
        try:
            async with asyncio.timeout(self._max_wait):
                while not self._free(limits := self._limits(pair)):
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(turn)
                    await turn
        except TimeoutError:
            raise Overloaded("Too many attempts at once; retry after a moment.", retry_after=1) from None
        self._running.update(limits.keys())
        return tuple(limits)

    def _limits(self, pair: tuple[str, str]) -> dict[Hashable, int]:
        """The counters that an attempt of this pair takes a place in, and what bounds each of them."""
        account, address = pair
        if self._familiar.get(pair, 0) > self._clock().timestamp():
            return {("pair", pair): self._pair, ("address", address): self._address}
        beyond = self._wrongs(("account", account))[0] >= self._account
        own = self._unfamiliar_pair if beyond else self._pair
        limits: dict[Hashable, int] = {("pair", pair): own, ("address", address): self._address}
        return limits if beyond else {**limits, ("account", account): self._account}

    def _free(self, limits: dict[Hashable, int]) -> bool:
        """Is there a place in every counter? Raises ``RateLimited`` where no running attempt can free one."""
        for counter, limit in limits.items():
            wrong, left = self._wrongs(counter)
            if wrong >= limit:
                raise RateLimited(
                    "Too many wrong passwords or tokens; wait as long as Retry-After says.", retry_after=math.ceil(left)
                )
        return all(self._wrongs(counter)[0] + self._running[counter] < limit for counter, limit in limits.items())

    def _wrongs(self, counter: Hashable) -> tuple[int, float]:
        """The wrong attempts in the present window, and the seconds left of it.

        A window that ends later than a whole one from now was begun before the clock was set back: it is over too.
        """
        count, ends = self._wrong.get(counter, (0, 0.0))
        left = ends - self._clock().timestamp()
        return (count, left) if 0 < left <= self._window else (0, 0.0)

    def _count(self, counter: Hashable) -> None:
        count, left = self._wrongs(counter)
        moment = self._clock().timestamp()
        if not count:
            self._wrong.pop(counter, None)
            left = self._window
        self._wrong[counter] = (count + 1, moment + left)
        while len(self._wrong) > self._capacity or next(iter(self._wrong.values()))[1] <= moment:
            self._wrong.popitem(last=False)

    def _remember(self, pair: tuple[str, str]) -> None:
        self._familiar[pair] = self._clock().timestamp() + self._familiar_for
        self._familiar.move_to_end(pair)
        while len(self._familiar) > self._capacity:
            self._familiar.popitem(last=False)

    def _wake(self) -> None:
        """Let those who wait look again, in the order they came."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


def network_of(address: str | None) -> str:
    """Who an address is counted as: an IPv4 address itself, an IPv6 one with its /64, which is one customer's."""
    if address is None:
        return "local"
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:_MAX_KEY_LENGTH]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), _IPV6_PREFIX), strict=False))
