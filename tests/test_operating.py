"""The commands of ``docs/operating.md``, run in their order against a PostgreSQL server of the test's own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.pages import languages, snippets
from tests.servers import EngineUnavailable, postgres
from tests.support import PROJECT

TEXT = (PROJECT / "docs" / "operating.md").read_text(encoding="utf-8")
SECRETS, POSTGRES, SERVE, BACKUP, RESTORE = snippets(TEXT)
PATIENCE = 60


@pytest.fixture
def server() -> Iterator[postgres.LocalServer]:
    """A PostgreSQL server without any role of ours."""
    try:
        started = postgres.new_server()
    except EngineUnavailable as error:
        pytest.skip(f"postgres cannot be started: {error}")
    try:
        yield started
    finally:
        started.remove()


def environment(folder: Path, programs: Path, password: str) -> dict[str, str]:
    """A shell that has the commands on its path, and the superuser's password where psql looks for it."""
    tools = folder / "tools"
    tools.mkdir()
    tool = tools / "orgstead"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orgstead "$@"\n')
    tool.chmod(0o755)
    (folder / "deploy").symlink_to(PROJECT / "deploy")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORGSTEAD_", "PG"))}
    return {**clean, "PATH": f"{tools}:{programs}:{clean['PATH']}", "PGPASSWORD": password}


def test_it_is_all_run_but_what_needs_docker_or_mongosh() -> None:
    assert sorted(languages(TEXT)) == ["js", "sh", "sh", "sh", "sh", "sh", "text"]


def test_from_an_empty_server_to_a_restored_backup(server: postgres.LocalServer, tmp_path: Path) -> None:
    environ = environment(tmp_path, server.programs, server.password)

    def placed(code: str) -> str:
        """With the address and the superuser of the test's server in place of the page's."""
        code = code.replace("localhost", "127.0.0.1").replace("5432", str(server.port))
        return code.replace("PGUSER=postgres", "PGUSER=tests").replace("--username=postgres", "--username=tests")

    def run(code: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", placed(code)],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(SECRETS)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    settings = POSTGRES.partition("orgstead db upgrade")[0].replace("PGHOST", "[ -e made ] || PGHOST") + "touch made\n"
    findings = run(POSTGRES + "touch made\n")
    assert re.search(r"^isolation +ok ", findings, re.MULTILINE)
    run(settings + "orgstead org create Acme --plan enterprise\norgstead org create Other")

    served = placed(SERVE).strip() + " --port 0 --management-port 0"
    service = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", placed(settings) + f"exec {served}"],
        cwd=tmp_path,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert service.stderr is not None
    try:
        started = json.loads(service.stderr.readline())
        assert (started["event"], started["processes"]) == ("service.started", 2)
        management = started["management"].partition("//")[2]
        with closing(http.client.HTTPConnection(management, timeout=PATIENCE)) as connection:
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
        run(BACKUP)  # beside the service
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) == 0
    finally:
        service.kill()
        service.communicate()

    listing = "orgstead org list --json"
    before = json.loads(run(settings + listing))
    assert [organization["slug"] for organization in before] == ["acme", "other"]
    run(settings + RESTORE)
    restored = re.search(r'--database-url "[^"]+"', RESTORE)
    assert restored is not None
    assert json.loads(run(settings + f"{listing} {restored[0]}")) == before
