"""Values as cells of a CSV file, which a spreadsheet may open: nothing in them is ever run as a formula."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson

from orgstead.kit import rfc3339

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection)."""


def neutralized(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would run it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def data_cell(value: Any) -> str:
    """A JSON value as a cell: text as it is unless it looks like a formula, everything else as JSON; None is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return neutralized(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    return orjson.dumps(value).decode()
