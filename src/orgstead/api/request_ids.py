"""The id under which a request is found again: in its answer, its log lines and its audit entries."""

from __future__ import annotations

import os
import re

_SANE = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_BYTES = 12
_AT_ONCE = 64

_drawn: list[str] = []
"""Ids that nobody has yet: asking the system for random bytes costs more than all the rest of an id."""

os.register_at_fork(after_in_child=_drawn.clear)


def new_request_id() -> str:
    """``req_`` and 24 random hexadecimal digits."""
    try:
        return _drawn.pop()
    except IndexError:
        digits = os.urandom(_BYTES * _AT_ONCE).hex(" ", _BYTES)
        first, *others = f"req_{digits.replace(' ', ' req_')}".split()
        _drawn.extend(others)
        return first


def request_id_of(given: bytes) -> str:
    """The client's own ``X-Request-Id`` if it is one that can be logged and searched for, else a new one."""
    if _SANE.fullmatch(given):
        return given.decode("ascii")
    return new_request_id()
