"""JSON as strict as the API promises, at the cost of a parse and little more.

Parsers disagree about what RFC 8259 leaves open (duplicate keys, huge numbers, lone surrogates), and a value that two
readers understand differently is a way around a check. Whatever is open is refused here.

orjson already refuses what is not UTF-8, byte order marks, NaN, Infinity, floats that overflow, lone surrogates and
raw control characters. What it lets through is found by counting: a cheap count proves most documents clean, and only
the others are looked at closely.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson

from orgstead.errors import MalformedRequest

MAX_DEPTH = 32
"""Arrays and objects inside one another."""

MAX_MEMBERS = 10_000
"""Members of all objects and items of all arrays together."""

_NUL = b"\\u0000"
_DIGITS_TO_ZERO = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LONG_DIGITS = b"0" * 19  # int64 ends at 9223372036854775807: nineteen digits
_NUMBER = re.compile(rb"(-?[0-9]+)([.eE][-+.eE0-9]*)?")
_CONTAINERS = (dict, list)
_TOO_DEEP = f"The body is nested more than {MAX_DEPTH} levels deep."
_LIMITS = {
    "depth limit exceeded": _TOO_DEEP,
    "number is infinity when parsed as double": "A number in the body does not fit into 64 bits.",
}
"""What the parser says of its own limits -> what is wrong: the syntax is not."""


def decode(body: bytes, *, max_members: int = MAX_MEMBERS) -> object:
    """The value that ``body`` (UTF-8) says, whatever its type.

    Raises MalformedRequest for anything that is not one JSON value, and for duplicate keys, integers beyond int64,
    numbers beyond a double, lone surrogates and NUL (escaped or not, in keys and values), more than MAX_DEPTH levels,
    more than ``max_members`` members. The detail never repeats the input.
    """
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        syntax = f"The body is not valid JSON in UTF-8 (line {error.lineno}, column {error.colno})."
        raise MalformedRequest(_LIMITS.get(error.msg, syntax)) from None
    if _NUL in body or _LONG_DIGITS in body.translate(_DIGITS_TO_ZERO):
        _refuse_nul_and_huge_integers(body)
    containers = body.count(b"{") + body.count(b"[")
    if (
        containers <= MAX_DEPTH
        and containers + body.count(b",") <= max_members
        and b"\\" not in body
        and orjson.dumps(value).count(b":") == body.count(b":")
    ):
        # What is inside strings makes the first two counts too high, never too low. Without escapes a member that was
        # dropped has left a colon behind. So all is well, and nearly always: nobody need look closely.
        return value
    members, keys = _walk(value)
    if members > max_members:
        raise MalformedRequest(f"The body has more than {max_members} members.")
    # Every key has its colon. Colons inside strings make the first count too high, never too low.
    if body.count(b":") != keys and _outside_strings(body).count(b":") != keys:
        raise MalformedRequest("An object in the body has the same member twice.")
    return value


def _walk(value: object) -> tuple[int, int]:
    """Members in all, and how many of them have keys; by levels, so that depth costs no recursion."""
    members = keys = depth = 0
    level = [value] if isinstance(value, _CONTAINERS) else []
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise MalformedRequest(_TOO_DEEP)
        below: list[dict[str, object] | list[object]] = []
        for node in level:
            members += len(node)
            children: Iterable[object] = node
            if isinstance(node, dict):
                keys += len(node)
                children = node.values()
            for child in children:
                if isinstance(child, _CONTAINERS):
                    below.append(child)
        level = below
    return members, keys


def _outside_strings(body: bytes) -> bytes:
    """What of a valid document is not text. Without escaped backslashes and quotes, quotes come in pairs."""
    return b" ".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _refuse_nul_and_huge_integers(body: bytes) -> None:
    """Both exactly: ``\\\\u0000`` is a backslash and text, and long digits may be of a string or of a fraction."""
    if _NUL in body.replace(b"\\\\", b""):
        raise MalformedRequest("A text in the body has the character NUL, which cannot be stored.")
    for number in _NUMBER.finditer(_outside_strings(body)):
        digits, fraction = number.groups()
        # orjson has refused what a double cannot hold, so that these are a few hundred digits at most.
        if fraction is None and not -(2**63) <= int(digits) < 2**63:
            raise MalformedRequest("An integer in the body does not fit into 64 bits.")
