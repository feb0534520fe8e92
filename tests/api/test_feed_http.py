"""The change feed over HTTP: as lists by cursor, and as a stream that resumes and ends when access does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import bench.server
from orgstead import feed
from orgstead.api import application
from orgstead.api.limits import Application
from orgstead.api.listening import Address
from orgstead.api.server import Bound, ServerOptions, serve
from orgstead.api.streams import Streams
from orgstead.model import Role
from orgstead.storage import tables
from tests.api.actors import SCOPE, Person, Service, Standing, problem
from tests.api.streaming import listening

pytestmark = pytest.mark.anyio

UNHURRIED = {"look": 3600.0, "heartbeat": 3600.0, "pause": 0.0}
"""Streams that look only when they are woken: a test that waits for a look would never end."""


@pytest.fixture(params=["free", "enterprise"], ids=["pooled", "dedicated"])
async def acme(service: Service, request: pytest.FixtureRequest) -> Standing:
    return await service.organization("Acme", plan=request.param)


def built(service: Service, **changes: Any) -> Application:
    """The application with streams of the test's own."""
    options: dict[str, Any] = {"total": 100, "each": 100, **UNHURRIED, **changes}
    return application.build(service.app, streams=Streams(**options))


@pytest.fixture
def app(service: Service) -> Application:
    return built(service)


async def make(service: Service, standing: Standing, *ids: str) -> None:
    for one in ids:
        body = {"id": one, "data": {}}
        made = await service.ask("POST", standing.path + "/collections/notes/records", standing.member, body)
        assert made.status_code == 201, made.text


async def events(service: Service, standing: Standing, person: Person | None = None, query: str = "") -> dict[str, Any]:
    answer = await service.ask("GET", f"{standing.path}/events{query}", person or standing.viewer)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_every_change_is_told_in_its_order(service: Service, acme: Standing) -> None:
    await make(service, acme, "a", "b")
    one = acme.path + "/collections/notes/records/a"
    await service.ask("PATCH", one, acme.admin, {"data": {"n": 1}})
    await service.ask("DELETE", one, acme.member)
    await service.ask("PUT", acme.path + "/collections/notes", acme.admin, {"indexes": [["n"]]})
    await service.ask("POST", acme.path + "/collections/notes/records", acme.member, {"id": "b", "data": {}})
    found = await events(service, acme)
    told = [(e["seq"], e["type"], e["record_id"], e["record_version"]) for e in found["data"]]
    assert told == [
        (1, "collection.created", None, None),
        (2, "record.created", "a", 1),
        (3, "record.created", "b", 1),
        (4, "record.updated", "a", 2),
        (5, "record.deleted", "a", None),
        (6, "collection.updated", None, None),
    ]
    assert {e["actor"] for e in found["data"]} == {acme.member.user_id, acme.admin.user_id}


async def test_a_cursor_goes_on_and_misses_nothing(service: Service, acme: Standing) -> None:
    await make(service, acme, *"abcde")
    seen: list[str] = []
    query = "?limit=2"
    while (found := await events(service, acme, query=query))["data"]:
        seen += [event["record_id"] for event in found["data"]]
        query = f"?limit=2&cursor={found['next_cursor']}"
    assert seen == [None, *"abcde"]
    await make(service, acme, "f")
    assert [e["record_id"] for e in (await events(service, acme, query=query))["data"]] == ["f"]


async def test_a_reader_may_begin_with_what_is_next(service: Service, acme: Standing) -> None:
    await make(service, acme, "a")
    found = await events(service, acme, query="?start=now")
    assert found["data"] == []
    await make(service, acme, "b")
    later = await events(service, acme, query=f"?cursor={found['next_cursor']}")
    assert [event["record_id"] for event in later["data"]] == ["b"]


async def test_a_cursor_of_another_list_or_organization_is_refused(service: Service, acme: Standing) -> None:
    other = await service.organization("Other")
    await make(service, acme, "a", "b")
    await make(service, other, "a")
    mine = (await events(service, acme, query="?limit=1"))["next_cursor"]
    theirs = (await events(service, other))["next_cursor"]
    records = (await service.ask("GET", acme.path + "/collections/notes/records?limit=1", acme.viewer)).json()
    bad = [theirs, records["next_cursor"], mine[:-1], mine + "A", "x", "", mine.swapcase(), f"WzJd.{mine[-22:]}"]
    for cursor in bad:
        answer = await service.ask("GET", f"{acme.path}/events?cursor={cursor}", acme.viewer)
        problem(answer, 400, "cursor.invalid")


