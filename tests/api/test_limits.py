"""The strict body reader: size, type, time, and what is left for the application to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from orgstead.api.limits import (
    NO_VALUE,
    WITHOUT_BODY,
    BodyOptions,
    BodyReader,
    Disconnected,
    Receive,
    WholeBody,
)
from orgstead.errors import BodyTooLarge, MalformedRequest, OrgsteadError, RequestTimeout, UnsupportedMediaType
from tests.data.hostile_json import CASES, MERELY_ODD, Case

pytestmark = pytest.mark.anyio

READER = BodyReader(BodyOptions())
LIMIT = 1000
SMALL = BodyReader(BodyOptions(max_bytes=LIMIT))
JSON = {b"content-type": b"application/json"}
ERRORS: Mapping[int, type[OrgsteadError]] = {400: MalformedRequest, 413: BodyTooLarge, 415: UnsupportedMediaType}


class Client:
    """Gives its chunks one after the other, then says nothing more; counts how many were taken."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": not ends or number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ]
        self.taken = 0

    async def receive(self) -> dict[str, Any]:
        if self.taken == len(self.messages):
            await asyncio.Event().wait()
        self.taken += 1
        return self.messages[self.taken - 1]


async def body_of(receive: Receive) -> bytes:
    """The body as an application reads it."""
    chunks = []
    while True:
        message = await receive()
        chunks.append(message["body"])
        if not message["more_body"]:
            return b"".join(chunks)


async def sent(case: Case, *, chunked: bool) -> bytes:
    headers = {name.lower().encode(): value.encode() for name, value in case.headers}
    if case.content_type is not None:
        headers[b"content-type"] = case.content_type.encode()
    headers |= {b"transfer-encoding": b"chunked"} if chunked else {b"content-length": str(len(case.body)).encode()}
    chunks = [case.body[start : start + 65_536] for start in range(0, len(case.body), 65_536)]
    return await body_of(await READER.read("POST", headers, Client(*chunks).receive))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_hostile_bodies_are_refused(case: Case, chunked: bool) -> None:
    (status,) = case.statuses
    with pytest.raises(ERRORS[status]) as caught:
        await sent(case, chunked=chunked)
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("name", "body"), MERELY_ODD, ids=[name for name, _ in MERELY_ODD])
async def test_odd_bodies_reach_the_application_unchanged(name: str, body: bytes, chunked: bool) -> None:
    assert await sent(Case(name, body, frozenset()), chunked=chunked) == body


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"application/json;charset=utf-8",
        b"Application/JSON; Charset=UTF-8",
        b'application/json ; charset="utf-8"',
        b"application/json; profile=x",
    ],
)
async def test_json_may_be_named_in_several_ways(content_type: bytes) -> None:
    headers = {b"content-type": content_type, b"content-encoding": b"identity"}
    assert await body_of(await READER.read("POST", headers, Client(b"{}").receive)) == b"{}"


async def test_what_a_body_says_comes_with_it() -> None:
    read = await READER.read("POST", JSON, Client(b'{"a":', b"[1]}").receive)
    assert isinstance(read, WholeBody)
    assert read.value == {"a": [1]}
    assert await body_of(read) == read.body == b'{"a":[1]}'
    empty = await READER.read("POST", {}, Client(b"").receive)
    assert isinstance(empty, WholeBody)
    assert empty.value is NO_VALUE


def padded(size: int) -> bytes:
    return b"[" + b" " * (size - 2) + b"]"


async def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    length = {b"content-length": str(LIMIT).encode()}
    assert await body_of(await SMALL.read("PUT", JSON | length, Client(padded(LIMIT)).receive)) == padded(LIMIT)
    chunks = [padded(LIMIT)[:600], padded(LIMIT)[600:]]
    assert await body_of(await SMALL.read("PUT", JSON, Client(*chunks).receive)) == padded(LIMIT)


@pytest.mark.parametrize("length", [b"1001", b"1" * 18, b"1" * 5000], ids=["one more", "18 digits", "5000 digits"])
async def test_a_declared_length_over_the_limit_is_refused_unread(length: bytes) -> None:
    client = Client(b"x")
    with pytest.raises(BodyTooLarge):
        await SMALL.read("POST", JSON | {b"content-length": length}, client.receive)
    assert client.taken == 0


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1e3", b"", b"0x10"])
async def test_a_length_that_is_no_number_is_malformed(length: bytes) -> None:
    with pytest.raises(MalformedRequest):
        await SMALL.read("POST", JSON | {b"content-length": length}, Client(b"{}").receive)


