"""HEAD: the headers of a GET, without its body (RFC 9110 §9.3.2), for every route that has GET."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from orgstead.api.limits import Application, Message, Receive, Scope, Send

IS_HEAD: Final = "orgstead.head"
"""What a scope has that was a HEAD: an answer without an end would never be one."""


class Heads:
    """Hands HEAD to the routes as GET and drops the body of the answer."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI 3. Only HEAD costs a coroutine of its own."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return self._app(scope, receive, send)
        return self._head(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        as_get = {**scope, "method": "GET", IS_HEAD: True}
        try:
            await self._app(as_get, receive, without_body)
        finally:
            # The route that took the request, for log and metrics.
            scope["route"] = as_get.get("route")
