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
from orgstead.model import MAX_JSON_DEPTH

MAX_MEMBERS = 10_000
"""Members of all objects and items of all arrays together."""

_NUL = b"\\u0000"
_DIGITS_TO_ZERO = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LONG_DIGITS = b"0" * 19  # int64 ends at 9223372036854775807: nineteen digits
_NUMBER = re.compile(rb"(-?[0-9]+)([.eE][-+.eE0-9]*)?")
_CONTAINERS = (dict, list)
_TOO_DEEP = "The {what} is nested more than {levels} levels deep."
_LIMITS = {
    "depth limit exceeded": _TOO_DEEP,
    "number is infinity when parsed as double": "A number in the {what} does not fit into 64 bits.",
}
"""What the parser says of its own limits -> what is wrong: the syntax is not."""


def decode(
    body: bytes, *, what: str = "body", max_members: int | None = MAX_MEMBERS, max_depth: int = MAX_JSON_DEPTH
) -> object:
    """The value that ``body`` (UTF-8) says, whatever its type.

    Raises MalformedRequest for anything that is not one JSON value, and for duplicate keys, integers beyond int64,
    numbers beyond a double, lone surrogates and NUL (escaped or not, in keys and values), more than ``max_depth``
    levels, more than ``max_members`` members. The detail calls it ``what``, and never repeats the input.
    """
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if b"\n" in body else f"column {error.colno}"
        syntax = _not_utf8(body) or f"is not valid JSON ({place})."
        said = _LIMITS.get(error.msg, f"The {{what}} {syntax}")
        raise MalformedRequest(said.format(what=what, levels=max_depth)) from None
    if _NUL in body or _LONG_DIGITS in body.translate(_DIGITS_TO_ZERO):
        _refuse_nul_and_huge_integers(body, what)
    containers = body.count(b"{") + body.count(b"[")
    if (
        containers <= max_depth
        and (max_members is None or containers + body.count(b",") <= max_members)
        and b"\\" not in body
        and orjson.dumps(value).count(b":") == body.count(b":")
    ):
        # What is inside strings makes the first two counts too high, never too low. Without escapes a member that was
        # dropped has left a colon behind. So all is well, and nearly always: nobody need look closely.
        return value
    depth, members, keys = _walk(value, max_depth)
    if depth > max_depth:
        raise MalformedRequest(_TOO_DEEP.format(what=what, levels=max_depth))
    if max_members is not None and members > max_members:
        raise MalformedRequest(f"The {what} has more than {max_members} members.")
    # Every key has its colon. Colons inside strings make the first count too high, never too low.
    if body.count(b":") != keys and _outside_strings(body).count(b":") != keys:
        raise MalformedRequest(f"An object in the {what} has the same member twice.")
    return value


def _not_utf8(body: bytes) -> str | None:
    """What is said of bytes that are no text, of which the parser says no place; None for text."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text (byte {error.start + 1})."
    return None


def _walk(value: object, max_depth: int) -> tuple[int, int, int]:
    """Levels, members in all, and how many of them have keys; by levels, so that depth costs no recursion.

    Ends where there are more levels than ``max_depth``.
    """
    members = keys = depth = 0
    level = [value] if isinstance(value, _CONTAINERS) else []
    while level:
        depth += 1
        if depth > max_depth:
            break
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
    return depth, members, keys


def _outside_strings(body: bytes) -> bytes:
    """What of a valid document is not text. Without escaped backslashes and quotes, quotes come in pairs."""
    return b" ".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _refuse_nul_and_huge_integers(body: bytes, what: str) -> None:
    """Both exactly: ``\\\\u0000`` is a backslash and text, and long digits may be of a string or of a fraction."""
    if _NUL in body.replace(b"\\\\", b""):
        raise MalformedRequest(f"A text in the {what} has the character NUL, which cannot be stored.")
    for number in _NUMBER.finditer(_outside_strings(body)):
        digits, fraction = number.groups()
        # orjson has refused what a double cannot hold, so that these are a few hundred digits at most.
        if fraction is None and not -(2**63) <= int(digits) < 2**63:
            raise MalformedRequest(f"An integer in the {what} does not fit into 64 bits.")
