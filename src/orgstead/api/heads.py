"""HEAD: the headers of a GET, without its body (RFC 9110 §9.3.2), for every route that has GET."""

from __future__ import annotations

from typing import Final

from orgstead.api.limits import Application, Message, Receive, Scope, Send

IS_HEAD: Final = "orgstead.head"
"""What a scope has that was a HEAD: an answer without an end would never be one."""


async def as_get(app: Application, scope: Scope, receive: Receive, send: Send) -> None:
    """Hand a HEAD to ``app`` as GET and drop the body of the answer."""

    async def without_body(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    got = {**scope, "method": "GET", IS_HEAD: True}
    try:
        await app(got, receive, without_body)
    finally:
        # The route that took the request, for log and metrics.
        scope["route"] = got.get("route")
