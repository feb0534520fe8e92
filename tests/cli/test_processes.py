"""``serve --workers``: several processes on one port, as people and supervisors meet them."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orgstead.api.listening import Address, SharedPort, bind
from orgstead.cli import channel, process
from orgstead.cli.attempts import Places, RemoteThrottles
from orgstead.cli.channel import Channel, ChannelClosed
from orgstead.errors import ConfigurationError, OrgsteadError, RateLimited, SchemaOutdated, Unavailable
from orgstead.settings import Settings
from orgstead.throttles import Throttles
from tests.cli.conftest import ORGSTEAD, Run

PATIENCE = 60
"""Seconds after which a test that waits has failed. Nothing is expected to take them."""

WRONG = {"email": "nobody@example.com", "password": "not the password"}


class Service:
    """``served.py`` with two processes: its ports, and what it wrote."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        started = self.wait_for(lambda line: line["event"] == "service.started")
        self.public, self.management = started["public"], started["management"]

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next line of its log that is wanted."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.lines.append(json.loads(text))
            if wanted(self.lines[-1]):
                return self.lines[-1]
        raise AssertionError(f"it ended with {self.process.wait()}: {self.lines}")

    def ask(self, port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(connection):
            headers = {"content-type": "application/json"} if body else {}
            content = json.dumps(body) if body else None
            connection.request("POST" if body else "GET", path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        text = self.ask(self.management, "/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (.+)$", text, re.MULTILINE))

    def children(self) -> list[int]:
        """The processes that serve."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


def command(folder: Path, manner: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("served.py")), str(folder), manner, "2"]


@contextmanager
def running(folder: Path, manner: str = "well") -> Iterator[Service]:
    process = subprocess.Popen(command(folder, manner), stderr=subprocess.PIPE, text=True)
    try:
        yield Service(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("data")) as found:
        yield found


# --- one service ------------------------------------------------------------------------------------------------------


def test_requests_are_counted_together_whoever_answers(service: Service) -> None:
    before = service.metric("orgstead_http_requests_total")
    for _ in range(20):
        assert service.ask(service.public, "/v1/nothing")[0] == 404
        assert service.ask(service.management, "/readyz") == (200, '{"status":"ready"}')
    assert service.metric("orgstead_http_requests_total") == before + 20
    assert service.metric("orgstead_serving_processes") == 2
    labels = set(re.findall(r'process_open_fds{process="(.)"}', service.ask(service.management, "/metrics")[1]))
    assert labels == {"0", "1", "2"}


def test_guesses_are_counted_together_whoever_answers(service: Service) -> None:
    statuses = [service.ask(service.public, "/admin/login", WRONG)[0] for _ in range(14)]
    assert statuses == [401] * 10 + [429] * 4


def test_a_process_that_dies_is_replaced_and_its_counts_stay(service: Service) -> None:
    service.ask(service.public, "/v1/nothing")
    counted = service.metric("orgstead_http_requests_total")
    victim = service.children()[0]
    os.kill(victim, signal.SIGKILL)
    line = service.wait_for(lambda line: line["event"] == "process.ended")
    assert (line["pid"], line["exit_code"]) == (victim, -signal.SIGKILL)
    while service.metric("orgstead_serving_processes") < 2:
        assert service.ask(service.management, "/readyz")[0] == 200
    assert service.metric("orgstead_process_restarts_total") == 1
    assert service.metric("orgstead_http_requests_total") == counted
    for _ in range(20):
        assert service.ask(service.public, "/v1/nothing")[0] == 404, "the port's share of the dead one is served"


# --- start and end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them(signum: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path) as service:
        children = service.children()
        service.process.send_signal(signum)
        service.wait_for(lambda line: line["event"] == "service.stopped")
        assert service.process.wait(PATIENCE) == 0
        assert {line["level"] for line in service.lines} == {"info"}
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_second_interrupt_cuts_what_runs(tmp_path: Path) -> None:
    with running(tmp_path, "hangs") as service, socket.create_connection(("127.0.0.1", service.public)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        service.wait_for(lambda line: line["event"] == "request.hangs")
        service.process.send_signal(signal.SIGINT)
        while True:  # until the first has been heard: the port is closed
            try:
                socket.create_connection(("127.0.0.1", service.public)).close()
            except ConnectionError:
                break
        service.process.send_signal(signal.SIGINT)
        service.wait_for(lambda line: line["event"] == "service.stopped")
        assert service.process.wait(PATIENCE) == 0


def test_processes_do_not_outlive_the_one_that_started_them(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        children = [os.pidfd_open(pid) for pid in service.children()]
        service.process.kill()
        for child in children:
            assert select.select([child], [], [], PATIENCE)[0], "it goes on"
            os.close(child)


@pytest.mark.parametrize(
    ("manner", "code", "said"),
    [
        ("fails", 8, "error storage.unavailable: The database is not there.\nnext: start it\n"),
        ("dies", 1, "error service.internal: No process came as far as serving"),
    ],
)
def test_where_none_can_serve_the_reason_is_told_once(manner: str, code: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path, manner), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 2


def test_the_embedded_database_is_served_by_one_process(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    by_flag = cli("serve", "--workers", "2")
    monkeypatch.setenv("ORGSTEAD_HTTP__WORKERS", "2")
    for result in (by_flag, cli("serve")):
        assert (result.code, result.out) == (2, "")
        assert "One process writes this database" in result.err


@pytest.mark.parametrize("command", [("serve",), ("serve", "--role", "worker"), ("worker",), ("up",)], ids=" ".join)
def test_a_database_that_cannot_be_written_is_not_served(
    command: tuple[str, ...], cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("db", "upgrade").code == 0
    found = os.statvfs(".")
    read_only = os.statvfs_result((*tuple(found)[:8], found.f_flag | os.ST_RDONLY, found.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    result = cli(*command)
    assert (result.code, "started" in result.err) == (8, False)
    assert "storage.read_only" in result.err
    assert "next: give the account that runs orgstead the right to write" in result.err


def test_the_background_work_alone_has_a_management_port(folder: Path, cli: Run) -> None:
    assert cli("db", "upgrade").code == 0
    worker = subprocess.Popen(
        [*ORGSTEAD, "serve", "--role", "worker", "--management-port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert worker.stderr is not None
    try:
        line = json.loads(worker.stderr.readline())
        assert (line["event"], line["role"], "api" in line) == ("service.started", "worker", False)
        port = int(line["management"].rpartition(":")[2])
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
        worker.send_signal(signal.SIGTERM)
        assert json.loads(worker.communicate(timeout=PATIENCE)[1].splitlines()[-1])["event"] == "service.stopped"
        assert worker.returncode == 0
    finally:
        worker.kill()
        worker.communicate()


# --- the port ---------------------------------------------------------------------------------------------------------


def arrivals(listener: socket.socket) -> int:
    """How many connections wait in this socket."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over sockets")
