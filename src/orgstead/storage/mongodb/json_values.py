"""JSON values as BSON and back, exactly: documents that people and tools can read and query.

BSON keeps null, booleans, text, 64-bit integers, floats, arrays and documents as they are. Only some keys mean
something else to the server or its tools, so that these are written otherwise: ``%`` becomes ``%25``, ``.`` becomes
``%2E``, a leading ``$`` becomes ``%24``, and the empty key a lone ``%``.
"""

from __future__ import annotations

import re
from typing import Any

_EMPTY = "%"
_CODES = {"%": "%25", ".": "%2E", "$": "%24"}
_MARKED = re.compile(r"[%.]|\A\$")
_CODED = re.compile(r"%(25|2E|24)")
_CHARACTERS = {code[1:]: character for character, code in _CODES.items()}


def escaped(value: Any) -> Any:
    """``value`` with keys that any server keeps; parts without such keys are passed on as they are."""
    if type(value) is dict:
        return {escaped_key(key): escaped(item) for key, item in value.items()}
    if type(value) is list:
        return [escaped(item) for item in value]
    return value


def unescaped(value: Any) -> Any:
    """What ``escaped`` was given."""
    if type(value) is dict:
        return {unescaped_key(key) if "%" in key else key: unescaped(item) for key, item in value.items()}
    if type(value) is list:
        return [unescaped(item) for item in value]
    return value


def escaped_key(key: str) -> str:
    """The key as it is stored."""
    if not key:
        return _EMPTY
    return _MARKED.sub(lambda found: _CODES[found.group()], key)


def unescaped_key(key: str) -> str:
    """The key as it was given."""
    return "" if key == _EMPTY else _CODED.sub(lambda found: _CHARACTERS[found.group(1)], key)
