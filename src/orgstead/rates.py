"""Request rates: how many requests an organization may make, so that one cannot take the others' time.

Each organization has a bucket of tokens that fills at its plan's rate and holds two seconds' worth; a request takes
one. Buckets live in the memory of one process, and are bounded: of several processes each allows the whole rate, so
that a limit is never stricter than the plan says, and at most as many times as high as there are processes. Counting
together would cost every request a write, which is more than most requests cost.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from orgstead.errors import RateLimited

BURST_SECONDS: Final = 2.0
"""A bucket holds what comes in so many seconds, and one token at least."""


class _Bucket:
    __slots__ = ("at", "rate", "size", "tokens")

    def __init__(self, rate: float, at: float) -> None:
        self.rate = rate
        self.size = max(1.0, rate * BURST_SECONDS)
        self.tokens = self.size
        self.at = at


class Rates:
    """The buckets of one process.

    ``spend`` comes before anything is read for a request, and so knows the organization, but not its plan: the rate is
    the one that ``learn`` was last told, and an organization that nobody told of passes. ``ticks`` gives seconds that
    never go back. ``capacity`` bounds the buckets; the one longest unused is forgotten, and full when it is met again.
    """

    def __init__(self, *, ticks: Callable[[], float] = time.monotonic, capacity: int = 100_000) -> None:
        self._ticks = ticks
        self._capacity = capacity
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._quiet_from = 0.0

    def are_quiet(self) -> bool:
        """True when surely no organization has used up its rate, so that nobody need be looked at."""
        return self._ticks() >= self._quiet_from

    def check(self, org_id: str) -> None:
        """Raise what ``spend`` would raise now, and take nothing."""
        bucket = self._buckets.get(org_id)
        if bucket is not None and bucket.tokens < 1:  # as of the last request: by now there may be more, never fewer
            self._filled(org_id)

    def spend(self, org_id: str) -> None:
        """Take the token of one request. Raises ``RateLimited``, with the seconds until there is one."""
        bucket = self._filled(org_id)
        if bucket is not None:
            self._take(bucket)
            self._buckets.move_to_end(org_id)

    def _take(self, bucket: _Bucket) -> None:
        bucket.tokens -= 1
        if bucket.tokens < 1:
            self._quiet_from = max(self._quiet_from, bucket.at + (1 - bucket.tokens) / bucket.rate)

    def _filled(self, org_id: str) -> _Bucket | None:
        """The organization's bucket as it is now, with a token in it. Raises ``RateLimited``."""
        bucket = self._buckets.get(org_id)
        if bucket is None:
            return None
        now = self._ticks()
        bucket.tokens = min(bucket.size, bucket.tokens + (now - bucket.at) * bucket.rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise RateLimited(
                f"The organization's plan allows {bucket.rate:g} requests a second; wait as long as Retry-After says.",
                retry_after=(1 - bucket.tokens) / bucket.rate,
            )
        return bucket

    def learn(self, org_id: str, rate: float | None) -> None:
        """Hold the organization to ``rate`` requests a second from now on; None is no limit.

        Called once for each request that ``spend`` let pass and that turned out to be the organization's.
        """
        bucket = self._buckets.get(org_id)
        if bucket is not None and bucket.rate == rate:
            return
        if rate is None:
            self._buckets.pop(org_id, None)
            return
        self._buckets[org_id] = made = _Bucket(rate, self._ticks())
        self._take(made)  # the token of the request that made it known
        while len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)

    def give_back(self, org_id: str) -> None:
        """The request was not the organization's: whoever was removed from one must not use up its rate."""
        bucket = self._buckets.get(org_id)
        if bucket is not None:
            bucket.tokens = min(bucket.size, bucket.tokens + 1)