def test_connections_are_spread_and_go_to_those_who_are_left() -> None:
    with closing(SharedPort(Address("127.0.0.1", 0), 2)) as port:
        for withdrawn in (False, True):
            if withdrawn:
                port.withdraw(0)
            clients = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(64)]
            got = [0 if withdrawn else arrivals(port.take(0)), arrivals(port.take(1))]
            assert sum(got) == 64
            assert min(got) > 0 or withdrawn
            for client in clients:
                client.close()
        assert arrivals(port.take(0)) == 0, "bound anew"


def test_a_shared_port_is_shared_with_nobody_else() -> None:
    with closing(SharedPort(Address("127.0.0.1", 0), 2)) as port:
        for again in (
            lambda: SharedPort(Address("127.0.0.1", port.port), 2),
            lambda: bind(Address("127.0.0.1", port.port)),
        ):
            with pytest.raises(ConfigurationError, match=f"Port {port.port} is taken by process {os.getpid()}"):
                again()


# --- how they talk ----------------------------------------------------------------------------------------------------


def test_settings_arrive_as_they_were_secrets_included() -> None:
    settings = Settings.model_validate(
        {
            "secret_key": SecretStr("canary-1"),
            "migration_url": "scheme://owner:canary-2@host/db",
            "plans": {"gold": {"placement": "dedicated"}},
            "trusted_proxies": "10.0.0.0/8, 127.0.0.1",
            "jwt": {"retired_key_files": "a.pem,b.pem"},
        }
    )
    assert process.unpacked(process.packed(settings)) == settings


@pytest.mark.parametrize("error", [SchemaOutdated(next="do"), RateLimited("Wait.", retry_after=3), OrgsteadError("x")])
def test_errors_arrive_as_what_they_were(error: OrgsteadError) -> None:
    arrived = channel.as_error(channel.as_plain(error))
    assert (arrived.detail, arrived.next, arrived.retry_after) == (error.detail, error.next, error.retry_after)
    assert isinstance(arrived, type(error))


async def joined(throttles: Throttles) -> tuple[RemoteThrottles, Places, Channel, Channel]:
    """A serving process's throttles, and the places it holds in those of the first process."""
    ours, theirs = socket.socketpair()
    places = Places(throttles)
    first, serving = await Channel.open(ours, places.handlers()), await Channel.open(theirs, {})
    return RemoteThrottles(serving), places, first, serving


async def guess(throttles: RemoteThrottles, *, right: bool = False, error: Exception | None = None) -> None:
    async with throttles.attempt("a@example.com", "192.0.2.1") as attempt:
        if error:
            raise error
        if right:
            attempt.succeeded()


@pytest.mark.anyio
async def test_attempts_count_as_they_do_in_one_process() -> None:
    remote, _, first, serving = await joined(Throttles(pair=3))
    await guess(remote)
    for error in (Unavailable(), Unavailable(), Unavailable(), ValueError()):
        with pytest.raises(type(error)):
            await guess(remote, error=error)
    await guess(remote)
    with pytest.raises(RateLimited) as refused:
        await guess(remote, right=True)
    assert refused.value.retry_after
    await serving.close()
    await first.close()


@pytest.mark.anyio
async def test_an_attempt_given_up_while_it_waits_leaves_nothing_behind() -> None:
    remote, _, first, serving = await joined(Throttles(pair=1, max_wait_seconds=PATIENCE))
    held = asyncio.Event()

    async def hold() -> None:
        async with remote.attempt("a@example.com", "192.0.2.1") as attempt:
            await held.wait()
            attempt.succeeded()

    holding = asyncio.ensure_future(hold())
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(guess(remote))
    await asyncio.sleep(0)
    waiting.cancel()
    held.set()
    await holding
    await asyncio.wait_for(guess(remote, right=True), PATIENCE)
    await serving.close()
    await first.close()


@pytest.mark.anyio
async def test_what_a_dead_process_was_trying_counts_as_wrong() -> None:
    throttles = Throttles(pair=1)
    remote, places, first, serving = await joined(throttles)
    attempt = remote.attempt("a@example.com", "192.0.2.1")
    await attempt.__aenter__()
    await serving.close()
    await first.closed.wait()
    await places.release()
    await first.close()
    with pytest.raises(RateLimited):
        async with throttles.attempt("a@example.com", "192.0.2.1"):
            raise AssertionError
    with pytest.raises(ChannelClosed):
        await serving.ask("reserve")
