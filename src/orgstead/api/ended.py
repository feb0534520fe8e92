"""What is known of a request that has ended: for its line in the log, and for the metrics."""

from __future__ import annotations

from typing import TypeAlias

Ended: TypeAlias = tuple[int, str, str, str, str, int, float, str]
"""When it ended, in nanoseconds since 1970; its id; method; path without the query, which may carry what must not be
written down; the template of its route; status; seconds that it took; address of the client, empty where none is known.

A plain tuple, because every request makes one, and they are looked at many at a time.
"""
