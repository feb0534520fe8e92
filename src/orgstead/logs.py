"""Logging: one structured line per event, as text for people at a terminal or as JSON for machines.

Lines of the standard library's loggers (uvicorn's among them) take the same way. Whatever a line is made of, it stays
one line, and values under names that stand for secrets never leave the process.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import Processor

REDACTED = "********"

_SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|secret|token|authorization|cookie|credential|private_?key|api_?key|seed", re.IGNORECASE
)
_BEARER = re.compile(r"(?i)\bbearer\s+[^\s\"',]+")
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")
_URL_PASSWORD = re.compile(r"(\w+://[^\s/:@]*):[^\s/@]*@")


def configure(
    *,
    format: Literal["auto", "text", "json"] = "auto",
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
    color: bool | None = None,
) -> None:
    """Send every log line of the process to ``stream`` (standard error). May be called again; the last call holds.

    ``format`` auto is text on a terminal and JSON elsewhere. ``color`` None means: as the terminal allows.
    """
    stream = sys.stderr if stream is None else stream
    text = is_text(format, stream)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.stdlib.ExtraAdder(),
        _without_color_message,
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: list[Processor] = (
        [
            one_line,
            structlog.dev.ConsoleRenderer(colors=stream.isatty() if color is None else color, timestamp_key="time"),
        ]
        if text
        else [structlog.processors.JSONRenderer(default=repr)]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        foreign = logging.getLogger(name)
        foreign.handlers = []
        foreign.propagate = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def is_text(format: Literal["auto", "text", "json"], stream: TextIO) -> bool:
    """Whether lines to ``stream`` are text for people; JSON for machines otherwise."""
    return format == "text" or (format == "auto" and stream.isatty())


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide values whose name stands for a secret, and bearer tokens, JWTs and URL passwords inside any text."""
    for key, value in event.items():
        event[key] = _clean(key, value)
    return event


def _without_color_message(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """uvicorn attaches its message a second time, with terminal colours."""
    event.pop("color_message", None)
    return event


def _clean(key: str, value: Any) -> Any:
    if _SECRET_NAME.search(key) and value is not None:
        return REDACTED
    match value:
        case str():
            value = _BEARER.sub(f"Bearer {REDACTED}", value)
            return _URL_PASSWORD.sub(rf"\1:{REDACTED}@", _JWT.sub(REDACTED, value))
        case Mapping():
            return {name: _clean(str(name), inner) for name, inner in value.items()}
        case list() | tuple():
            return [_clean("", inner) for inner in value]
    return value


def one_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters, so that no value can begin a line of its own or move a terminal's cursor.

    An exception's trace is ours and keeps its lines; they are indented.
    """
    for key, value in event.items():
        if not isinstance(value, str):
            continue
        if key == "exception":
            event[key] = "\n".join("    " + _escaped(line) for line in value.split("\n"))
        else:
            event[key] = _escaped(value)
    return event


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
