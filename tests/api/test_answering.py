"""How the heads of answers are written: what uvicorn does, cheaper, and with nothing of its strictness lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from orgstead.api.answering import Cycle, _lines
from orgstead.api.ended import Ended, EndedRequests
from orgstead.api.errors import render
from orgstead.api.http_protocol import LimitedProtocol
from orgstead.api.limits import Application, Receive, Scope, Send
from orgstead.api.outer import Outer, OuterOptions

pytestmark = pytest.mark.anyio

HEADERS = [(b"content-type", b"text/plain"), (b"x-note", b"a"), (b"vary", b"accept")]
LENGTH = (b"content-length", b"2")
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.writes = 0
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data
        self.writes += 1

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def answered(
    protocol: type[HttpToolsProtocol],
    status: int,
    headers: list[tuple[bytes, bytes]],
    request: bytes = GET,
    body: Sequence[bytes] | None = None,
    layer: Callable[[Application], Application] = lambda app: app,
) -> Transport:
    """What becomes of a connection after a request, whose answer has these headers and ``ok`` or ``body`` in parts.
    ``layer`` is put around the application that gives it."""
    parts = body or [b"ok" if status == 200 else b""]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, start=1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    return await written_by(layer(app), protocol, request)


def connected(app: Application, protocol: type[HttpToolsProtocol]) -> tuple[HttpToolsProtocol, Transport]:
    """A connection to a server of ``app``."""
    state = ServerState()
    state.default_headers = [(b"date", b"Mon, 23 Nov 2026 20:00:00 GMT")]
    config = Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    transport = Transport()
    connection = protocol(config, state, {})
    connection.connection_made(transport)
    return connection, transport


async def written_by(app: Application, protocol: type[HttpToolsProtocol], request: bytes) -> Transport:
    """What becomes of a connection that ``app`` has answered the request of."""
    connection, transport = connected(app, protocol)
    connection.data_received(request)
    await asyncio.wait(connection.tasks)
    closed = transport.closed
    connection.connection_lost(None)
    transport.closed = closed  # by the answer
    assert isinstance(connection.cycle, Cycle) is (protocol is LimitedProtocol)
    return transport


IN_ANY_FRAMING = pytest.mark.parametrize(
    ("status", "headers", "request_"),
    [
        pytest.param(200, [*HEADERS, LENGTH], GET, id="usual"),
        pytest.param(200, HEADERS, GET, id="no length"),
        pytest.param(200, [(b"cache-control", b"public"), LENGTH], GET, id="for a cache"),
        pytest.param(200, [(b"cache-control", b"public")], GET, id="for a cache, no length"),
        pytest.param(200, [*HEADERS, (b"transfer-encoding", b"chunked")], GET, id="chunked"),
        pytest.param(200, [*HEADERS, LENGTH, (b"transfer-encoding", b"chunked")], GET, id="chunked with a length"),
        pytest.param(200, [LENGTH, (b"connection", b"close")], GET, id="close"),
        pytest.param(200, [*HEADERS, LENGTH], b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", id="HTTP/1.0"),
        pytest.param(200, [*HEADERS, LENGTH], GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), id="closing"),
        pytest.param(200, [*HEADERS, LENGTH], GET.replace(b"GET", b"HEAD"), id="HEAD"),
        pytest.param(204, HEADERS, GET, id="204"),
        pytest.param(304, [(b"etag", b'"1"')], GET, id="304"),
    ],
)


@IN_ANY_FRAMING
async def test_an_answer_is_written_as_uvicorn_would_write_it(
    status: int, headers: list[tuple[bytes, bytes]], request_: bytes
) -> None:
    expected = await answered(HttpToolsProtocol, status, headers, request_)
    found = await answered(LimitedProtocol, status, headers, request_)
    assert (found.written, found.closed) == (expected.written, expected.closed)


@IN_ANY_FRAMING
async def test_the_outer_layer_adds_the_same_and_hears_the_same_by_our_server_as_by_any_other(
    status: int, headers: list[tuple[bytes, bytes]], request_: bytes
) -> None:
    named = request_.replace(b"Host: localhost", b"Host: localhost\r\nX-Request-Id: trace-1234")
    options = OuterOptions(allowed_hosts=["localhost"], https=True)
    taken: list[Ended] = []
    requests = EndedRequests(taken.extend)
    expected, found = [
        await answered(
            protocol, status, headers, named, layer=lambda app: Outer(app, options, render=render, ended=requests)
        )
        for protocol in (HttpToolsProtocol, LimitedProtocol)
    ]
    assert (found.written, found.closed) == (expected.written, expected.closed)
    assert found.written.count(b"cache-control") == 1
    requests.flush()
    assert [ended.status for ended in taken] == [status, status]
    for line in (b"x-request-id: trace-1234", b"strict-transport-security: max-age=31536000; includeSubDomains"):
        assert found.written.count(b"\r\n%b\r\n" % line) == 1


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, LimitedProtocol])
async def test_a_message_that_is_sent_to_many_stays_as_it_is(protocol: type[HttpToolsProtocol]) -> None:
    """A constant that grew by the request id of one client would tell it to the next."""
    start = {"type": "http.response.start", "status": 200, "headers": HEADERS[:1]}
    before = {**start, "headers": list(HEADERS[:1])}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send({"type": "http.response.body", "body": b"ok"})

    layered = Outer(app, OuterOptions(allowed_hosts=["localhost"]), render=render)
    for _ in range(3):
        assert (await written_by(layered, protocol, GET)).written.count(b"\r\nx-request-id: ") == 1
    assert start == before


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, LimitedProtocol])
async def test_each_of_several_requests_on_a_connection_has_its_own_answer(protocol: type[HttpToolsProtocol]) -> None:
    taken: list[Ended] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": int(scope["path"][1:]), "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"ok"})

    requests = EndedRequests(taken.extend)
    connection, transport = connected(
        Outer(app, OuterOptions(allowed_hosts=["localhost"]), render=render, ended=requests), protocol
    )
    statuses = [200, 201, 202, 203]
    for status in statuses:
        named = b"/%d HTTP/1.1\r\nX-Request-Id: trace-%d" % (status, status)
        connection.data_received(GET.replace(b"/ HTTP/1.1", named))
    while connection.tasks:
        await asyncio.wait(connection.tasks)
    requests.flush()
    assert [(ended.status, ended.request_id) for ended in taken] == [(s, f"trace-{s}") for s in statuses]
    heads = transport.written.split(b"HTTP/1.1 ")[1:]
    assert [int(head[:3]) for head in heads] == statuses
    assert all(head.count(b"x-request-id: trace-%d\r\n" % s) == 1 for s, head in zip(statuses, heads, strict=True))
    assert transport.written.count(b"x-request-id") == len(statuses)


async def test_an_answer_that_http_does_not_allow_becomes_a_problem() -> None:
    taken: list[Ended] = []
    requests = EndedRequests(taken.extend)
    headers = [(b"x-note", b"a\nb"), LENGTH]
    options = OuterOptions(allowed_hosts=["localhost"])
    found = await answered(
        LimitedProtocol, 200, headers, layer=lambda app: Outer(app, options, render=render, ended=requests)
    )
    requests.flush()
    assert b'"code":"service.internal"' in found.written
    assert [ended.status for ended in taken] == [500]


async def test_head_and_body_are_written_at_once() -> None:
    assert (await answered(LimitedProtocol, 200, [*HEADERS, LENGTH])).writes == 1


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"o", b"k"], id="in parts"),
        pytest.param([b"", b"ok"], id="an empty part first"),
        pytest.param([b"ok", b""], id="an empty part last"),
        pytest.param([b"o"], id="too short"),
        pytest.param([b"o", b""], id="too short in parts"),
        pytest.param([b"okay"], id="too long"),
        pytest.param([b"ok", b"ay"], id="too long in parts"),
        pytest.param([b"k" * 100_000], id="a large one"),
    ],
)
async def test_a_body_in_any_shape_is_written_as_uvicorn_would_write_it(parts: list[bytes]) -> None:
    length = (b"content-length", b"%d" % len(parts[0])) if len(parts[0]) > 4 else LENGTH
    expected = await answered(HttpToolsProtocol, 200, [*HEADERS, length], body=parts)
    found = await answered(LimitedProtocol, 200, [*HEADERS, length], body=parts)
    assert (found.written, found.closed) == (expected.written, expected.closed)


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_who_waits_for_the_client_hears_that_the_answer_is_complete() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await answer(send)
        heard.append((await waiting)["type"])

    assert (await written_by(app, LimitedProtocol, GET)).written.endswith(b"ok")
    assert heard == ["http.disconnect"]


async def test_a_body_waits_while_the_client_does_not_read() -> None:
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        begun.set()
        await going_on.wait()
        await send({"type": "http.response.body", "body": b"ok"})

    connection, transport = connected(app, LimitedProtocol)
    connection.data_received(GET)
    await begun.wait()
    connection.pause_writing()
    going_on.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not transport.written.endswith(b"ok")
    connection.resume_writing()
    await asyncio.wait(connection.tasks)
    assert transport.written.endswith(b"\r\n\r\nok")


async def test_an_answer_does_not_begin_while_the_client_does_not_read() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send)

    connection, transport = connected(app, LimitedProtocol)
    connection.pause_writing()
    connection.data_received(GET)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connection.cycle.response_started
    connection.resume_writing()
    await asyncio.wait(connection.tasks)
    assert transport.written.endswith(b"\r\n\r\nok")


async def test_no_answer_begins_for_a_client_that_has_left() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection.connection_lost(None)
        await answer(send)

    connection, transport = connected(app, LimitedProtocol)
    connection.data_received(GET)
    await asyncio.wait(connection.tasks)
    assert (transport.written, connection.cycle.response_started) == (b"", False)


async def test_nothing_is_written_to_a_client_that_has_left() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        connection.connection_lost(None)
        await send({"type": "http.response.body", "body": b"ok"})

    connection, transport = connected(app, LimitedProtocol)
    connection.data_received(GET)
    await asyncio.wait(connection.tasks)
    assert transport.written == b""


async def test_an_answer_whose_body_never_comes_is_none() -> None:
    """Its head would tell the client that all went well."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        raise RuntimeError

    found = await written_by(app, LimitedProtocol, GET)
    assert (found.written, found.closed) == (b"", True)


