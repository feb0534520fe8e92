"""``orgstead up`` and ``serve``: from an empty folder to answers, and what is said at each start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orgstead.cli.demo import Loaded
from orgstead.cli.up import Start, told
from orgstead.settings import Settings
from tests.cli.conftest import ORGSTEAD, Run

API, MANAGEMENT = "http://127.0.0.1:1", "http://127.0.0.1:2"
FREE_PORTS = ("--port", "0", "--management-port", "0")


@contextmanager
def running(*args: str) -> Iterator[dict[str, Any]]:
    """A service as a process of its own: yields the log line of its start; SIGTERM must end it with 0."""
    process = subprocess.Popen([*ORGSTEAD, *args], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        assert first.startswith("{"), first + process.stderr.read()
        yield json.loads(first)
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=30)[1].splitlines()
        assert process.returncode == 0
        assert all(json.loads(line) for line in rest), "without a terminal every line is JSON"
        assert json.loads(rest[-1])["event"] == "service.stopped"
    finally:
        process.kill()
        process.wait()


def test_up_makes_what_it_needs_answers_and_stops(folder: Path) -> None:
    with running("up", *FREE_PORTS) as line:
        assert (line["event"], line["new"]) == ("service.started", True)
        assert line["api"] == f"http://{line['listening']}"
        with urllib.request.urlopen(f"{line['management']}/readyz") as answer:
            assert answer.status == 200
        body = {"organization_name": "Acme", "email": "a@example.com", "password": "quiet river 4711"}
        request = urllib.request.Request(
            f"{line['api']}/org/create", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 201
    data = folder / "orgstead-data"
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / "secret.key").stat().st_mode & 0o777 == 0o600
    with running("serve", *FREE_PORTS) as line:
        assert line["mode"] == "dev"
    with running("up", *FREE_PORTS) as line:
        assert line["new"] is False


def test_the_start_says_where_it_listens_behind_a_proxy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_PUBLIC_URL", "https://orgs.example.com")
    with running("up", *FREE_PORTS) as line:
        assert line["api"] == "https://orgs.example.com"
        with socket.create_connection(("127.0.0.1", int(line["listening"].removeprefix("127.0.0.1:")))):
            pass


@pytest.mark.parametrize(("flag", "other"), [("--port", "--management-port"), ("--management-port", "--port")])
def test_a_taken_port_names_the_process_and_the_flag(flag: str, other: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*ORGSTEAD, "up", flag, port, other, "0"], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert f"Port {port} is taken by process {os.getpid()}" in done.stderr
    assert f"{flag} " in done.stderr.partition("next: ")[2]
    assert "Traceback" not in done.stderr


def test_production_does_not_start_without_a_secret(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_MODE", "production")
    for args in (("up",), ("serve",)):
        done = subprocess.run([*ORGSTEAD, *args, *FREE_PORTS], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error ")
        assert "\nnext: " in done.stderr


def test_serve_refuses_an_old_schema(folder: Path) -> None:
    (folder / "old.db").touch()
    command = [*ORGSTEAD, "serve", *FREE_PORTS, "--database-url", "sqlite:///old.db"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "error schema.outdated" in done.stderr
    assert "next: orgstead db upgrade" in done.stderr


# --- what people are told -------------------------------------------------------------------------------------------


def start(*, new: bool = True, demo: Loaded | None = None, **settings: Any) -> Start:
    return Start(
        Settings(**settings), new=new, schema_version=1, server="Engine 1.2", url="engine://host/db", demo=demo
    )


def test_the_first_start_tells_all_there_is_to_know() -> None:
    text = told(start(demo=Loaded(12, 340)), API, MANAGEMENT)
    for part in (
        "./orgstead-data (new; Engine 1.2, key file mode 0600)",
        "version 1",
        "12 organizations, 340 members (remove: orgstead demo drop)",
        f"{API}/v1",
        f"{MANAGEMENT}/readyz",
        f"curl -X POST {API}/org/create",
        "orgstead doctor",
        "Ctrl+C",
    ):
        assert part in text


def test_the_printed_command_is_a_valid_request_with_a_password_of_its_own() -> None:
    bodies = []
    for _ in range(2):
        quoted = told(start(), API, MANAGEMENT).partition("-d ")[2].splitlines()[0]
        shown = subprocess.run(["sh", "-c", f"printf %s {quoted}"], capture_output=True, text=True, check=True)
        bodies.append(json.loads(shown.stdout))
    assert bodies[0].keys() == {"organization_name", "email", "password"}
    assert bodies[0]["password"] != bodies[1]["password"]


def test_later_starts_are_one_line_without_secrets() -> None:
    text = told(start(new=False), API, MANAGEMENT)
    assert len(text.splitlines()) == 1
    assert API in text
    assert "password" not in text


def test_sign_up_decides_the_first_step() -> None:
    token = told(start(signup="token", signup_token=SecretStr("canary-5d")), API, MANAGEMENT)
    assert "$ORGSTEAD_SIGNUP_TOKEN" in token
    assert "canary-5d" not in token
    closed = told(start(signup="closed"), API, MANAGEMENT)
    assert "curl" not in closed
    assert "orgstead org create" in closed