async def test_a_reader_that_comes_too_late_is_told(service: Service, acme: Standing) -> None:
    await make(service, acme, "a", "b")
    old = (await events(service, acme, query="?limit=1"))["next_cursor"]
    service.watch.advance(days=service.app.settings.records.events_kept_days + 1)
    # Only that has passed: sessions end in thirty days, tokens are made anew.
    owner = await service.logged_in(acme.organization, await _user(service, acme.owner), Role.OWNER)
    assert await feed.forget_expired(service.app) >= 3
    problem(await service.ask("GET", f"{acme.path}/events?cursor={old}", owner), 410, "feed.expired")
    answer = await service.ask(
        "GET", f"{acme.path}/events?cursor={old}", owner, headers={"accept": "text/event-stream"}
    )
    problem(answer, 410, "feed.expired")
    anew = await events(service, acme, owner)
    assert anew["data"] == []


async def _user(service: Service, person: Person) -> Any:
    (found,) = await service.rows(tables.users, id=person.user_id)
    return found


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_tells_what_happens(service: Service, acme: Standing, app: Application) -> None:
    async with listening(app, acme.path + "/events", acme.viewer.headers) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-request-id"]
        await make(service, acme, "a")
        first, second = await stream.event(), await stream.event()
        assert (first.type, second.type, second.data["record_id"]) == ("collection.created", "record.created", "a")
        await make(service, acme, "b")
        assert (await stream.event()).data["record_id"] == "b"
        listed = (await events(service, acme))["data"]
        assert first.data == listed[0]


async def test_a_stream_resumes_after_the_last_event(service: Service, acme: Standing, app: Application) -> None:
    await make(service, acme, *"abc")
    async with listening(app, acme.path + "/events", acme.viewer.headers) as stream:
        told = [await stream.event() for _ in range(3)]
    await make(service, acme, "d")
    resumed = {**acme.viewer.headers, "last-event-id": str(told[-1].id)}
    for query in ("", "start=now", f"cursor={told[0].id}"):
        async with listening(app, acme.path + "/events", resumed, query) as stream:
            assert [(await stream.event()).data["record_id"] for _ in range(2)] == ["c", "d"]
    async with listening(app, acme.path + "/events", acme.viewer.headers, f"cursor={told[1].id}") as stream:
        assert (await stream.event()).data["record_id"] == "b"


@pytest.mark.parametrize("bad", ["x", "1", "WzFd.AAAAAAAAAAAAAAAAAAAAAA", "\xff"])
async def test_a_bad_last_event_id_is_refused_before_the_stream(
    service: Service, acme: Standing, app: Application, bad: str
) -> None:
    headers = {**acme.viewer.headers, "last-event-id": bad}
    async with listening(app, acme.path + "/events", headers) as stream:
        assert stream.status == 400
        assert b"cursor.invalid" in await stream.body()


ACCEPTED = [
    ("text/event-stream", True),
    ("TEXT/EVENT-STREAM ; charset=utf-8;q=0.001", True),
    ("application/json, text/event-stream", True),
    ("application/json;q=0.5, text/event-stream;q=0.6", True),
    ("text/event-stream;q=0", False),
    ("text/event-stream; Q=0.000", False),
    ("application/json, text/event-stream;q=0.5", False),
    ("text/*, */*", False),
    ("text/event-stream;q=0.1, */*", False),
    ("text/event-stream;q=0.9, application/*", False),
    ("text/event-stream, application/json;q=0.5, */*", True),
    ("", False),
]


@pytest.mark.parametrize(("accept", "streamed"), ACCEPTED, ids=[accept for accept, _ in ACCEPTED])
async def test_a_stream_is_for_those_who_prefer_it(
    service: Service, acme: Standing, app: Application, accept: str, streamed: bool
) -> None:
    async with listening(app, acme.path + "/events", {**acme.viewer.headers, "accept": accept}) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == ("text/event-stream" if streamed else "application/json")


async def test_a_stream_does_not_choose_between_two_places_to_resume(service: Service, acme: Standing) -> None:
    headers = {**acme.viewer.headers, "accept": "text/event-stream"}
    twice = [*headers.items(), ("last-event-id", "x"), ("last-event-id", "y")]
    answer = await service.client.request("GET", acme.path + "/events", headers=twice)
    problem(answer, 400, "request.malformed")


async def test_a_stream_hears_nothing_of_other_organizations(
    service: Service, acme: Standing, app: Application
) -> None:
    other = await service.organization("Other")
    async with listening(app, acme.path + "/events", acme.viewer.headers) as stream:
        await make(service, other, "theirs")
        await make(service, acme, "mine")
        assert [(await stream.event()).data["record_id"] for _ in range(2)] == [None, "mine"]
    async with listening(app, acme.path + "/events", other.owner.headers) as stream:
        assert stream.status == 404


async def _suspended(service: Service, acme: Standing) -> None:
    answer = await service.ask("POST", acme.path + "/suspend", acme.owner)
    assert answer.status_code == 200


async def _removed(service: Service, acme: Standing) -> None:
    await service.app.storage.run(SCOPE, _without_member, acme)


async def _without_member(tx: Any, acme: Standing) -> None:
    await tx.remove(tables.memberships, acme.id, acme.viewer.user_id)


async def _expired(service: Service, acme: Standing) -> None:
    service.watch.advance(minutes=16)