async def test_what_is_remembered_of_headers_is_bounded() -> None:
    for number in range(1000):
        header = (b"x-number", b"%d" % number)
        found = await answered(LimitedProtocol, 200, [header, LENGTH])
        assert b"\r\nx-number: %d\r\n" % number in found.written
    assert len(_lines) <= 256


@pytest.mark.parametrize(
    "header",
    [
        (b"x-note", b"a\r\nset-cookie: b"),
        (b"x-note", b"a\nb"),
        (b"x-note", b"a\x00b"),
        (b"x-note: a\r\nset-cookie", b"b"),
        (b"x note", b"a"),
        (b"", b"a"),
        (b"X-Note", b"a"),
        (b"etag", b"a\r\nb"),
    ],
)
@pytest.mark.parametrize("others", [[LENGTH], [], [LENGTH, (b"transfer-encoding", b"chunked")]])
async def test_what_is_no_header_is_never_written_not_even_the_second_time(
    header: tuple[bytes, bytes], others: list[tuple[bytes, bytes]]
) -> None:
    for _ in range(2):
        found = await answered(LimitedProtocol, 200, [header, *others])
        assert found.written.startswith(b"HTTP/1.1 500 ")
        assert b"set-cookie" not in found.written
        assert b"x-note" not in found.written.lower()
        assert found.closed
