"""What the layer around every route and the server tell each other of an answer, so that no message need be changed.

A layer that adds headers and wants to know the status usually wraps ``send``, and is called for every message. Our
server has this extension of ASGI instead; for any other, ``outgoing`` wraps ``send``.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

import msgspec

from orgstead.api.limits import Message, Scope, Send

Header = tuple[bytes, bytes]

EXTENSION: Final = "orgstead.outgoing"
"""The name in ``scope["extensions"]`` under which a server has the ``Outgoing`` of a request."""


class Outgoing(msgspec.Struct, gc=False):
    """The answer to one request. ``status`` is 0 until the application begins it.

    ``lines`` are headers that every answer gets beside its own: as they are written, with their ends, names in lower
    case. Those in ``uncached`` are for an answer without Cache-Control.
    """

    status: int = 0
    lines: bytes = b""
    uncached: bytes = b""

    def beside(self, own: Container[bytes]) -> bytes:
        """The lines of an answer whose ``own`` headers have these names."""
        return self.lines if b"cache-control" in own else self.lines + self.uncached

    def headers(self, own: Sequence[Header]) -> list[Header]:
        """The headers of an answer that has its ``own``."""
        lines = self.beside(dict(own)).split(b"\r\n")
        return [*own, *((name, value) for name, _, value in (line.partition(b": ") for line in lines if line))]


def outgoing(scope: Scope, send: Send) -> tuple[Outgoing, Send]:
    """The ``Outgoing`` of a request, and what its application is to be given as ``send``."""
    extensions = scope.get("extensions")
    if extensions and EXTENSION in extensions:
        return extensions[EXTENSION], send
    answer = Outgoing()

    async def completing(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            message = {**message, "headers": answer.headers(message.get("headers", ()))}
        await send(message)

    return answer, completing
