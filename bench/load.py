"""Closed-loop load: each of several connections sends its next request when it has the answer to the last.

``wrk`` makes the load where it is installed and the requests repeat; else, and where each request is a new one, the
client below does, in one thread over raw sockets, so that the server stays the slower side.
"""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter

NextRequest = Callable[[], bytes]
HOST = "127.0.0.1"
_BIGGEST = 65_536


class BadAnswer(RuntimeError):
    """The server answered something else than what was expected, so that its speed says nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """``answers`` within ``seconds``."""

    answers: int
    seconds: float


def request(method: str, path: str, *, token: str = "", body: object = None) -> bytes:
    """An HTTP/1.1 request as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def repeated(port: int, requests: Sequence[bytes], *, connections: int, seconds: float, status: bytes = b"200") -> Load:
    """Load of the same requests in turn; all must be answered with ``status``, to ``wrk`` any success is as good."""
    if shutil.which("wrk"):
        return _wrk(port, requests, connections, seconds)
    return closed_loop(port, cycle(requests).__next__, connections=connections, seconds=seconds, status=status)


def closed_loop(
    port: int, next_request: NextRequest, *, connections: int, seconds: float, status: bytes = b"200"
) -> Load:
    """Load of whatever ``next_request`` gives. Raises ``BadAnswer`` for another status than ``status``."""
    clients = [Client(port) for _ in range(connections)]
    by_number = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    try:
        answers = 0
        began = perf_counter()
        until = began + seconds
        for client in clients:
            client.send(next_request())
        while (now := perf_counter()) < until:
            for number, _ in poll.poll(until - now):
                client = by_number[number]
                if client.receive(status):
                    answers += 1
                    client.send(next_request())
        # What is in flight was not answered in time and does not count, but must not run into the next measurement.
        for client in clients:
            client.wait(status)
        return Load(answers, now - began)
    finally:
        poll.close()
        for client in clients:
            client.socket.close()


class Client:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def status(self) -> bytes:
        """The status code of the answer."""
        return self.answer[9:12]

    def send(self, request: bytes) -> None:
        self.answer = b""
        self.socket.sendall(request)

    def receive(self, *expected: bytes) -> bool:
        """Read what is there; True when the answer is complete. Raises ``BadAnswer`` for another status."""
        part = self.socket.recv(_BIGGEST)
        if not part:
            raise BadAnswer("The server closed the connection.")
        self.answer += part
        head = self.answer.find(b"\r\n\r\n")
        if head < 0:
            return False
        if self.status not in expected:
            raise BadAnswer(self.answer[:1000].decode("utf-8", "replace"))
        at = self.answer.find(b"content-length: ", 0, head)
        length = int(self.answer[at + 16 : self.answer.find(b"\r\n", at)]) if at >= 0 else 0
        return len(self.answer) >= head + 4 + length

    def wait(self, status: bytes) -> bytes:
        """Read until the answer is complete; its body."""
        while not self.receive(status):
            pass
        return self.answer.partition(b"\r\n\r\n")[2]


def ask(port: int, wanted: bytes, status: bytes = b"200") -> bytes:
    """The body of the answer to one request. Raises ``BadAnswer``, ``OSError``."""
    client = Client(port)
    try:
        client.send(wanted)
        return client.wait(status)
    finally:
        client.socket.close()


_SCRIPT = """
local requests = {%s}
local next = 0
request = function()
  next = next %% #requests + 1
  return requests[next]
end
done = function(summary)
  local failed = summary.errors
  io.write(string.format("RESULT %%d %%d %%d\\n", summary.requests, summary.duration,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
"""


def _wrk(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "requests.lua")
        script.write_text(_SCRIPT % ",".join(json.dumps(wanted.decode()) for wanted in requests))
        # wrk takes whole seconds. An answer may take as long as the product lets it: what is slow has not failed.
        flags = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script)]
        told = subprocess.run(["wrk", *flags, f"http://{HOST}:{port}"], check=True, capture_output=True, text=True)
    line = next(line for line in told.stdout.splitlines() if line.startswith("RESULT "))
    answers, microseconds, failed = map(int, line.split()[1:])
    if failed:
        raise BadAnswer(f"{failed} of {answers} requests failed.")
    return Load(answers, microseconds / 1e6)
