"""Answers as bytes that are ready to be sent: FastAPI serializes nothing at run time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.responses import Response

Headers = Iterable[tuple[bytes, bytes]]


class Json(Response):
    """``body`` is JSON already. ``headers`` in ASGI's form: lower-case names, bytes."""

    def __init__(self, body: bytes, status: int = 200, headers: Headers = ()) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]


class Empty(Response):
    """An answer without a body: 204, or 304 with the ``headers`` that the whole answer would have."""

    def __init__(self, status: int = 204, headers: Headers = ()) -> None:
        self.body = b""
        self.status_code = status
        self.background = None
        self.raw_headers = [*headers]


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers in ASGI's form."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
