"""The outermost layer: what holds for every request, whatever its route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from orgstead.api import access_log, application
from orgstead.api.ended import Ended, EndedRequests
from orgstead.api.errors import render
from orgstead.api.hosts import Hosts
from orgstead.api.limits import Application, BodyOptions, Receive, Scope, Send
from orgstead.api.metrics import RequestMetrics
from orgstead.api.outer import Outer, OuterOptions
from orgstead.api.proxies import Proxies
from orgstead.errors import NameTaken, UnknownHost

pytestmark = pytest.mark.anyio

OPTIONS = OuterOptions(allowed_hosts=["example.com"])


@dataclass
class Answer:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers[b"content-type"] == b"application/problem+json"
        read: dict[str, Any] = json.loads(self.body)
        assert read["status"] == self.status
        assert read["request_id"].encode() == self.headers[b"x-request-id"]
        return read


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


def failing(error: BaseException) -> Application:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


async def ask(
    app: Application,
    path: str = "/v1/me",
    *,
    method: str = "GET",
    headers: list[tuple[bytes, bytes]] | None = None,
    query: bytes = b"",
    body: bytes = b"",
    client: tuple[str, int] | None = ("192.0.2.1", 4000),
    scope: dict[str, Any] | None = None,
) -> Answer:
    scope = {} if scope is None else scope
    scope |= {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(b"host", b"example.com")] if headers is None else headers,
        "client": client,
    }
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0
            answer.status = message["status"]
            names = [name for name, _ in message["headers"]]
            assert len(names) == len(set(names))
            answer.headers = dict(message["headers"])
        else:
            answer.body += message["body"]

    await app(scope, receive, send)
    return answer


def outer(app: Application = hello, options: OuterOptions = OPTIONS, **parts: Any) -> Outer:
    return Outer(app, options, render=render, **parts)


# --- request ids ---


async def test_a_sane_request_id_is_kept_and_handed_on() -> None:
    scope: dict[str, Any] = {}
    sent = [(b"host", b"example.com"), (b"x-request-id", b"trace-1234.A_b")]
    answer = await ask(outer(), headers=sent, scope=scope)
    assert answer.headers[b"x-request-id"] == b"trace-1234.A_b"
    assert scope["state"]["request_id"] == "trace-1234.A_b"


@pytest.mark.parametrize(
    "given", [b"", b"short", b"x" * 65, b"has space", b"new\nline!", b"<script>", "ünïcödé".encode()]
)
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    answer = await ask(outer(), headers=[(b"host", b"example.com"), (b"x-request-id", given)])
    again = await ask(outer(), headers=[(b"host", b"example.com"), (b"x-request-id", given)])
    assert answer.headers[b"x-request-id"].startswith(b"req_")
    assert answer.headers[b"x-request-id"] != again.headers[b"x-request-id"]


# --- headers for browsers ---


async def test_answers_of_the_api_are_data() -> None:
    headers = (await ask(outer())).headers
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-security-policy"] == b"default-src 'none'; frame-ancestors 'none'"
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"
    assert b"strict-transport-security" not in headers
    assert headers[b"content-type"] == b"application/json"


async def test_refusals_have_the_same_headers() -> None:
    answer = await ask(outer(), headers=[(b"host", b"other.example")])
    plain = await ask(outer())
    assert answer.status == 400
    assert set(plain.headers) < set(answer.headers)
    assert answer.headers[b"cache-control"] == b"no-store"


async def test_https_is_only_demanded_where_it_is_used() -> None:
    secure = outer(options=OuterOptions(allowed_hosts=["*"], https=True))
    assert b"max-age=" in (await ask(secure)).headers[b"strict-transport-security"]


@pytest.mark.parametrize(("path", "relaxed"), [("/docs", True), ("/docs/x.js", True), ("/docsx", False), ("/", False)])
async def test_only_the_documentation_may_run_its_own_scripts(path: str, relaxed: bool) -> None:
    headers = (await ask(outer(), path)).headers
    policy = headers[b"content-security-policy"]
    assert (b"cross-origin-opener-policy" in headers) is relaxed
    assert (b"script-src 'self'" in policy) is relaxed
    assert policy.startswith(b"default-src 'none'")
    assert b"frame-ancestors 'none'" in policy
    assert b"unsafe-eval" not in policy


async def test_an_answer_may_say_itself_how_it_is_cached() -> None:
    async def keys(scope: Scope, receive: Receive, send: Send) -> None:
        cached = [(b"cache-control", b"public, max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": cached})
        await send({"type": "http.response.body", "body": b""})

    assert (await ask(outer(keys))).headers[b"cache-control"] == b"public, max-age=60"


# --- hosts ---

GOOD_HOSTS = [b"example.com", b"EXAMPLE.com", b"example.com:8410", b"example.com.", b"a.wild.example", b"[::1]:80"]
BAD_HOSTS = [
    None,
    b"",
    b"other.example",
    b"wild.example",
    b"notexample.com",
    b"example.com.evil",
    b"example.com/abc?bar=",
    b"@evil",
    b"example.com@evil",
    b"evil@example.com",
    b"example.com:80:80",
    b"example.com:99999",
    b"example.com:x",
    b"example.com, evil",
    b"example.com evil",
    b"[::1",
    b"[::1]x",
    b"[::2]",
    b"[example.com]",
    b"example..com/",
    b"-",
    b"." * 300,
    "exämple.com".encode(),
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_allowed_hosts_are_served_however_they_are_written(host: bytes) -> None:
    app = outer(options=OuterOptions(allowed_hosts=["example.com", "*.wild.example", "::1"]))
    for _ in range(2):  # the second is remembered
        assert (await ask(app, headers=[(b"host", host)])).status == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_other_and_malformed_hosts_are_refused(host: bytes | None) -> None:
    app = outer(options=OuterOptions(allowed_hosts=["example.com", "*.wild.example", "::1"]))
    for _ in range(2):
        answer = await ask(app, headers=[] if host is None else [(b"host", host)])
        assert (answer.status, answer.problem["code"]) == (400, "request.host_unknown")


@pytest.mark.parametrize("host", [None, b"", b"@evil", b"example.com/abc?bar=", b"a b", b"[zz]"])
async def test_any_host_is_still_any_well_formed_host(host: bytes | None) -> None:
    app = outer(options=OuterOptions(allowed_hosts=["*"]))
    assert (await ask(app, headers=[(b"host", b"what.ever:1")])).status == 200
    assert (await ask(app, headers=[] if host is None else [(b"host", host)])).status == 400


async def test_two_hosts_are_none() -> None:
    answer = await ask(outer(), headers=[(b"host", b"example.com"), (b"host", b"example.com")])
    assert answer.problem["code"] == "request.host_unknown"


def test_remembered_hosts_are_bounded() -> None:
    hosts = Hosts(["*"])
    for number in range(5000):
        hosts.check(b"h%d.example" % number)
    assert len(hosts._known) < 1000
    with pytest.raises(UnknownHost):
        hosts.check(b"@")


@pytest.mark.parametrize(
    "name", [b"content-type", b"content-length", b"content-encoding", b"idempotency-key", b"last-event-id"]
)
async def test_what_may_be_said_once_is_not_said_twice(name: bytes) -> None:
    twice = [(b"host", b"example.com"), (name, b"0"), (name, b"0")]
    assert (await ask(outer(), headers=twice)).problem["code"] == "request.malformed"


async def test_other_headers_may_repeat() -> None:
    twice = [(b"host", b"example.com"), (b"accept", b"*/*"), (b"accept", b"text/html")]
    assert (await ask(outer(), headers=twice)).status == 200


# --- the client's address ---

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7, 10.2.3.4", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "10.9.9.9", "10.9.9.9"),
        ("10.0.0.1", "198.51.100.7, junk", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7, junk, 10.2.3.4", "10.2.3.4"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1," * 500 + "10.2.3.4", "1.1.1.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
    ],
)
async def test_proxies_are_believed_only_as_far_as_they_are_ours(peer: str, forwarded: str, client: str) -> None:
    scope: dict[str, Any] = {}
    headers = [(b"host", b"example.com"), (b"x-forwarded-for", forwarded.encode())]
    options = OuterOptions(allowed_hosts=["example.com"], trusted_proxies=TRUSTED)
    assert (await ask(outer(options=options), headers=headers, client=(peer, 9), scope=scope)).status == 200
    assert scope["client"] == (client, 9)


async def test_several_forwarded_headers_are_one_list() -> None:
    scope: dict[str, Any] = {}
    name = b"x-forwarded-for"
    headers = [(b"host", b"example.com"), (name, b"1.1.1.1"), (name, b"198.51.100.7, 10.1.1.1"), (name, b"10.2.2.2")]
    options = OuterOptions(allowed_hosts=["example.com"], trusted_proxies=TRUSTED)
    await ask(outer(options=options), headers=headers, client=("10.0.0.1", 9), scope=scope)
    assert scope["client"] == ("198.51.100.7", 9)


def test_nobody_is_believed_by_default() -> None:
    assert Proxies().client("127.0.0.1", b"198.51.100.7") == "127.0.0.1"


async def test_a_client_without_address_is_served() -> None:
    headers = [(b"host", b"example.com"), (b"x-forwarded-for", b"1.1.1.1")]
    assert (await ask(outer(), headers=headers, client=None)).status == 200


# --- targets ---


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/" + "a" * 8191, b"", 200),
        ("/" + "a" * 8192, b"", 414),
        ("/a", b"q" * 8190, 200),
        ("/a", b"q" * 8191, 414),
        ("*", b"", 400),
        ("@evil", b"", 400),
        ("/a\x00b", b"", 400),
        ("/a", b"name=a%00b", 400),
    ],
)
async def test_targets_are_paths_of_bounded_length(path: str, query: bytes, status: int) -> None:
    assert (await ask(outer(), path, query=query)).status == status


# --- bodies ---


async def test_the_body_is_judged_and_then_read_as_usual() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": (await receive())["body"]})

    headers = [(b"host", b"example.com"), (b"content-type", b"application/json"), (b"content-length", b"7")]
    assert (await ask(outer(echo), method="POST", headers=headers, body=b'{"a":1}')).body == b'{"a":1}'
    assert (await ask(outer(echo), method="POST", headers=headers, body=b'{"a":NaN}')).status == 400


# --- failures ---


async def test_errors_of_ours_are_rendered() -> None:
    assert (await ask(outer(failing(NameTaken())))).problem["code"] == "organization.name_taken"


async def test_a_fault_is_logged_with_its_traceback_and_answered_without_its_text() -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await ask(outer(failing(RuntimeError("secret canary"))))
    assert (answer.status, answer.problem["code"]) == (500, "service.internal")
    assert b"canary" not in answer.body
    (entry,) = logs
    assert entry["exc_info"]
    assert entry["request_id"].encode() == answer.headers[b"x-request-id"]


async def test_a_fault_after_the_answer_began_is_logged_and_sends_nothing_more() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise RuntimeError("too late")

    with structlog.testing.capture_logs() as logs:
        answer = await ask(outer(breaks))
    assert (answer.status, answer.body) == (200, b"")
    assert len(logs) == 1


async def test_a_cancelled_request_is_told_and_stays_cancelled() -> None:
    """The server cancels what still runs when it stops."""
    running = asyncio.Event()
    answered: list[Answer] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        running.set()
        await asyncio.Event().wait()

    async def request() -> None:
        answer = Answer()

        async def send(message: Any) -> None:
            answer.status = answer.status or message["status"]

        answered.append(answer)
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": None}
        await outer(waits)(scope | {"headers": [(b"host", b"example.com")]}, never, send)

    async def never() -> Any:
        await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answered[0].status == 503


# --- deadlines ---

SOON = OuterOptions(allowed_hosts=["example.com"], deadline_seconds=0.02)


async def test_a_request_that_takes_too_long_is_given_up() -> None:
    ended: list[str] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    answer = await ask(outer(waits, SOON))
    assert (answer.status, answer.problem["code"]) == (503, "service.deadline_exceeded")
    assert answer.headers[b"retry-after"] == b"1"
    assert ended == ["cleaned up"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_of_many_requests_has_its_own_deadline() -> None:
    app = outer(hold := Held(), SOON)
    slow = [asyncio.create_task(ask(app)) for _ in range(5)]
    quick = await ask(app, "/quick")
    assert [answer.status for answer in await asyncio.gather(*slow)] == [503] * 5
    assert quick.status == 200
    assert hold.held == 5
    assert not app._deadlines._due
    assert not app._deadlines._late


async def test_a_deadline_needs_no_later_request_to_be_kept() -> None:
    app = outer(Held(), SOON)
    first = asyncio.create_task(ask(app))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(ask(app))
    answers = await asyncio.wait_for(asyncio.gather(first, second), 30)
    assert [answer.status for answer in answers] == [503, 503]


async def test_an_application_that_answers_nothing_leaves_nothing_behind() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return None

    app = outer(silent)
    assert (await ask(app)).status == 0
    assert not app._deadlines._due


class Held:
    """Answers /quick; holds every other request until it is cancelled."""

    def __init__(self) -> None:
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/quick":
            self.held += 1
            await asyncio.Event().wait()
        await hello(scope, receive, send)


async def test_a_fault_while_being_cancelled_is_still_a_deadline() -> None:
    """Drivers turn a cancellation into errors of their own."""

    async def confused(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("connection in a strange state") from None

    assert (await ask(outer(confused, SOON))).problem["code"] == "service.deadline_exceeded"


async def test_an_answer_that_has_begun_may_take_longer() -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await asyncio.sleep(0.08)
        await send({"type": "http.response.body", "body": b"whole"})

    assert (await ask(outer(streams, SOON))).body == b"whole"


async def test_the_time_of_a_slow_body_is_not_the_requests_own() -> None:
    options = OuterOptions(
        allowed_hosts=["example.com"], deadline_seconds=0.02, body=BodyOptions(idle_seconds=0.05, max_bytes=100)
    )

    async def never() -> Any:
        await asyncio.Event().wait()

    answer = Answer()

    async def send(message: Any) -> None:
        answer.status = answer.status or message["status"]

    headers = [(b"host", b"example.com"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "client": None, "headers": headers}
    await outer(options=options)(scope, never, send)
    assert answer.status == 408


@pytest.mark.parametrize("header", [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")])
async def test_a_method_without_a_body_gets_none(header: tuple[bytes, bytes]) -> None:
    answer = await ask(outer(), headers=[(b"host", b"example.com"), header], body=b"x")
    assert (answer.status, answer.problem["code"]) == (400, "request.malformed")


# --- what is written down ---


class Route:
    path = "/v1/organizations/{organization_id}"


async def routed(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"].startswith("/v1/organizations/"):
        scope["route"] = Route
    await hello(scope, receive, send)


async def test_each_request_is_one_line_without_its_query() -> None:
    written: list[bytes] = []
    requests = EndedRequests(lambda ended: written.append(access_log.lines(ended)))
    app = outer(routed, ended=requests)
    sent = [(b"host", b"example.com"), (b"x-request-id", b"trace-1234"), (b"authorization", b"Bearer canary")]
    await ask(app, "/v1/organizations/org_1", headers=sent, query=b"key=canary")
    await ask(app, "/nowhere\r\n{forged}" + "x" * 500, headers=[])
    assert not written
    requests.flush()
    (block,) = written
    first, second = (json.loads(line) for line in block.splitlines())
    assert first["request_id"] == "trace-1234"
    assert (first["method"], first["path"], first["status"]) == ("GET", "/v1/organizations/org_1", 200)
    assert first["route"] == Route.path
    assert first["client"] == "192.0.2.1"
    assert first["time"].endswith("Z")
    assert first["duration_ms"] >= 0
    assert (second["route"], second["status"]) == ("unmatched", 400)
    assert len(second["path"]) <= 200
    assert b"canary" not in block


async def test_requests_are_handed_on_soon_without_being_asked() -> None:
    taken: asyncio.Queue[Sequence[Ended]] = asyncio.Queue()
    app = outer(ended=EndedRequests(taken.put_nowait, interval=0.001))
    for _ in range(2):
        await ask(app)
        assert len(await asyncio.wait_for(taken.get(), 30)) == 1


async def test_requests_wait_for_others_but_not_for_too_many() -> None:
    taken: list[Sequence[Ended]] = []
    requests = EndedRequests(taken.append, taken.append, interval=3600)
    app = outer(ended=requests)
    for _ in range(999):
        await ask(app)
    assert not taken
    for _ in range(501):
        await ask(app)
    for _ in range(2):
        requests.flush()
    assert [len(batch) for batch in taken] == [1000, 1000, 500, 500]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed file")])
async def test_a_log_that_cannot_be_written_costs_no_count(error: Exception) -> None:
    metrics = RequestMetrics()

    def broken(lines: bytes) -> None:
        raise error

    application.accounts(metrics, broken).add(ended(0.001))
    ((*_, buckets, _),) = metrics.snapshot()
    assert sum(buckets) == 1


def test_another_event_loop_hands_on_what_it_adds_and_what_was_left() -> None:
    taken: list[Ended] = []
    requests = EndedRequests(taken.extend, interval=3600)

    async def add(count: int) -> None:
        for _ in range(count):
            requests.add(ended(0.001))

    asyncio.run(add(1))
    asyncio.run(add(2000))
    assert len(taken) >= 1000
    requests.flush()
    assert len(taken) == 2001


def test_a_path_that_no_encoding_knows_costs_no_other_line() -> None:
    text = access_log.lines([ended(0.1, "/a"), ended(0.1, "/\ud800")])
    assert [json.loads(line)["path"] for line in text.splitlines()] == ["/a", "'/\\ud800'"]


async def test_metrics_know_templates_and_classes_only() -> None:
    metrics = RequestMetrics()
    app = outer(routed, ended=application.accounts(metrics))
    for organization in ("org_canary1", "org_canary2"):
        await ask(app, f"/v1/organizations/{organization}")
    await ask(app, "/canary", headers=[])
    await ask(app, method="CANARY")
    registry = CollectorRegistry()
    registry.register(metrics)
    text = generate_latest(registry).decode()
    labels = f'method="GET",route="{Route.path}",status="2xx"'
    assert f"orgstead_http_requests_total{{{labels}}} 2.0" in text
    assert f"orgstead_http_request_duration_seconds_count{{{labels}}} 2.0" in text
    assert 'orgstead_http_requests_total{method="GET",route="unmatched",status="4xx"} 1.0' in text
    assert 'orgstead_http_requests_total{method="other",route="unmatched",status="2xx"} 1.0' in text
    assert "canary" not in text.lower()


def ended(duration: float, path: str = "/") -> Ended:
    return Ended(
        time=datetime.now(UTC),
        request_id="r",
        method="GET",
        path=path,
        route="/",
        status=200,
        duration_ms=duration * 1000,
        client="",
    )


def test_durations_fall_into_their_buckets() -> None:
    metrics = RequestMetrics()
    metrics.count(map(ended, (0.0005, 0.001, 0.02, 99.0)))
    registry = CollectorRegistry()
    registry.register(metrics)

    def at_most(bound: str) -> float | None:
        labels = {"method": "GET", "route": "/", "status": "2xx", "le": bound}
        return registry.get_sample_value("orgstead_http_request_duration_seconds_bucket", labels)

    assert [at_most(bound) for bound in ("0.001", "0.01", "0.025", "10.0", "+Inf")] == [2, 2, 3, 3, 4]


async def test_every_request_is_counted_however_many_come_before_somebody_looks() -> None:
    metrics = RequestMetrics()
    requests = application.accounts(metrics)
    for number in range(1, 1001):
        requests.add(ended(0.001))
        if number in (1, 700):
            ((*_, buckets, seconds),) = metrics.snapshot()
            assert (sum(buckets), round(seconds, 6)) == (number, number / 1000)
    total = RequestMetrics()
    total.include(metrics.snapshot())
    registry = CollectorRegistry()
    registry.register(total)
    labels = {"method": "GET", "route": "/", "status": "2xx"}
    assert registry.get_sample_value("orgstead_http_requests_total", labels) == 1000


# --- other than HTTP ---


async def test_only_lifespan_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return None

    for kind in ("lifespan", "websocket"):
        await outer(app)({"type": kind}, nothing, nothing)
    assert seen == ["lifespan"]
