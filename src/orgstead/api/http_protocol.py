"""uvicorn's HTTP/1.1 protocol with the limits that it lacks: time and size of headers, of what surrounds a body that
comes in chunks, of what is left unread, of a connection that nobody reads from.

uvicorn waits for ever for the rest of a request's head, and holds as much of it as is sent. A few hundred half-sent
requests would hold every connection (slowloris). Here each connection has a time by which its client must have
finished what it is sending; one sweep looks at all of them, because a timer for each request would cost more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from orgstead.api.answering import Cycle
from orgstead.api.errors import render
from orgstead.api.outgoing import EXTENSION, Outgoing
from orgstead.api.request_ids import new_request_id
from orgstead.api.security_headers import SecurityHeaders
from orgstead.errors import (
    HeadersTooLarge,
    MalformedRequest,
    OrgsteadError,
    Overloaded,
    RequestTimeout,
    Unavailable,
    UriTooLong,
)

_FRAMING_PER_BYTE = 8
"""What may surround each byte of a body that comes in chunks, in bytes: five are needed where each is a chunk."""


ON_STOP: Final = "orgstead.on_stop"
"""In the ``state`` of a request's scope: what to call when the server stops while the answer goes on."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Limits of connections; times in seconds, sizes in bytes.

    ``header_seconds`` is the time for a request's head from its first byte, and for the first byte of a connection.
    ``linger_seconds`` and ``max_discarded_bytes`` bound what is still read of a body that was refused, so that its
    sender can finish and find the answer; ``linger_seconds`` also bounds how long a closing connection may go unread.
    ``https`` as in SecurityHeaders, for what is refused here.
    """

    header_seconds: float = 10.0
    linger_seconds: float = 10.0
    max_header_bytes: int = 32_768
    max_headers: int = 100
    max_target_bytes: int = 8192
    max_discarded_bytes: int = 16_777_216
    max_connections: int = 1000
    https: bool = False


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Use a subclass made by ``limited``, which binds ``limits`` and ``security``."""

    limits: ClassVar[ConnectionOptions] = ConnectionOptions()
    security: ClassVar[SecurityHeaders] = SecurityHeaders(https=False)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # When the client must have finished what it is sending, in the loop's time; None while it is our turn.
        self.due: float | None = None
        self.in_head = False
        # What the current head had in earlier chunks, and the chunk that is being parsed.
        self.head_size = 0
        self.chunk_size = 0
        self.head_follows_message = False
        # Of the current body: what was received of it, and with it in sizes and extensions of chunks and in trailers.
        self.in_body = False
        self.body_size = 0
        self.framing_size = 0
        self.discarded = 0
        self.refusal: OrgsteadError | None = None
        # The client asked for another protocol: what follows its request is not HTTP/1.1 and is not read.
        self.deaf = False

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.due = self.loop.time() + self.limits.header_seconds
        if len(self.connections) > self.limits.max_connections and not self._make_room():
            # No lingering: it would hold the connection that there is no room for.
            self._write(Overloaded())
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.deaf:
            self._discard(len(data))
            return
        self.chunk_size = len(data)
        self.head_follows_message = False
        body_before = self.body_size if self.in_body else None
        if self.due is None and self._idle():
            self.due = self.loop.time() + self.limits.header_seconds
        super().data_received(data)
        if self.in_body and body_before is not None:
            # Neither the body reader nor llhttp bounds these, and a trailer is only announced once it has an end.
            self.framing_size += self.chunk_size - (self.body_size - body_before)
            if self.framing_size > self.limits.max_header_bytes + _FRAMING_PER_BYTE * self.body_size:
                if self.cycle.response_complete:
                    self.transport.abort()
                else:
                    self._refuse(MalformedRequest("The chunks of the body are far smaller than what surrounds them."))
        if not self.in_head:
            return
        # llhttp announces a header when it is complete: one without an end is only seen here. Where the head begins in
        # the middle of a chunk, what is known of it so far is counted instead of the chunk.
        self.head_size += self._known_head_size() if self.head_follows_message else self.chunk_size
        if self.head_size > self.limits.max_header_bytes:
            self._refuse(HeadersTooLarge() if len(self.url) <= self.limits.max_target_bytes else UriTooLong())

    def sweep(self, now: float) -> None:
        """Called about once a second: cut the connection if its client is late."""
        if self.due is None:
            if self.transport.is_closing():
                # Closed by uvicorn, with an answer that the client does not read.
                self.due = now + self.limits.linger_seconds
        elif now < self.due:
            return
        elif self.deaf or self.transport.is_closing():
            self.transport.abort()
        elif self._idle():
            if self.in_head:
                self._refuse(RequestTimeout("The request's headers did not arrive in time."))
            else:
                self._close()
        # Else the client is late with a further request while an earlier one is being answered: its turn comes.

    def cut_upload(self) -> None:
        """End the connection if the rest of its client's request is all that is waited for."""
        if self.in_body and not self._idle() and not self.pipeline and not self.transport.is_closing():
            if not self.cycle.response_started:
                self._write(Unavailable())
            self.transport.close()

    def shutdown(self) -> None:
        """By uvicorn when the server stops. An answer that goes on for ever is told to end, and others do as usual."""
        super().shutdown()
        end = self.cycle.scope["state"].get(ON_STOP) if self.cycle is not None else None
        if end is not None:
            end()

    def _make_room(self) -> bool:
        """Close the connection that has been kept alive longest without a request; False where there is none.

        Otherwise one client that leaves its connections open could keep everybody else away.
        """
        kept = [
            (connection.timeout_keep_alive_task.when(), number, connection)
            for number, connection in enumerate(self.connections)
            if isinstance(connection, LimitedProtocol)
            and connection.timeout_keep_alive_task is not None
            and not (connection.in_head or connection.transport.is_closing())
        ]
        if kept:
            min(kept)[-1]._close()
        return bool(kept)

    def _idle(self) -> bool:
        """True when nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: Any = {EXTENSION: Outgoing()}
        self.scope["extensions"] = extensions
        self.in_head = True
        self.in_body = False
        self.head_size = 0
        self.due = self.loop.time() + self.limits.header_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are dropped (RFC 9110 §6.5.1): uvicorn would add them to the headers of a request that has begun,
        # without bound, and past whoever judged those headers.
        if self.in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        limits = self.limits
        if len(self.url) > limits.max_target_bytes:
            self._reject(UriTooLong())
        if len(self.headers) > limits.max_headers or (
            # The sum is an upper bound, and nearly always enough.
            self.head_size + self.chunk_size > limits.max_header_bytes
            and self._known_head_size() > limits.max_header_bytes
        ):
            self._reject(HeadersTooLarge())
        # llhttp reads any list that ends with chunked as if it was chunked alone, in HTTP/1.0, too. Whoever is in front
        # of us may read another end of such a body, and take what follows for another request (RFC 9112 §6.1, §11.2).
        codings = [value.strip(b" \t").lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or self.parser.get_http_version() != "1.1"):
            self._reject(
                MalformedRequest("A body may be sent in chunks (HTTP/1.1), and with no other transfer coding.")
            )
        super().on_headers_complete()
        # uvicorn has no setting for the class of what it has just made and will run from the loop; ours adds no state.
        self.cycle.__class__ = Cycle
        self.in_head = False
        self.in_body = True
        self.body_size = self.framing_size = 0
        self.due = None
        if self.parser.should_upgrade():
            self.deaf = True
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.body_size += len(body)
        if self.cycle.response_complete:
            self._discard(len(body))
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.head_follows_message = True
        self.in_body = False
        if self.cycle.response_complete:
            # The rest of a refused body is there; the connection is in step again.
            self.cycle.more_body = False
            self.discarded = 0
            self.due = self.loop.time() + self.timeout_keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and self.cycle.response_complete and not self.transport.is_closing():
            if self.expect_100_continue:
                # The client may or may not send the body now; only a new connection is surely in step.
                self._close()
            else:
                self.due = self.loop.time() + self.limits.linger_seconds

    # --- refusing ---

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gives up, also because a callback rejected the request."""
        refusal, self.refusal = self.refusal, None
        self._refuse(refusal or MalformedRequest("The request is not valid HTTP/1.1."))

    def _reject(self, error: OrgsteadError) -> None:
        """End parsing from within a callback; ``send_400_response`` then answers with ``error``."""
        self.refusal = error
        raise ValueError(error.code)

    def _refuse(self, error: OrgsteadError) -> None:
        """Answer without an application, and end the connection once the client has had time to read it.

        Closing with unread input would reset the connection, and the client might never see why (RFC 9112 §9.6).
        """
        if self.transport.is_closing():
            return
        self.in_head = False
        self.deaf = True
        self.due = None
        if not self._idle():
            if not self.cycle.more_body:
                # Earlier requests are still being answered; an answer to this one would be taken for theirs.
                self.cycle.keep_alive = False
                return
            # The rest of its own body is broken: to the application the client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._idle() or not self.cycle.response_started:
            self._write(error)
        self.due = self.loop.time() + self.limits.linger_seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _write(self, error: OrgsteadError) -> None:
        request_id = new_request_id()
        status, headers, body = render(error, request_id)
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode("ascii"))]
        # The path may be what could not be read: whatever it was, this is data and no page.
        added = Outgoing(lines=self.security.of(""), uncached=self.security.uncached)
        lines += [name + b": " + value for name, value in (*self.server_state.default_headers, *added.headers(headers))]
        lines += [b"x-request-id: " + request_id.encode("ascii"), b"connection: close", b"", body]
        self.transport.write(b"\r\n".join(lines))

    def _discard(self, size: int) -> None:
        self.discarded += size
        if self.discarded > self.limits.max_discarded_bytes:
            self.transport.abort()

    def _close(self) -> None:
        self.due = self.loop.time() + self.limits.linger_seconds
        self.transport.close()

    def _known_head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)


def limited(options: ConnectionOptions) -> type[LimitedProtocol]:
    """A protocol class with these limits, as uvicorn's ``Config(http=...)`` takes it."""
    bound = {"limits": options, "security": SecurityHeaders(https=options.https)}
    return type("LimitedProtocol", (LimitedProtocol,), bound)
