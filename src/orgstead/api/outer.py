"""The outermost layer of the API, pure ASGI: everything that holds for every request, whatever its route.

It is one layer because each further one costs every request a coroutine and two wrapped callables. What it does is
in the modules that it calls, one for each subject.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from orgstead.api.access_log import AccessLog
from orgstead.api.deadlines import Deadlines, current_task
from orgstead.api.ended import Ended
from orgstead.api.errors import Rendered
from orgstead.api.hosts import Hosts
from orgstead.api.limits import (
    AS_LINES,
    Application,
    BodyOptions,
    BodyReader,
    Disconnected,
    Message,
    Receive,
    Scope,
    Send,
)
from orgstead.api.metrics import RequestMetrics
from orgstead.api.proxies import Network, Proxies
from orgstead.api.request_ids import request_id_of
from orgstead.api.security_headers import SecurityHeaders
from orgstead.errors import (
    DeadlineExceeded,
    InternalError,
    MalformedRequest,
    OrgsteadError,
    Unavailable,
    UnknownHost,
    UriTooLong,
)

Render = Callable[[OrgsteadError, str], Rendered]
Admit = Callable[[str, Mapping[bytes, bytes]], None]
"""Raises for a request that is refused by its path and headers (by lower-case name) alone, before its body is read."""

CLIENT_GONE: Final = 499
"""What log and metrics call the status of a request, whose client left before there was an answer."""

UNMATCHED: Final = "unmatched"
"""The route of requests that no route took, or that were refused before one was looked for."""

_AT_MOST_ONCE = frozenset(
    {b"content-length", b"content-type", b"content-encoding", b"idempotency-key", b"last-event-id"}
)

_log = structlog.get_logger("orgstead.http")


@dataclass(frozen=True, slots=True)
class OuterOptions:
    """``allowed_hosts`` as in Hosts, ``trusted_proxies`` as in Proxies, ``https`` and ``docs_path`` as in
    SecurityHeaders; ``deadline_seconds`` runs from when the body is there until the answer begins;
    ``max_target_bytes`` bounds path and query together."""

    allowed_hosts: Sequence[str]
    trusted_proxies: Sequence[Network] = ()
    https: bool = False
    docs_path: str = "/docs"
    deadline_seconds: float = 10.0
    max_target_bytes: int = 8192
    body: BodyOptions = field(default_factory=BodyOptions)


class Outer:
    """Wraps an ASGI application; ``scope["state"]["request_id"]`` and ``scope["client"]`` are set for it.

    Every failure becomes an answer: OrgsteadError by ``render``, anything else logged with its traceback and answered
    with InternalError, which says nothing of the cause.
    """

    def __init__(
        self,
        app: Application,
        options: OuterOptions,
        *,
        render: Render,
        access_log: AccessLog | None = None,
        metrics: RequestMetrics | None = None,
        admit: Admit | None = None,
    ) -> None:
        self._app = app
        self._render = render
        self._access_log = access_log
        self._metrics = metrics
        self._admit = admit
        self._max_target = options.max_target_bytes
        self._hosts = Hosts(options.allowed_hosts)
        self._proxies = Proxies(options.trusted_proxies)
        self._bodies = BodyReader(options.body)
        self._deadlines = Deadlines(options.deadline_seconds)
        self._security = SecurityHeaders(https=options.https, docs_path=options.docs_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. Only http is checked; lifespan passes through, and there are no websockets."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        fields = dict(scope["headers"])
        request_id = request_id_of(fields.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        task = current_task()
        answer = _Answer(send, task, self._deadlines, self._security, scope["path"], request_id)
        try:
            if len(fields) != len(scope["headers"]):
                _join_repeated(scope["headers"], fields)
            self._check_target(scope)
            self._hosts.check(fields.get(b"host"))
            if b"x-forwarded-for" in fields and scope["client"]:
                peer, port = scope["client"]
                scope["client"] = (self._proxies.client(peer, fields[b"x-forwarded-for"]), port)
            if self._admit is not None:
                self._admit(scope["path"], fields)
            if not self._bodies.has_none(scope["method"], fields):
                receive = await self._bodies.read(scope["method"], fields, receive, path=scope["path"])
            self._deadlines.enter(task)
            try:
                await self._app(scope, receive, answer.send)
            except BaseException:
                if self._deadlines.leave(task) and not answer.status:
                    raise DeadlineExceeded from None
                raise
            if not answer.status:
                self._deadlines.leave(task)
        except Disconnected:
            pass
        except OrgsteadError as error:
            await answer.refuse(self._render(error, request_id))
        except asyncio.CancelledError:
            # The server stops and will not wait any longer.
            await answer.refuse(self._render(Unavailable(), request_id))
            raise
        except Exception:
            _log.exception("request_failed", request_id=request_id)
            await answer.refuse(self._render(InternalError(), request_id))
        finally:
            self._account(scope, request_id, answer.status or CLIENT_GONE, time.perf_counter() - began)

    def _check_target(self, scope: Scope) -> None:
        path: str = scope["path"]
        query: bytes = scope["query_string"]
        if len(scope.get("raw_path") or path) + len(query) > self._max_target:
            raise UriTooLong
        if path[:1] != "/" or "\x00" in path or (query and b"%00" in query):
            raise MalformedRequest("The request target must be a path, without NUL in it or in its query.")

    def _account(self, scope: Scope, request_id: str, status: int, duration: float) -> None:
        # The whole template only where routes are declared with their whole paths: FastAPI's route does not know the
        # prefix that it was included under.
        route = getattr(scope.get("route"), "path", UNMATCHED)
        client = scope["client"][0] if scope["client"] else ""
        ended = Ended(
            moment=time.time_ns(),
            request_id=request_id,
            method=scope["method"],
            path=scope["path"],
            route=route,
            status=status,
            duration=duration,
            client=client,
        )
        if self._metrics is not None:
            self._metrics.add(ended)
        if self._access_log is not None:
            self._access_log.add(ended)


class _Answer:
    """The answer to one request. ``status`` is 0 until it begins."""

    __slots__ = ("_deadlines", "_path", "_request_id", "_security", "_send", "_task", "status")

    def __init__(
        self,
        send: Send,
        task: asyncio.Task[object],
        deadlines: Deadlines,
        security: SecurityHeaders,
        path: str,
        request_id: str,
    ) -> None:
        self._send = send
        self._task = task
        self._deadlines = deadlines
        self._security = security
        self._path = path
        self._request_id = request_id
        self.status = 0

    def send(self, message: Message) -> Awaitable[None]:
        """What the application is given as ``send``. An answer that has begun has no deadline: it may be a long one."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._deadlines.leave(self._task)
            headers = list(message.get("headers", ()))
            request_id = self._request_id.encode("ascii")
            added = self._security.of(self._path, headers)
            message["headers"] = [*headers, (b"x-request-id", request_id), *added.headers]
            message[AS_LINES] = len(headers), b"x-request-id: %b\r\n%b" % (request_id, added.lines)
        return self._send(message)

    async def refuse(self, rendered: Rendered) -> None:
        """Answer with a problem, unless an answer has begun: then the server ends the connection instead."""
        if not self.status:
            status, headers, body = rendered
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})


def _join_repeated(headers: Iterable[tuple[bytes, bytes]], fields: dict[bytes, bytes]) -> None:
    """Judge repeated headers; ``fields``, which has the last of each, gets X-Forwarded-For as the list that it is."""
    names = [name for name, _ in headers]
    if names.count(b"host") > 1:
        raise UnknownHost
    if any(names.count(name) > 1 for name in _AT_MOST_ONCE):
        raise MalformedRequest("A header that may be given once was given more than once.")
    if b"x-forwarded-for" in fields:
        fields[b"x-forwarded-for"] = b",".join(value for name, value in headers if name == b"x-forwarded-for")
