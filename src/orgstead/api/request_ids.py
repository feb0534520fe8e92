"""The id under which a request is found again: in its answer, its log lines and its audit entries."""

from __future__ import annotations

import os
import re

_SANE = re.compile(rb"[A-Za-z0-9._-]{8,64}")


def new_request_id() -> str:
    """``req_`` and 24 random hexadecimal digits."""
    return f"req_{os.urandom(12).hex()}"


def request_id_of(given: bytes | None) -> str:
    """The client's own ``X-Request-Id`` if it is one that can be logged and searched for, else a new one."""
    if given is not None and _SANE.fullmatch(given):
        return given.decode("ascii")
    return new_request_id()
