"""The code blocks of pages, for tests that run them, and what such commands print."""

from __future__ import annotations

import json
import re
from typing import Any

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def languages(page: str) -> list[str]:
    """The language of each block, in their order."""
    return [language for language, _ in _BLOCK.findall(page)]


def snippets(page: str, language: str = "sh") -> list[str]:
    """The blocks of this language, in their order."""
    return [code for found, code in _BLOCK.findall(page) if found == language]


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a command's output, in their order."""
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        value, end = decoder.raw_decode(text, at)
        found.append(value)
        at = text.find("{", end)
    return found
