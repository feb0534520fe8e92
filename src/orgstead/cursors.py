"""Opaque cursors of lists: the position after which a list goes on, signed and bound to the list it belongs to.

A cursor is accepted only with the binding it was made for (route, organization, filter, order), so that it cannot be
taken to another list or organization, and only unaltered, in the one spelling it has.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from orgstead.base64url import from_base64url, to_base64url
from orgstead.errors import InvalidCursor

Value = str | int | float | bool | None | datetime
"""What a position is made of: the values that a list is ordered by. Times are UTC to the millisecond."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAC_BYTES = 16


class Cursors:
    """Makes and reads cursors with ``key`` (the key derived for "cursor")."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, values: Sequence[Value], binding: Sequence[str]) -> str:
        """The cursor of the position ``values`` in the list that ``binding`` names."""
        position = json.dumps([_plain(value) for value in values], separators=(",", ":"))
        text = to_base64url(position.encode())
        return f"{text}.{self._mac(text, binding)}"

    def decode(self, cursor: str, binding: Sequence[str]) -> list[Value]:
        """The position. Raises ``InvalidCursor`` for anything but a cursor that was made with this binding."""
        text, _, mac = cursor.partition(".")
        if not cursor.isascii() or not hmac.compare_digest(mac, self._mac(text, binding)):
            raise InvalidCursor
        position: list[Any] = json.loads(from_base64url(text))
        return [_EPOCH + timedelta(milliseconds=item["ms"]) if isinstance(item, dict) else item for item in position]

    def _mac(self, text: str, binding: Sequence[str]) -> str:
        """Over a JSON list, whose quoting keeps ``("a", "bc")`` and ``("ab", "c")`` apart."""
        message = json.dumps([text, *binding]).encode()
        return to_base64url(hmac.new(self._key, message, hashlib.sha256).digest()[:_MAC_BYTES])


def _plain(value: Value) -> object:
    return {"ms": (value - _EPOCH) // timedelta(milliseconds=1)} if isinstance(value, datetime) else value