async def test_a_stream_is_given_up_at_the_limit() -> None:
    client = Client(*[b" " * 400] * 100)
    with pytest.raises(BodyTooLarge):
        await SMALL.read("POST", JSON | {b"transfer-encoding": b"chunked"}, client.receive)
    assert client.taken == 3


async def test_a_length_that_says_too_little_does_not_help() -> None:
    with pytest.raises(BodyTooLarge):
        await SMALL.read("POST", JSON | {b"content-length": b"2"}, Client(b" " * (LIMIT + 1)).receive)


async def test_a_wrong_type_is_refused_before_the_body_is_read() -> None:
    client = Client(b"a")
    with pytest.raises(UnsupportedMediaType):
        await READER.read("POST", {b"content-type": b"text/plain", b"content-length": b"1"}, client.receive)
    assert client.taken == 0


@pytest.mark.parametrize("headers", [{}, {b"content-length": b"0"}, {b"content-type": b"text/plain"}])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_empty_body_passes_whatever_its_type(method: str, headers: dict[bytes, bytes]) -> None:
    assert await body_of(await READER.read(method, headers, Client(b"").receive)) == b""


@pytest.mark.parametrize("method", sorted(WITHOUT_BODY))
@pytest.mark.parametrize("framing", [{b"content-length": b"2"}, {b"transfer-encoding": b"chunked"}])
async def test_a_body_where_none_belongs_is_refused(method: str, framing: dict[bytes, bytes]) -> None:
    with pytest.raises(MalformedRequest):
        await READER.read(method, JSON | framing, Client(b"{}").receive)


async def test_the_application_hears_of_a_disconnect_after_the_body() -> None:
    client = Client(b"{}")
    client.messages.append({"type": "http.disconnect"})
    receive = await READER.read("POST", JSON, client.receive)
    assert (await receive())["body"] == b"{}"
    assert (await receive())["type"] == "http.disconnect"


async def test_a_client_that_leaves_is_not_a_broken_body() -> None:
    client = Client(b"{", ends=False)
    client.messages.append({"type": "http.disconnect"})
    with pytest.raises(Disconnected):
        await READER.read("POST", JSON, client.receive)


@pytest.mark.parametrize("chunks", [(), (b"{",)], ids=["from the start", "in the middle"])
async def test_a_body_that_stops_arriving_is_given_up(chunks: tuple[bytes, ...]) -> None:
    reader = BodyReader(BodyOptions(idle_seconds=0.02))
    with pytest.raises(RequestTimeout):
        await reader.read("POST", JSON, Client(*chunks, ends=False).receive)


def test_a_body_is_given_up_on_a_second_loop_too() -> None:
    """The first loop ended while it waited to look for late bodies."""
    reader = BodyReader(BodyOptions(idle_seconds=0.02))
    asyncio.run(_read(reader, Client(b"{}")))
    with pytest.raises(RequestTimeout):
        asyncio.run(asyncio.wait_for(_read(reader, Client(ends=False)), 30))


async def _read(reader: BodyReader, client: Client) -> None:
    await reader.read("POST", JSON, client.receive)


async def test_a_body_that_trickles_is_given_up_although_it_never_stops() -> None:
    """Its pauses are all shorter than the longest one allowed: only the time in all can end it."""
    reader = BodyReader(BodyOptions(idle_seconds=0.5, bytes_per_second=1_000_000))

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(RequestTimeout):
        await asyncio.wait_for(reader.read("POST", JSON, trickle), 30)


async def test_a_slow_but_honest_body_gets_the_time_it_needs() -> None:
    """It takes several times ``idle_seconds``, and earns them by what it brings."""
    reader = BodyReader(BodyOptions(idle_seconds=0.2, bytes_per_second=10))
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def chunks() -> AsyncIterator[dict[str, Any]]:
        while loop.time() < began + 0.5:
            yield {"type": "http.request", "body": b" " * 10, "more_body": True}
            await asyncio.sleep(0.01)
        yield {"type": "http.request", "body": b"{}", "more_body": False}

    stream = chunks()
    assert (await body_of(await reader.read("POST", JSON, stream.__anext__))).strip() == b"{}"
