"""The brief's flow against a running service, by the curl commands of ``docs/mongodb.md``: what is in the databases."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from asyncio import to_thread
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest

from tests.cli.test_up import FREE_PORTS, running
from tests.engines import new_database, selected
from tests.pages import objects, snippets
from tests.servers import mongodb
from tests.support import PROJECT

PAGE = (PROJECT / "docs" / "mongodb.md").read_text(encoding="utf-8")
START, CREATE, RENAME, PURGE = snippets(PAGE)
LOOK, *SHOWN = snippets(PAGE, "js")

END = "end of the answers"
PATIENCE = 60


class Shell:
    """One shell that runs the page's commands, so that what one sets the next can use."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._process = subprocess.Popen(
            ["bash", "-euo", "pipefail"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answers(self, code: str) -> list[dict[str, Any]]:
        """The JSON objects that the commands print."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(code.replace("http://127.0.0.1:8410", self._api) + f"\necho; echo '{END}'\n")
        self._process.stdin.flush()
        said = ""
        for line in self._process.stdout:
            if line.strip() == END:
                break
            said += line
        else:
            raise AssertionError(f"a command fails after {said!r}")
        return objects(said)

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Databases:
    """A client past the service: what an operator sees."""

    def __init__(self, url: str) -> None:
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongodb.server().uri)
        self.master = self._client[urlsplit(url).path.removeprefix("/")]
        self._data = self._client[f"{self.master.name}_data"]

    def own(self) -> list[str]:
        """The collections of organizations of their own, as the page shows them."""
        return sorted(name for name in self._data.list_collection_names() if name.startswith("org_"))

    def counted(self) -> tuple[int, ...]:
        """How many documents the collections of the master database hold that the brief names, and the links."""
        return tuple(self.master[name].count_documents({}) for name in ("organizations", "users", "memberships"))

    def close(self) -> None:
        self._client.close()


async def test_the_five_routes_and_what_each_does_to_the_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "mongodb" not in selected():
        pytest.skip("ORGSTEAD_TEST_ENGINES leaves mongodb out")
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to run the page's commands with")
    monkeypatch.chdir(tmp_path)
    async with new_database("mongodb") as database:
        for name in [name for name in os.environ if name.startswith("ORGSTEAD_")]:
            monkeypatch.delenv(name)
        for name, value in database.variables.items():
            monkeypatch.setenv(name, value)
        await to_thread(_flow, database.url)


def _flow(url: str) -> None:
    assert [line.split()[:2] for line in START.splitlines()[1:]] == [["orgstead", "db"], ["orgstead", "serve"]]
    subprocess.run([sys.executable, "-m", "orgstead", "db", "upgrade"], check=True, capture_output=True)
    databases = Databases(url)
    with running("serve", *FREE_PORTS) as line:
        shell = Shell(line["api"])
        try:
            assert databases.counted() == (0, 0, 0)
            created, read = shell.answers(CREATE)
            (document,) = databases.master["organizations"].find()
            assert created["organization"] == read
            assert (document["_id"], document["name"], document["slug"]) == (read["id"], "Acme", "acme")
            assert databases.counted() == (1, 1, 1)
            assert databases.own() == shown(0) == [read["collection_name"]] == ["org_acme"]

            (renamed,) = shell.answers(RENAME)
            (document,) = databases.master["organizations"].find()
            assert (document["_id"], document["name"], document["slug"]) == (read["id"], "Acme Labs", "acme-labs")
            assert databases.own() == shown(1) == [renamed["collection_name"]] == ["org_acme-labs"]

            (purged,) = shell.answers(PURGE)
            assert (purged["id"], purged["status"]) == (read["id"], "purged")
            assert databases.own() == shown(2) == []
            assert databases.counted() == (0, 1, 0)
            (refused,) = shell.answers('curl -sS "$api/org/get?organization_name=Acme" -H "$bearer"')
            assert refused["status"] == 401
        finally:
            shell.close()
            databases.close()


def shown(place: int) -> list[str]:
    """The organizations' own collections as the page shows them at this place."""
    found: list[str] = json.loads(SHOWN[place].replace("'", '"'))
    return found


def test_the_page_looks_where_the_test_does() -> None:
    assert LOOK.count("getCollectionNames()") == 2
    assert '"orgstead_data"' in LOOK
    assert 'startsWith("org_")' in LOOK
    assert len(SHOWN) == 3
