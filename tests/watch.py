"""A clock that tests set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Watch:
    """Gives the time it was set to, in UTC to the millisecond."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 23, 10, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, **spans: float) -> None:
        """``advance(days=1, seconds=2)``"""
        self.moment += timedelta(**spans)
