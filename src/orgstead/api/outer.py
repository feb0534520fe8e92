"""The outermost layer of the API, pure ASGI: everything that holds for every request, whatever its route.

It is one layer because each further one costs every request a coroutine and two wrapped callables. What it does is
in the modules that it calls, one for each subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Final

import structlog

from orgstead.api.deadlines import Deadlines, current_task
from orgstead.api.ended import LONGEST_PATH, Ended, EndedRequests
from orgstead.api.errors import Rendered
from orgstead.api.hosts import Hosts
from orgstead.api.limits import (
    FIELDS,
    WITHOUT_BODY,
    Application,
    BodyOptions,
    BodyReader,
    Disconnected,
    Receive,
    Scope,
    Send,
)
from orgstead.api.outgoing import Outgoing, outgoing
from orgstead.api.proxies import Network, Proxies
from orgstead.api.request_ids import new_request_id, request_id_of
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
    ``max_target_bytes`` bounds the decoded path and the query together."""

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
        ended: EndedRequests | None = None,
        admit: Admit | None = None,
    ) -> None:
        self._app = app
        self._render = render
        self._ended = ended
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
        began = perf_counter_ns()
        headers, path = scope["headers"], scope["path"]
        fields = dict(headers)
        given = fields.get(b"x-request-id")
        request_id = request_id_of(given) if given else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        answer, send = outgoing(scope, send)
        answer.lines = b"x-request-id: %b\r\n%b" % (request_id.encode(), self._security.of(path))
        answer.uncached = self._security.uncached
        task = current_task()
        try:
            if len(fields) == len(headers):
                scope[FIELDS] = fields
            else:
                _join_repeated(headers, fields)
            query = scope["query_string"]
            if len(path) + len(query) > self._max_target:
                raise UriTooLong
            if path[:1] != "/" or "\x00" in path or b"%00" in query:
                raise MalformedRequest("The request target must be a path, without NUL in it or in its query.")
            self._hosts.check(fields.get(b"host"))
            if b"x-forwarded-for" in fields and scope["client"]:
                peer, port = scope["client"]
                scope["client"] = (self._proxies.client(peer, fields[b"x-forwarded-for"]), port)
            if self._admit is not None:
                self._admit(path, fields)
            # Nearly every request without a body is spared the coroutine that would find out.
            if scope["method"] not in WITHOUT_BODY or b"content-length" in fields or b"transfer-encoding" in fields:
                receive = await self._bodies.read(scope["method"], fields, receive, path=path, task=task)
            self._deadlines.enter(task, answer)
            try:
                await self._app(scope, receive, send)
            except BaseException:
                if self._deadlines.leave(task) and not answer.status:
                    raise DeadlineExceeded from None
                raise
            self._deadlines.leave(task)
        except Disconnected:
            pass
        except OrgsteadError as error:
            await self._refuse(error, request_id, answer, send)
        except asyncio.CancelledError:
            # The server stops and will not wait any longer.
            await self._refuse(Unavailable(), request_id, answer, send)
            raise
        except Exception:
            _log.exception("request_failed", request_id=request_id)
            await self._refuse(InternalError(), request_id, answer, send)
        finally:
            self._account(scope, request_id, answer.status, began)

    async def _refuse(self, error: OrgsteadError, request_id: str, answer: Outgoing, send: Send) -> None:
        """Answer with a problem, unless an answer has begun: then the server ends the connection instead."""
        if not answer.status:
            status, headers, body = self._render(error, request_id)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _account(self, scope: Scope, request_id: str, status: int, began: int) -> None:
        if self._ended is None:
            return
        client = scope["client"]
        self._ended.add(
            Ended(
                time=datetime.now(UTC),
                request_id=request_id,
                method=scope["method"],
                path=scope["path"][:LONGEST_PATH],
                # The whole template only where routes are declared with their whole paths: FastAPI's route does not
                # know the prefix that it was included under.
                route=getattr(scope.get("route"), "path", UNMATCHED),
                status=status or CLIENT_GONE,
                duration_ms=(perf_counter_ns() - began) // 1000 / 1000,
                client=client[0] if client else "",
            )
        )


def _join_repeated(headers: Iterable[tuple[bytes, bytes]], fields: dict[bytes, bytes]) -> None:
    """Judge repeated headers; ``fields``, which has the last of each, gets X-Forwarded-For as the list that it is."""
    names = [name for name, _ in headers]
    if names.count(b"host") > 1:
        raise UnknownHost
    if any(names.count(name) > 1 for name in _AT_MOST_ONCE):
        raise MalformedRequest("A header that may be given once was given more than once.")
    if b"x-forwarded-for" in fields:
        fields[b"x-forwarded-for"] = b",".join(value for name, value in headers if name == b"x-forwarded-for")