ENDS = [
    (_suspended, "organization.suspended"),
    (_removed, "auth.token_invalid"),
    (_expired, "auth.token_invalid"),
]


@pytest.mark.parametrize(("revoke", "code"), ENDS, ids=[revoke.__name__[1:] for revoke, _ in ENDS])
async def test_a_stream_ends_with_the_access_before_it_tells_more(
    service: Service, acme: Standing, revoke: Any, code: str
) -> None:
    """By looking, without being woken, as when another process has revoked it."""
    app = built(service, look=0.01)
    async with listening(app, acme.path + "/events", acme.viewer.headers) as stream:
        await make(service, acme, "a")
        assert (await stream.event()).type == "collection.created"
        assert (await stream.event()).type == "record.created"
        await revoke(service, acme)
        end = await stream.event()
        assert (end.type, end.data, end.id) == ("end", {"code": code}, None)
        assert await stream.next() is None


async def test_a_stream_ends_with_the_api_key_that_it_was_opened_with(service: Service, acme: Standing) -> None:
    program = await service.program(acme, Role.VIEWER)
    async with listening(built(service, look=0.01), acme.path + "/events", program.headers) as stream:
        await make(service, acme, "a")
        assert (await stream.event()).type == "collection.created"
        assert (await stream.event()).type == "record.created"
        assert (await service.ask("DELETE", f"{acme.path}/api_keys/{program.key_id}", acme.admin)).status_code == 204
        end = await stream.event()
        assert (end.type, end.data) == ("end", {"code": "auth.token_invalid"})


async def test_what_happens_after_a_revocation_is_not_told(service: Service, acme: Standing, app: Application) -> None:
    """Access is looked at before the events: what was written in between is seen by nobody."""
    async with listening(app, acme.path + "/events", acme.viewer.headers, "start=now") as stream:
        await _removed(service, acme)
        await make(service, acme, "secret")
        assert (await stream.event()).type == "end"
        assert await stream.next() is None


async def test_a_stream_holds_no_transaction_while_it_waits(service: Service, acme: Standing) -> None:
    """What another writes meanwhile is found by the next look, and nothing waits for the stream."""
    app = built(service, look=0.01)
    async with listening(app, acme.path + "/events", acme.viewer.headers) as stream:
        for number in range(20):
            await make(service, acme, f"r{number}")
        told = [await stream.event() for _ in range(21)]
        assert [event.data["seq"] for event in told] == list(range(1, 22))


async def test_a_stream_shows_that_it_is_alive(service: Service, acme: Standing) -> None:
    app = built(service, look=0.001, heartbeat=0.0)
    async with listening(app, acme.path + "/events", acme.viewer.headers) as stream:
        told = [await stream.next() for _ in range(4)]
    assert all(one is not None and one.type is None for one in told)


async def test_streams_are_bounded_and_their_places_come_back(service: Service, acme: Standing) -> None:
    other = await service.organization("Other")
    app = built(service, total=2, each=1)
    mine, theirs = acme.path + "/events", other.path + "/events"
    async with listening(app, mine, acme.viewer.headers), listening(app, theirs, other.owner.headers) as second:
        assert second.status == 200
        async with listening(app, mine, acme.owner.headers) as refused:
            assert (refused.status, refused.headers["retry-after"]) == (429, "10")
        third = await service.organization("Third")
        async with listening(app, third.path + "/events", third.owner.headers) as refused:
            assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    async with listening(app, mine, acme.owner.headers) as stream:
        assert stream.status == 200


async def test_the_bench_has_streams_beside_the_product(service: Service, acme: Standing) -> None:
    await make(service, acme, "a")
    async with listening(bench.server.plain(service.app), acme.path + "/events", acme.viewer.headers) as stream:
        assert stream.status == 200
        assert (await stream.event()).type == "collection.created"


async def test_head_of_a_stream_has_an_end(service: Service, acme: Standing, app: Application) -> None:
    async with listening(app, acme.path + "/events", acme.viewer.headers, method="HEAD") as stream:
        assert stream.status == 200
        assert await stream.body() == b""


async def test_a_server_that_stops_ends_its_streams(service: Service, acme: Standing) -> None:
    ready: asyncio.Future[Bound] = asyncio.get_running_loop().create_future()
    options = ServerOptions(public=Address("127.0.0.1", 0), management=Address("127.0.0.1", 0), shutdown_seconds=600)
    served = application.serving(service.app)
    server = asyncio.create_task(serve(served.public, served.management, options, ready=ready.set_result))
    reader, writer = await asyncio.open_connection("127.0.0.1", (await ready).public)
    head = f"GET {acme.path}/events HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n"
    writer.write(f"{head}authorization: Bearer {acme.viewer.token}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    server.cancel()
    rest = await asyncio.wait_for(reader.read(), 30)
    assert rest.endswith(b"0\r\n\r\n"), "the answer is complete"
    with pytest.raises(asyncio.CancelledError):
        await server
    writer.close()
