"""Every snippet of the README is run, in its order, by one shell, as a newcomer would."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from asyncio import to_thread
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import new_database, selected
from tests.pages import languages, objects, snippets
from tests.support import HTTP_ON_SERVERS, PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
STOPPED = "<!-- the service is stopped here -->"
ACTIVATED = ". .venv/bin/activate\n"
"""How the first snippet has the shell find the command; other shells of these tests do the same."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """What ``make up`` starts, on free ports; gives its address."""
    settings = {"ORGSTEAD_HTTP__PORT": "0", "ORGSTEAD_MANAGEMENT__PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "orgstead", "up", "--demo"],
        cwd=tmp_path,
        env={**clean_environment(), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield next(e["api"] for e in map(json.loads, process.stdout) if e.get("event") == "service.started")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ORGSTEAD_")}


def run(code: str, folder: Path) -> str:
    """Run the snippets in one shell that stops at the first command that fails."""
    tool = folder / ".venv" / "bin" / "orgstead"
    if not tool.exists():
        tool.parent.mkdir(parents=True)
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orgstead "$@"\n')
        tool.chmod(0o755)
        tool.with_name("activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n')
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ACTIVATED + code],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_only_shell_and_it_is_all_run() -> None:
    assert {*languages(README)} == {"sh"}
    assert README.count(STOPPED) == 1


def test_the_first_screen_names_targets_that_exist() -> None:
    commands = [line.split("#")[0].split() for line in snippets(README)[0].splitlines()]
    assert commands == [["make", "up"], ["make", "test"]]
    if shutil.which("make") is None:
        pytest.skip("there is no make to ask for its targets")
    wanted = {"up": "orgstead up --demo", "test": "pytest"}
    for _, target in commands:
        dry = subprocess.run(["make", "-n", target], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert wanted[target] in dry.stdout


def test_it_says_how_many_http_tests_run_on_servers() -> None:
    (row,) = (line for line in README.splitlines() if "the other HTTP tests" in line)
    assert [int(number) for number in re.findall(r"a sample of (\d+)", row)] == [
        HTTP_ON_SERVERS["postgres"],
        HTTP_ON_SERVERS["mongodb"],
    ]


def test_what_it_shows_with_the_service_running(tmp_path: Path, service: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to run the README's snippets with")
    running = snippets(README.split(STOPPED)[0])[1:]
    assert running[0].startswith(ACTIVATED)
    out = run("\n".join(running).replace("http://127.0.0.1:8410", service), tmp_path)
    created, read, renamed, looked_up, closed, restored, again, *of_records = objects(out)
    assert created["organization"]["collection_name"] == read["collection_name"] == "org_acme"
    assert renamed["collection_name"] == looked_up["collection_name"] == "org_acme-labs"
    assert (closed["status"], restored["status"], again["status"]) == ("closed", "active", "active")
    assert len({o["id"] for o in (created["organization"], read, renamed, looked_up, closed, restored, again)}) == 1
    collection, record, refused, found, usage = of_records[:5]
    assert (collection["name"], record["version"], record["data"]["sku"]) == ("assets", 1, "p-1")
    assert [problem["pointer"] for problem in refused["errors"]] == ["/data/price"]
    assert [one["data"] for one in found["data"]] == [{"sku": "p-1", "price": 120}]
    assert usage["records"]["used"] == 1
    assert [one["id"] for one in of_records[5]["data"]] == [record["id"]], "a program with an API key"


def test_what_it_shows_with_the_service_stopped(tmp_path: Path) -> None:
    run("orgstead db upgrade", tmp_path)
    imported, password, data, production, *_ = snippets(README.split(STOPPED)[1])
    outcomes = objects(run(imported, tmp_path))
    assert [o["result"] for o in outcomes] == ["created", "created", "renamed"]
    assert "owner@mueller.example.com" in run(password, tmp_path)
    *_, again, there, too_many = objects(run(data, tmp_path))
    assert [o["result"] for o in (again, there, too_many)] == ["exists", "exists", "refused"]
    assert "allows 1 record and" in too_many["reason"]
    assert (tmp_path / "scratch" / "crm-1.zip").is_file()
    assert {path.name for path in tmp_path.iterdir()} <= set(IGNORED), "nothing for git to see"
    before, serve, after = production.partition("orgstead serve\n")
    assert "https://orgs.example.com" in run(before, tmp_path)
    assert (served(before + "exec " + serve, tmp_path)["mode"], after) == ("production", "")


IGNORED = [line.rstrip("/") for line in (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()]


def served(code: str, folder: Path) -> dict[str, Any]:
    """The log line of the start of a service, which is then ended."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", ACTIVATED + code],
        cwd=folder,
        env={**clean_environment(), "ORGSTEAD_HTTP__PORT": "0", "ORGSTEAD_MANAGEMENT__PORT": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        return next(line for line in map(json.loads, process.stderr) if line["event"] == "service.started")
    finally:
        process.terminate()
        process.communicate(timeout=30)


ON_SERVERS = {"postgresql": "postgres", "mongodb": "mongodb"}


@pytest.mark.parametrize("scheme", ON_SERVERS)
async def test_what_it_shows_on_a_database_server(tmp_path: Path, scheme: str) -> None:
    if ON_SERVERS[scheme] not in selected():
        pytest.skip(f"{ON_SERVERS[scheme]} is not among the engines that are tested")
    (snippet,) = (code for code in snippets(README) if f"={scheme}://" in code)
    async with new_database(ON_SERVERS[scheme]) as database:
        for variable, value in database.variables.items():
            (shown,) = re.findall(f"{variable}=(.*)", snippet)
            snippet = snippet.replace(shown, shlex.quote(value))
        said = await to_thread(run, snippet, tmp_path)
    assert "schema_version" in said  # and doctor, whose exit code is that of its worst finding, was content
