"""The server on real sockets: slow, broken and too many clients, and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from orgstead.api.errors import render
from orgstead.api.http_protocol import ConnectionOptions
from orgstead.api.limits import BodyOptions, Receive, Scope, Send
from orgstead.api.listening import Address, bind, holder_of
from orgstead.api.outer import Outer, OuterOptions
from orgstead.api.server import Bound, ServerOptions, serve, settled
from orgstead.cli.service import server_options
from orgstead.errors import ConfigurationError
from orgstead.settings import Settings
from tests.support import PROJECT

pytestmark = pytest.mark.anyio

PATIENCE = 30
"""Seconds after which a test that waits for the server has failed. Nothing is expected to take them."""

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the product runs on."""
    return "asyncio", {"loop_factory": uvloop.new_event_loop}


class App:
    """Answers with method, path and body; /wait waits until it is let go."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()
        self.served: list[str] = []
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served.append(scope["path"])
        self.headers = scope["headers"]
        if scope["path"] == "/wait":
            self.waiting.set()
            await self.go.wait()
        content = f"{scope['method']} {scope['path']} ".encode()
        if scope["method"] == "POST":
            content += (await receive())["body"]
        length = str(len(content)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": content})


@dataclass
class Served:
    app: App
    bound: Bound
    task: asyncio.Task[None]

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.bound.public))

    async def ask(self, data: bytes) -> Reply:
        """One request on a connection of its own."""
        async with await self.connect() as connection:
            connection.send(data)
            return await connection.reply()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["x-request-id"]
        read: dict[str, str] = json.loads(self.body)
        return read["code"]


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> Reply:
        async with asyncio.timeout(PATIENCE):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(first.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


LIMITS = ConnectionOptions(max_discarded_bytes=500_000)


@contextlib.asynccontextmanager
async def serving(limits: ConnectionOptions = LIMITS, **parts: Any) -> AsyncIterator[Served]:
    app = App()
    body = BodyOptions(idle_seconds=parts.pop("body_idle", 10.0), max_bytes=100_000)
    outer = Outer(app, OuterOptions(allowed_hosts=["localhost"], https=limits.https, body=body), render=render)
    address = Address("127.0.0.1", 0)
    options = ServerOptions(address, address, limits, sweep_seconds=0.02, **parts)
    ready: asyncio.Future[Bound] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(outer, App(), options, ready=ready.set_result))
    try:
        yield Served(app, await asyncio.wait_for(ready, PATIENCE), task)
    finally:
        app.go.set()
        await stop(task)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


@pytest.fixture(scope="module")
async def shared_server() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture
def served(shared_server: Served) -> Served:
    """A server with LIMITS, started once, that has served nothing."""
    shared_server.app.reset()
    return shared_server


# --- what works ---


def test_what_stays_is_not_collected_again_and_again() -> None:
    before = gc.get_freeze_count()
    with settled():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0


async def test_both_ports_answer_and_name_no_server(served: Served) -> None:
    reply = await served.ask(b"GET /a" + HEAD + b"\r\n")
    assert (reply.status, reply.body) == (200, b"GET /a ")
    assert "server" not in reply.headers
    assert "date" in reply.headers
    reader, writer = await asyncio.open_connection("127.0.0.1", served.bound.management)
    writer.write(b"GET /readyz" + HEAD + b"\r\n")
    assert (await Connection(reader, writer).reply()).body == b"GET /readyz "
    writer.close()


async def test_a_connection_serves_many_requests_in_order(served: Served) -> None:
    async with await served.connect() as connection:
        connection.send(b"".join(b"GET /%d" % number + HEAD + b"\r\n" for number in range(1000)))
        for number in range(1000):
            assert (await connection.reply()).body == b"GET /%d " % number


async def test_a_body_may_come_in_chunks(served: Served) -> None:
    head = b"POST /a" + HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await served.ask(head + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")).body == b"POST /a {}"


async def test_a_body_may_come_in_chunks_of_one_byte(served: Served) -> None:
    head = b"POST /a" + HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'"' + b"x" * 30_000 + b'"'
    async with await served.connect() as connection:
        connection.send(head)
        connection.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert (await connection.reply()).body == b"POST /a " + body


CHUNKED = b"POST /a" + HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_not_taken_for_headers(served: Served) -> None:
    trailers = b"Authorization: Bearer stolen\r\nX-Forwarded-For: 192.0.2.1\r\n"
    assert (await served.ask(CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")).body == b"POST /a {}"
    assert {name for name, _ in served.app.headers} == {b"host", b"content-type", b"transfer-encoding"}


@pytest.mark.parametrize(
    "begun", [b"2\r\n{}\r\n0\r\nX: ", b"2\r\n{}\r\n0\r\n", b"2;x="], ids=["trailer", "trailers", "extension"]
)
async def test_what_surrounds_a_body_has_an_end(served: Served, begun: bytes) -> None:
    more = b"X: x\r\n" if begun.endswith(b"\n") else b"x"
    async with await served.connect() as connection:
        connection.send(CHUNKED + begun)
        await asyncio.sleep(0.05)  # a piece of its own
        connection.send(more * 100_000)
        assert (await connection.reply()).code == "request.malformed"
        assert await connection.rest() == b""
        assert served.app.served == []


# --- slow clients ---

IMPATIENT = ConnectionOptions(header_seconds=0.1, linger_seconds=0.1)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"GET /a" + HEAD + b"X-A: b",
        b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n",
    ],
)
async def test_headers_that_do_not_arrive_are_not_waited_for(begun: bytes) -> None:
    async with serving(IMPATIENT) as served, await served.connect() as connection:
        connection.send(begun)
        answer = await connection.rest()
        assert served.app.served == []
        assert answer.startswith(b"HTTP/1.1 408 ") if begun.strip() else answer == b""


async def test_headers_that_trickle_are_not_waited_for() -> None:
    async with serving(IMPATIENT) as served, await served.connect() as connection:
        connection.send(b"GET /" + HEAD)
        trickling = asyncio.create_task(trickle(connection, b"X-A: b\r\n"))
        assert (await connection.reply()).code == "request.timeout"
        await connection.rest()
        trickling.cancel()


async def test_empty_lines_do_not_keep_a_used_connection_open() -> None:
    async with serving(IMPATIENT) as served, await served.connect() as connection:
        connection.send(b"GET /a" + HEAD + b"\r\n")
        await connection.reply()
        trickling = asyncio.create_task(trickle(connection, b"\r\n"))
        assert await connection.rest() == b""
        trickling.cancel()


async def trickle(connection: Connection, piece: bytes) -> None:
    while True:
        await asyncio.sleep(0.01)
        connection.send(piece)


async def test_two_hundred_half_sent_requests_stop_nobody(served: Served) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(200):
            connection = await stack.enter_async_context(await served.connect())
            connection.send((b"GET /" + HEAD, b"POST /a" + HEAD + b"Content-Length: 10\r\n\r\n{")[number % 2])
        assert (await served.ask(b"GET /a" + HEAD + b"\r\n")).status == 200


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async with serving(body_idle=0.05) as served:
        head = b"POST /a" + HEAD + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n"
        reply = await served.ask(head + b"{")
        assert (reply.status, reply.code) == (408, "request.timeout")


async def test_a_refused_body_that_stops_ends_the_connection() -> None:
    async with serving(IMPATIENT) as served, await served.connect() as connection:
        connection.send(b"POST /a" + HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 1000)
        assert (await connection.reply()).status == 413
        assert await connection.rest() == b""


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    async with serving(keep_alive_seconds=0.05) as served, await served.connect() as connection:
        connection.send(b"GET /a" + HEAD + b"\r\n")
        assert (await connection.reply()).status == 200
        assert await connection.rest() == b""


async def test_a_slow_answer_is_not_a_slow_client() -> None:
    async with serving(IMPATIENT) as served, await served.connect() as connection:
        connection.send(b"GET /wait" + HEAD + b"\r\n" + b"GET /half")
        await served.app.waiting.wait()
        await asyncio.sleep(0.3)  # several sweeps after the half-sent request was due
        served.app.go.set()
        assert (await connection.reply()).body == b"GET /wait "
        assert (await connection.reply()).code == "request.timeout"


# --- broken and oversized requests ---


@pytest.mark.parametrize(
    "request_line",
    [
        b"hello",
        b"GET / HTTP/9.9",
        b"GET\t/ HTTP/1.1",
        b"GET @evil HTTP/1.1",
        b"get / HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff HTTP/1.1",
    ],
)
async def test_what_is_not_http_is_a_400(served: Served, request_line: bytes) -> None:
    reply = await served.ask(request_line + b"\r\nHost: localhost\r\n\r\n")
    assert (reply.status, reply.code) == (400, "request.malformed")
    assert reply.headers["connection"] == "close"
    assert served.app.served == []


@pytest.mark.parametrize("https", [False, True])
async def test_what_the_parser_refuses_has_the_headers_of_every_refusal(https: bool) -> None:
    async with serving(ConnectionOptions(https=https)) as served:
        by_parser = (await served.ask(b"hello\r\n\r\n")).headers
        by_application = (await served.ask(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")).headers
    assert by_parser.pop("connection") == "close"
    varying = {"date", "x-request-id", "content-length"}
    assert by_parser.keys() == by_application.keys() > varying
    assert {n: v for n, v in by_parser.items() if n not in varying} == {
        n: v for n, v in by_application.items() if n not in varying
    }
    assert ("strict-transport-security" in by_parser) is https


def test_the_ports_know_that_people_come_over_https() -> None:
    assert server_options(Settings(public_url="https://api.example.com")).connections.https
    assert not server_options(Settings()).connections.https


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"X-A: a\x00b\r\n",
        b" folded: x\r\n",
        b"no colon\r\n",
        b"Sp ace: x\r\n",
    ],
)
async def test_ambiguous_framing_is_a_400(served: Served, headers: bytes) -> None:
    reply = await served.ask(b"POST /a" + HEAD + headers + b"\r\n{}")
    assert (reply.status, reply.code) == (400, "request.malformed")
    assert served.app.served == []


@pytest.mark.parametrize(
    "headers",
    [
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: , chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
        b"Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
    ],
)
@pytest.mark.parametrize("start", [b"POST /a HTTP/1.1", b"GET /a HTTP/1.1", b"POST /a HTTP/1.0"])
async def test_no_body_has_two_ends(served: Served, start: bytes, headers: bytes) -> None:
    async with await served.connect() as connection:
        head = start + b"\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers
        connection.send(head + b"\r\n2\r\n{}\r\n0\r\n\r\nGET /smuggled" + HEAD + b"\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.code, reply.headers["connection"]) == (400, "request.malformed", "close")
        assert await connection.rest() == b""
        assert served.app.served == []


async def test_chunks_are_not_of_http_1_0(served: Served) -> None:
    async with await served.connect() as connection:
        connection.send(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n")
        assert (await connection.reply()).code == "request.malformed"
        assert await connection.rest() == b""
        assert served.app.served == []


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"  CHUNKED "])
async def test_chunked_is_chunked_however_it_is_written(served: Served, coding: bytes) -> None:
    head = CHUNKED.replace(b" chunked", coding)
    assert (await served.ask(head + b"2\r\n{}\r\n0\r\n\r\n")).body == b"POST /a {}"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /" + b"a" * 9000 + HEAD + b"\r\n", 414),
        (b"GET /" + b"a" * 100_000 + HEAD + b"\r\n", 414),
        (b"GET /" + b"a" * 100_000, 414),
        (b"GET /a" + HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(100)) + b"\r\n", 431),
        (b"GET /a" + HEAD + b"X: " + b"a" * 65_536 + b"\r\n\r\n", 431),
        (b"GET /a" + HEAD + b"X: " + b"a" * 65_536, 431),
        (b"GET /a" + HEAD + b"X" * 65_536, 431),
        (b"GET /a" + HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 500) for number in range(80)) + b"\r\n", 431),
    ],
    ids=["target", "long target", "endless target", "101 headers", "header", "endless header", "endless name", "sum"],
)
async def test_oversized_heads_are_refused(served: Served, request_head: bytes, status: int) -> None:
    reply = await served.ask(request_head)
    assert reply.status == status
    assert reply.code in ("request.uri_too_long", "request.headers_too_large")
    assert served.app.served == []


async def test_heads_within_the_limits_pass_whatever_follows_them(served: Served) -> None:
    async with await served.connect() as connection:
        headers = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 300) for number in range(97))
        body = b"[" + b" " * 60_000 + b"]"
        head = b"POST /a" + HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) + headers
        for _ in range(3):
            connection.send(head + b"\r\n" + body)
        for _ in range(3):
            assert (await connection.reply()).body == b"POST /a " + body


async def test_a_stream_over_the_limit_is_refused_and_the_connection_stays_in_step(served: Served) -> None:
    async with await served.connect() as connection:
        connection.send(b"POST /a" + HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        connection.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.code) == (413, "request.body_too_large")
        connection.send(b"0\r\n\r\n" + b"GET /next" + HEAD + b"\r\n")
        assert (await connection.reply()).body == b"GET /next "


async def test_a_refused_body_without_end_is_not_read_for_ever(served: Served) -> None:
    async with await served.connect() as connection:
        connection.send(b"POST /a" + HEAD + b"Content-Length: 100000000\r\n\r\n")
        assert (await connection.reply()).status == 413
        with pytest.raises(ConnectionError):
            await pour(connection, 1000)


async def pour(connection: Connection, times: int) -> None:
    for _ in range(times):
        connection.send(b"x" * 65_536)
        await connection.writer.drain()


async def test_a_body_that_was_not_asked_for_is_not_waited_for() -> None:
    """A client that expects 100 may leave its body out or send it: nobody can know where the next request begins."""
    async with serving(ConnectionOptions(linger_seconds=3600)) as served, await served.connect() as connection:
        connection.send(b"POST /a" + HEAD + b"Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n")
        assert (await connection.reply()).status == 413
        assert await connection.rest() == b""


async def test_what_follows_an_upgrade_is_not_taken_for_a_request(served: Served) -> None:
    async with await served.connect() as connection:
        connection.send(b"GET /a" + HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        connection.send(b"GET /smuggled" + HEAD + b"\r\n")
        assert (await connection.reply()).body == b"GET /a "
        connection.send(b"GET /smuggled" + HEAD + b"\r\n")
        assert await connection.rest() == b""
        assert served.app.served == ["/a"]


async def test_a_broken_body_is_told_to_its_client_and_ends_its_request(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(body_idle=0.1) as served, await served.connect() as connection:
        connection.send(
            b"POST /a" + HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n"
        )
        await asyncio.sleep(0.05)
        connection.send(b"{}\r\nnot a size\r\n")
        assert (await connection.reply()).code == "request.malformed"
        assert await connection.rest() == b""
        await asyncio.sleep(0.3)  # the body's time is over: nothing may be written after the end
        assert served.app.served == []
        assert not caplog.records


async def test_a_broken_request_does_not_answer_for_the_one_before_it(served: Served) -> None:
    async with await served.connect() as connection:
        connection.send(b"GET /wait" + HEAD + b"\r\n")
        await served.app.waiting.wait()
        connection.send(b"not HTTP at all\r\n\r\n")
        await asyncio.sleep(0.05)
        served.app.go.set()
        assert (await connection.reply()).body == b"GET /wait "
        assert await connection.rest() == b""


async def test_more_connections_than_allowed_are_turned_away() -> None:
    async with serving(ConnectionOptions(max_connections=2)) as served, contextlib.AsyncExitStack() as stack:
        held = [await stack.enter_async_context(await served.connect()) for _ in range(2)]
        for connection in held:
            connection.send(b"GET /a" + HEAD + b"\r\nGET /b")
            assert (await connection.reply()).status == 200
        extra = await stack.enter_async_context(await served.connect())
        reply = await extra.reply()
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "service.overloaded", "1")
        held[0].writer.close()
        await held[0].writer.wait_closed()
        held[1].send(HEAD + b"\r\n")
        assert (await held[1].reply()).status == 200
        assert (await served.ask(b"GET /a" + HEAD + b"\r\n")).status == 200


async def test_the_connection_that_idles_longest_makes_room() -> None:
    async with serving(ConnectionOptions(max_connections=2)) as served, contextlib.AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(await served.connect()) for _ in range(2)]
        for connection in (first, second):
            connection.send(b"GET /a" + HEAD + b"\r\n")
            assert (await connection.reply()).status == 200
            await asyncio.sleep(0.01)  # the loop counts milliseconds, and both could idle since the same one
        third = await stack.enter_async_context(await served.connect())
        assert await first.rest() == b""
        for connection in (second, third):
            connection.send(b"GET /b" + HEAD + b"\r\n")
            assert (await connection.reply()).status == 200


async def test_an_answer_that_nobody_reads_does_not_hold_its_connection() -> None:
    async def big(scope: Scope, receive: Receive, send: Send) -> None:
        length = [(b"content-length", b"50000000"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})
        sent.set()

    sent = asyncio.Event()
    address = Address("127.0.0.1", 0)
    options = ServerOptions(address, address, IMPATIENT, sweep_seconds=0.02)
    ready: asyncio.Future[Bound] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(big, big, options, ready=ready.set_result))
    port = (await ready).public
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /" + HEAD + b"\r\n")
    await sent.wait()
    await asyncio.sleep(1)  # many sweeps: by then the server has given up, and what it had not sent is lost
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await Connection(reader, writer).rest()) < 50_000_000
    writer.close()
    await stop(task)


# --- ports ---


async def test_a_port_that_is_taken_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServerOptions(Address("127.0.0.1", 0), Address("127.0.0.1", port, "--management-port"))
        with pytest.raises(ConfigurationError) as caught:
            await serve(App(), App(), options, ready=lambda bound: None)
        assert str(port) in caught.value.detail
        assert f"process {os.getpid()} " in caught.value.detail
        assert "--management-port" in (caught.value.next or "")


def test_a_port_that_nobody_has_is_free() -> None:
    with bind(Address("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        holder = holder_of(port)
        assert holder is not None
        assert holder[0] == os.getpid()
    assert holder_of(port) is None


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 300])
def test_an_address_of_another_machine_is_explained(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        bind(Address(host, 0))
    assert caught.value.next


# --- stopping ---

HALF = b"POST /%s" + HEAD + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"


async def test_stopping_does_not_wait_for_half_a_body() -> None:
    async with (
        serving(shutdown_seconds=3600, body_idle=3600, upload_seconds=0.05) as served,
        await served.connect() as half,
        await served.connect() as whole,
    ):
        half.send(HALF % b"a")
        whole.send(b"GET /wait" + HEAD + b"\r\n")
        await served.app.waiting.wait()
        served.task.cancel()
        assert (await half.reply()).code == "service.unavailable"
        assert await half.rest() == b""
        assert not served.task.done(), "what has arrived is answered, however long it takes"
        served.app.go.set()
        assert (await whole.reply()).body == b"GET /wait "
        await asyncio.wait([served.task], timeout=PATIENCE)
        assert served.task.done()
        assert served.app.served == ["/wait"]


async def test_stopping_lets_a_body_arrive_that_is_on_its_way() -> None:
    async with serving(shutdown_seconds=3600, upload_seconds=3600) as served, await served.connect() as connection:
        connection.send(HALF % b"a")
        await asyncio.sleep(0.05)  # a piece of its own
        served.task.cancel()
        await asyncio.sleep(0.2)  # the server has begun to stop
        connection.send(b'"a": 12 }')
        assert (await connection.reply()).body == b'POST /a {"a": 12 }'


async def test_stopping_answers_what_came_before_half_a_body() -> None:
    async with (
        serving(shutdown_seconds=3600, body_idle=3600, upload_seconds=0.05) as served,
        await served.connect() as connection,
    ):
        connection.send(b"GET /wait" + HEAD + b"\r\n" + HALF % b"a")
        await served.app.waiting.wait()
        served.task.cancel()
        await asyncio.sleep(0.3)  # several looks at what has not arrived
        served.app.go.set()
        assert (await connection.reply()).body == b"GET /wait "
        await asyncio.wait([served.task], timeout=PATIENCE)
        assert served.task.done()


PROGRAM = """
import asyncio, sys
from orgstead.api.listening import Address
from orgstead.api.server import ServerOptions, run, serve

