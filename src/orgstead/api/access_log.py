"""One line for each request, as JSON, many at a time: a write for every line would cost more than the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from orgstead.api.ended import Ended

_encoder: Final = msgspec.json.Encoder()


def lines(requests: Sequence[Ended]) -> bytes:
    """The lines, each with its end. JSON escapes control characters, so that nothing in a path can forge a line."""
    try:
        return _encoder.encode_lines(requests)
    except UnicodeEncodeError:
        return b"".join(map(_line, requests))


def _line(ended: Ended) -> bytes:
    try:
        return _encoder.encode_lines((ended,))
    except UnicodeEncodeError:
        # Some servers decode a path into text that has no UTF-8.
        fields = msgspec.structs.asdict(ended)
        return _encoder.encode_lines(({name: _text(value) for name, value in fields.items()},))


def _text(value: object) -> object:
    return value if not isinstance(value, str) or value.isprintable() else ascii(value)
