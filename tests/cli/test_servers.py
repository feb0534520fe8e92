"""The commands on a database server: what is told where it cannot be reached or used, and several writers at once."""

from __future__ import annotations

import json
import secrets
import socketserver
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from pydantic import SecretStr
from pymongo.errors import ServerSelectionTimeoutError

from orgstead.cli.up import Start, told
from orgstead.settings import Settings
from orgstead.storage import unreached
from orgstead.storage.mongodb import failures
from tests.cli.conftest import ORGSTEAD, Result, Run
from tests.cli.test_up import API, FREE_PORTS, MANAGEMENT, running
from tests.engines import new_database

NOWHERE = "postgresql://someone:canary-31@127.0.0.1:1/orgstead?deadline_ms=100"


@pytest.fixture
async def urls(anyio_backend: str) -> AsyncIterator[tuple[str, str]]:
    """A new database on a server: its URL for the service's role and for its owner."""
    async with new_database("postgres") as database:
        assert database.migration_url is not None
        yield database.url, database.migration_url


@pytest.fixture
def server(urls: tuple[str, str], cli: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands on a database server whose schema is this version's."""
    monkeypatch.setenv("ORGSTEAD_DATABASE_URL", urls[0])
    monkeypatch.setenv("ORGSTEAD_MIGRATION_URL", urls[1])
    assert cli("db", "upgrade").code == 0
    return cli


def findings(result: Result, check: str) -> list[tuple[str, str]]:
    return [(row["status"], row["detail"]) for row in json.loads(result.out) if row["check"] == check]


# --- where there is no server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("org", "list"), ("db", "current"), ("db", "upgrade"), ("org", "create", "Acme")])
def test_a_server_that_does_not_answer_is_unavailable(args: tuple[str, ...], cli: Run) -> None:
    result = cli(*args, "--database-url", NOWHERE)
    assert (result.code, result.out) == (8, "")
    assert result.err == (
        "error storage.unavailable: The database did not answer: the connection was refused, so nothing listens there."
        " Nothing was changed.\nnext: orgstead doctor\n"
    )


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """Host and port of a server that says this to everybody and goes; None: says nothing, and stays."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if answer is None:
                over.wait()
                return
            with suppress(OSError):
                self.request.recv(4096)
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("no-such-host.invalid:1", "the name of its host is unknown"),
        (None, "nothing came back in time"),
        (b"", "the connection was cut; what listens there may be another kind of server"),
        (HTTP, "what listens there is another kind of server"),
    ],
    ids=["unknown", "silent", "cut", "http"],
)
def test_why_a_server_cannot_be_reached_is_said(where: str | bytes | None, said: str, cli: Run) -> None:
    with nullcontext(where) if isinstance(where, str) else answering(where) as place:
        url = f"postgresql://someone:canary-31@{place}/orgstead?deadline_ms=300"
        for args in (("org", "list"), ("db", "current"), ("doctor", "--json")):
            result = cli(*args, "--database-url", url)
            assert f"The database did not answer: {said}. Nothing was changed." in result.out + result.err
            assert "canary" not in result.out + result.err


def test_why_a_mongodb_cannot_be_reached_is_said(cli: Run) -> None:
    url = "mongodb://someone:canary-31@127.0.0.1:1/orgstead?serverSelectionTimeoutMS=300&timeoutMS=600"
    for args in (("org", "list"), ("db", "current"), ("doctor", "--json")):
        result = cli(*args, "--database-url", url)
        assert "The database did not answer: the connection was refused" in result.out + result.err
        assert "canary" not in result.out + result.err


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("db:1: [Errno -2] Name or service not known (configured timeouts: …)", unreached.UNKNOWN_HOST),
        ("db:1: timed out (configured timeouts: …)", unreached.SILENT),
        ("db:1: connection is already closed (configured timeouts: …)", unreached.CUT),
        ("Message length (1347703880) is larger than server max message size (48000000)", unreached.FOREIGN),
    ],
)
def test_what_the_driver_of_mongodb_says_is_understood(text: str, cause: str) -> None:
    told = failures.at_start(ServerSelectionTimeoutError(text))
    assert str(told) == str(unreached.unreached(cause))


def test_doctor_says_where_it_looked_and_shows_no_password(cli: Run) -> None:
    result = cli("doctor", "--json", "--database-url", NOWHERE)
    assert result.code == 6
    (row,) = (row for row in json.loads(result.out) if row["check"] == "database")
    assert (row["status"], "127.0.0.1:1/orgstead" in row["next"]) == ("fail", True)
    assert "canary" not in result.out + result.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_ends_where_the_server_does_not_answer(workers: str, folder: Path) -> None:
    done = subprocess.run(
        [*ORGSTEAD, "serve", "--workers", workers, *FREE_PORTS, "--database-url", NOWHERE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 8
    assert done.stderr.splitlines()[0].startswith("error storage.unavailable: ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgres://host/db", "postgresql:"),
        ("postgresql+driver://host/db", "postgresql:"),
        ("sqlite3:///file.db", "sqlite:"),
        ("mysql://host/db", "sqlite:///orgstead-data/main.db"),
        ("no url", "sqlite:///orgstead-data/main.db"),
    ],
)
def test_a_url_of_no_engine_is_answered_with_one_that_works(url: str, meant: str, cli: Run) -> None:
    for args in (("org", "list"), ("serve",), ("db", "upgrade")):
        result = cli(*args, "--database-url", url)
        assert result.code == 1
        assert result.err.startswith("error configuration.invalid: ")
        assert result.err.rstrip().endswith(meant)
    assert cli("doctor", "--database-url", url).code == 6


def test_up_tells_what_it_made_on_a_server() -> None:
    settings = Settings(database_url="postgresql://a:canary-32@host/db")
    text = told(Start(settings, True, 1, "Server 1.2", "postgresql://host/db", None), API, MANAGEMENT)
    assert "✓ Database         Server 1.2, postgresql://host/db\n" in text
    assert "✓ Key file         ./orgstead-data/secret.key (mode 0600)\n" in text
    assert "canary" not in text
    closed = settings.model_copy(update={"signup": "closed", "secret_key": SecretStr("k" * 40)})
    text = told(Start(closed, True, 1, "Server 1.2", "postgresql://host/db", None), API, MANAGEMENT)
    assert "Key file" not in text
    assert "the key was made" not in text
    assert "while the service is stopped" not in text


# --- on a server ------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_as_one(server: Run, urls: tuple[str, str]) -> None:
    parts = urlsplit(urls[0])
    wrong = urlunsplit(parts._replace(netloc=parts.netloc.replace(":", ":canary-33", 1)))
    result = server("org", "list", "--database-url", wrong)
    assert result.code == 1
    assert "role or its password" in result.err
    assert "canary" not in result.err
    ((status, detail),) = findings(server("doctor", "--json", "--database-url", wrong), "database")
    assert (status, "role or its password" in detail) == ("fail", True)


def test_doctor_knows_the_server_and_asks_for_no_folder(server: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_SECRET_KEY", secrets.token_hex(32))
    monkeypatch.setenv("ORGSTEAD_HTTP__WORKERS", "2")
    result = server("doctor", "--json")
    assert result.code == 0
    for check in ("server version", "rights", "isolation", "durability", "server clock", "connections", "placements"):
        assert [status for status, _ in findings(result, check)] == ["ok"], check
    assert findings(result, "data folder") == findings(result, "disk") == []
    monkeypatch.setenv("ORGSTEAD_HTTP__WORKERS", "200")
    assert findings(server("doctor", "--json"), "connections")[0][0] == "fail"


def test_only_the_owner_upgrades(urls: tuple[str, str], cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_DATABASE_URL", urls[0])
    refused = cli("db", "upgrade")
    assert refused.code == 1
    assert "next: set ORGSTEAD_MIGRATION_URL" in refused.err
    assert cli("db", "upgrade", "--database-url", urls[1]).code == 0


def test_commands_write_beside_a_service_of_two_processes(server: Run) -> None:
    with running("serve", "--workers", "2", *FREE_PORTS) as line:
        assert line["processes"] == 2
        made = server("org", "create", "Acme", "--plan", "enterprise", "--json")
        assert made.code == 0
        assert server("org", "delete", "acme", "--purge", "--confirm", "acme").code == 0
        assert json.loads(server("fsck", "--json").out) == []


def test_up_makes_the_schema_once(urls: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_DATABASE_URL", urls[0])
    monkeypatch.setenv("ORGSTEAD_MIGRATION_URL", urls[1])
    for new in (True, False):
        with running("up", *FREE_PORTS) as line:
            assert line["new"] is new
        monkeypatch.delenv("ORGSTEAD_MIGRATION_URL", raising=False)  # the second start needs the owner no more
    assert [path.name for path in (folder / "orgstead-data").iterdir()] == ["secret.key"]