async def app(scope, receive, send):
    print("began", flush=True)
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    await asyncio.to_thread(sys.stdin.readline)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

address = Address("127.0.0.1", 0)
options = ServerOptions(address, address, shutdown_seconds=float(sys.argv[1]))
run(serve(app, app, options, ready=lambda bound: print(bound.public, flush=True)))
print("ended", flush=True)
"""


@contextlib.contextmanager
def program(shutdown_seconds: float) -> Any:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(shutdown_seconds)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish(signum: signal.Signals) -> None:
    with program(PATIENCE) as (process, port), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"GET /" + HEAD + b"\r\n")
        assert process.stdout.readline() == "began\n"
        process.send_signal(signum)
        refused = False
        while not refused:  # until the port is closed
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            except ConnectionError:
                refused = True
        process.stdin.write("go\n")
        process.stdin.flush()
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert process.wait(PATIENCE) == 0
        assert process.stdout.read() == "ended\n"


def test_a_signal_does_not_wait_for_ever() -> None:
    with program(0.1) as (process, port), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"GET /hang" + HEAD + b"\r\n")
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGTERM)
        assert client.recv(100).startswith(b"HTTP/1.1 500 ")
        assert process.wait(PATIENCE) == 0


def test_a_second_interrupt_ends_everything() -> None:
    with program(3600) as (process, port), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"GET /hang" + HEAD + b"\r\n")
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGINT)
        refused = False
        while not refused:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            except ConnectionError:
                refused = True
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ended\n"
        assert process.wait(PATIENCE) == 0
