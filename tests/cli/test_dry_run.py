"""``--dry-run``: what a command would do is what it does without it, and the database is the same before and after."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orgstead import importing, placements, record_import
from orgstead.model import Placement
from orgstead.storage import open_storage, tables
from orgstead.storage.port import SystemScope, Transaction
from tests.cli.conftest import ORGSTEAD, Run
from tests.engines import Database, new_database, selected

SCOPE = SystemScope("tests")


@pytest.fixture(params=selected())
async def database(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Database]:
    """An empty database of each engine in turn."""
    async with new_database(request.param) as database:
        yield database


@pytest.fixture
def on(cli: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands on that database."""
    for name, value in database.variables.items():
        monkeypatch.setenv(name, value)
    return cli


def test_what_an_upgrade_would_apply_is_what_it_applies(on: Run, database: Database) -> None:
    before = content(database)
    said = [on("db", "upgrade", "--dry-run", "--json") for _ in range(2)]
    assert [result.code for result in said] == [3, 3]
    assert said[0].out == said[1].out
    assert [version["version"] for version in json.loads(said[0].out)] == [1, 2]
    assert "nothing was changed" in said[0].err
    assert content(database) == before
    assert on("db", "check").code != 0

    assert json.loads(on("db", "upgrade", "--json").out)["schema_version"] == 2
    result = on("db", "upgrade", "--dry-run", "--json")
    assert (result.code, result.out) == (0, "[]\n")
    assert "nothing to do" in result.err
    assert on("db", "upgrade", "--dry-run", "--quiet").err == ""


def test_an_upgrade_that_would_be_refused_is_refused(cli: Run, folder: Path) -> None:
    (folder / "other.db").write_bytes(b"another program's" * 100)
    before = content(Database(f"sqlite:///{folder / 'other.db'}"))
    for args in ((), ("--dry-run",)):
        result = cli("db", "upgrade", *args, "--database-url", "sqlite:///other.db")
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("error configuration.invalid: ")
    assert content(Database(f"sqlite:///{folder / 'other.db'}")) == before


# --- imports ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def upgraded(on: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands on a database with its schema; imports take few lines at once, so that a small file is many."""
    monkeypatch.setattr(importing, "BATCH", 3)
    monkeypatch.setattr(record_import, "BATCH", 3)
    assert on("db", "upgrade").code == 0
    return on


def imported(run: Run, database: Database, *command: str, made_up: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The outcomes of the command, which its dry run has said before it, changing nothing: the same line by line, but
    for ids that are ``made_up`` when something is made."""
    before = content(database)
    said, report = run(*command, "--dry-run", "-o", "jsonl"), run(*command, "--dry-run", "--report", "dry.csv")
    assert content(database) == before
    done = run(*command, "-o", "jsonl")
    would, did = [[json.loads(line) for line in result.out.splitlines()] for result in (said, done)]
    results = {"would_create": "created", "would_rename": "renamed", "created": None, "renamed": None}
    assert [{**o, "result": results.get(o["result"], o["result"]), **dict.fromkeys(made_up)} for o in would] == [
        {**o, **dict.fromkeys(made_up)} for o in did
    ]
    assert all(o[name] is None for o in would if o["result"].startswith("would_") for name in made_up)
    refused, changed = (any(o["result"] in names for o in did) for names in (("refused",), ("created", "renamed")))
    assert (said.code, done.code) == (1 if refused else 3 if changed else 0, 1 if refused else 0), said.err
    assert report.code == said.code
    assert "created" not in report.out + said.out
    assert "othing was changed" in said.err
    assert sum(map(int, (line.split()[1] for line in report.out.splitlines()))) == 2 * len(did)
    Path("dry.csv").unlink()
    return did


def test_an_import_of_organizations_comes_to_what_its_dry_run_says(
    upgraded: Run, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORGSTEAD_PLACEMENT__WARN_DEDICATED", "0")
    monkeypatch.setenv("ORGSTEAD_PLACEMENT__MAX_DEDICATED", "3")
    assert upgraded("org", "create", "Acme", "--external-id", "there").code == 0
    lines = [f"a-{number},Acme,,,ada@example.com" for number in range(5)]
    lines += ["a-1,Again,,,", "there,There,,,", "c,!!!,,,", "d,Api,,,", "e,Plan,,nope,"]
    lines += [f"big-{number},Big {number},,enterprise," for number in range(5)]
    lines += ["f,Slug,acme-7,,", *(f"g-{number},Acme,,,bob@example.com" for number in range(4)), "big-0,Big,,,"]
    (folder / "in.csv").write_text("\n".join(["external_id,name,slug,plan,owner_email", *lines]), encoding="utf-8")
    command = ("org", "import", "in.csv")
    outcomes = imported(upgraded, database, *command, made_up=["organization_id"])
    slugs = [o["slug"] for o in outcomes if o["external_id"].startswith("g-")]
    assert slugs == ["acme-8", "acme-9", "acme-10", "acme-11"], "numbers go on from one batch to the next"
    assert [o["result"] for o in outcomes[10:15]] == ["created"] * 3 + ["refused"] * 2, "the budget is for all batches"
    (folder / "in.csv").write_text("external_id,name\na-1,Acme\nthere,There\n", encoding="utf-8")
    assert [o["result"] for o in imported(upgraded, database, *command)] == ["exists", "exists"]
    (folder / "in.csv").write_text("external_id,name\nnew,Novo\nalso,Novo\n", encoding="utf-8")
    assert [o["slug"] for o in imported(upgraded, database, *command, made_up=["organization_id"])] == [
        "novo",
        "novo-2",
    ]
    assert upgraded("fsck", "--json").out == "[]\n"


@pytest.mark.parametrize("plan", ["free", "enterprise"])
def test_an_import_of_records_comes_to_what_its_dry_run_says(
    upgraded: Run, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    monkeypatch.setenv(f"ORGSTEAD_PLANS__{plan.upper()}__PLACEMENT", "dedicated" if plan == "enterprise" else "pooled")
    monkeypatch.setenv(f"ORGSTEAD_PLANS__{plan.upper()}__MAX_RECORDS", "9")
    monkeypatch.setenv(f"ORGSTEAD_PLANS__{plan.upper()}__MAX_COLLECTIONS", "2")
    assert upgraded("org", "create", "Acme", "--external-id", "x", "--plan", plan).code == 0
    assert upgraded("collection", "define", "goods", "--org", "acme", "--unique", "code").code == 0
    lines = ["id,code", "a,1", "b,2", "b,9", "c,1", "d,3", "a,8", "c,4", "bad id,5", "e,2", "f,5", "g,6"]
    lines += [f"h{number},1{number}" for number in range(5)]
    (folder / "in.csv").write_text("\n".join(lines), encoding="utf-8")
    command = ("record", "import", "in.csv", "--org", "acme", "--id-column", "id")
    outcomes = imported(upgraded, database, *command, "-c", "goods")
    created = [o["record_id"] for o in outcomes if o["result"] == "created"]
    assert created == ["a", "b", "d", "c", "f", "g", "h0", "h1", "h2"], "the quota is for all batches"
    assert {"b", "c", "e"} <= {o["record_id"] for o in outcomes if o["result"] != "created"}
    assert imported(upgraded, database, *command, "-c", "more")[-1]["reason"].startswith("The organization's plan ")
    assert {o["result"] for o in imported(upgraded, database, *command, "-c", "beyond")} == {"refused"}


def test_records_of_many_organizations_and_without_ids_are_rehearsed_too(
    upgraded: Run, database: Database, folder: Path
) -> None:
    for name in ("Acme", "Brew"):
        assert upgraded("org", "create", name, "--external-id", name).code == 0
    lines = ["org,id,n", *(f"{org},{number % 4},1" for number in range(6) for org in ("acme", "brew", "nobody"))]
    lines += ["Acme,1,1", "Brew,7,1"]  # by another name of the same
    (folder / "in.csv").write_text("\n".join(lines), encoding="utf-8")
    command = ("record", "import", "in.csv", "-c", "goods", "--org-column", "org", "--id-column", "id")
    outcomes = imported(upgraded, database, *command)
    assert [sum(o["result"] == result for o in outcomes) for result in ("created", "exists", "refused")] == [9, 5, 6]
    (folder / "in.csv").write_text("n\n1\n1\n1\n1\n", encoding="utf-8")
    again = imported(
        upgraded, database, "record", "import", "in.csv", "-c", "goods", "--org", "acme", made_up=["record_id"]
    )
    assert [o["result"] for o in again] == ["created"] * 4


def test_an_archive_becomes_what_its_dry_run_says(upgraded: Run, database: Database, folder: Path) -> None:
    assert upgraded("org", "create", "Acme", "--external-id", "x-1", "--plan", "enterprise").code == 0
    (folder / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n', encoding="utf-8")
    assert upgraded("record", "import", "in.jsonl", "-c", "goods", "--org", "acme").code == 0
    assert upgraded("org", "suspend", "acme").code == 0
    assert upgraded("org", "export", "acme", "acme.zip").code == 0
    before = content(database)
    said = upgraded("org", "import", "acme.zip", "--dry-run", "--json")
    assert said.code == 3
    assert "acme is taken or reserved here" in said.err
    assert "nothing was changed" in said.err
    assert content(database) == before
    would, did = json.loads(said.out), json.loads(upgraded("org", "import", "acme.zip", "--json").out)
    assert (would["result"], did["result"]) == ("would_create", "created")
    assert {**would, "result": None, "created_at": None} == {**did, "result": None, "created_at": None}
    assert (did["slug"], did["status"]) == ("acme-2", "suspended")
    before = content(database)
    said = upgraded("org", "import", "acme.zip", "--dry-run", "--json")
    assert (said.code, json.loads(said.out)["result"]) == (0, "exists")
    (folder / "acme.zip").write_bytes((folder / "acme.zip").read_bytes()[:-100])
    for args in ((), ("--dry-run",)):
        result = upgraded("org", "import", "acme.zip", *args)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("error archive.invalid: ")
    assert content(database) == before


def test_a_rehearsal_that_is_interrupted_says_that_nothing_was_changed(cli: Run, folder: Path) -> None:
    assert cli("db", "upgrade").code == 0
    with (folder / "many.csv").open("w", encoding="utf-8") as stream:
        stream.write("external_id,name\n")
        stream.writelines(f"x-{number},Company Number {number}\n" for number in range(20_000))
    command = [*ORGSTEAD, "org", "import", "many.csv", "--dry-run", "-o", "jsonl", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b"interrupted: nothing was changed.\n"
        assert process.wait(timeout=60) == 130
    assert cli("org", "list", "--json").out == "[]\n"


# --- one organization -------------------------------------------------------------------------------------------------

MADE_UP = ("id", "created_at", "updated_at", "purge_at", "dry_run", "collection_name")
"""What differs from one run to the next."""


@pytest.mark.parametrize("plan", ["free", "enterprise"])
def test_a_change_comes_to_what_its_dry_run_says(upgraded: Run, database: Database, plan: str) -> None:
    changes = [
        ("create", "Acme", "--plan", plan),
        ("create", "Acme", "--slug", "acme"),
        ("rename", "acme", "Acme"),
        ("rename", "acme", "Bcme"),
        ("rename", "acme", "Acme"),
        ("rename", "acme", "Another", "--slug", "api"),
        ("suspend", "acme"),
        ("suspend", "acme"),
        ("reactivate", "acme"),
        ("reactivate", "acme"),
        ("delete", "acme", "--yes"),
        ("delete", "acme", "--yes"),
        ("restore", "acme"),
        ("restore", "nobody"),
    ]
    codes = []
    for change in changes:
        before = content(database)
        said = upgraded("org", *change, "--dry-run", "--json", "--no-input")
        assert content(database) == before, change
        done = upgraded("org", *change, "--json")
        codes.append((said.code, done.code))
        if done.code:
            assert (said.code, said.out, said.err) == (done.code, "", done.err)
            continue
        would, did = json.loads(said.out), json.loads(done.out)
        assert would["dry_run"] is True
        assert {**would, **dict.fromkeys(MADE_UP)} == {**did, **dict.fromkeys(MADE_UP)}, change
        assert "nothing was changed" in said.err
    assert codes == [
        (3, 0),
        (7, 7),
        (0, 0),
        (3, 0),
        (3, 0),
        (2, 2),
        (3, 0),
        (7, 7),
        (3, 0),
        (7, 7),
        (3, 0),
        (7, 7),
        (3, 0),
        (5, 5),
    ]
    assert upgraded("fsck", "--json").out == "[]\n"


def test_where_it_could_not_be_said_truthfully_there_is_no_dry_run(cli: Run) -> None:
    assert cli("db", "upgrade").code == 0
    assert cli("org", "create", "Acme").code == 0
    result = cli("org", "delete", "acme", "--purge", "--confirm", "acme", "--dry-run")
    assert (result.code, result.err.split(":")[0]) == (2, "error usage")
    assert cli("org", "get", "acme").code == 0
    for command in (("org", "list"), ("demo", "load"), ("collection", "define", "goods", "--org", "acme")):
        assert cli(*command, "--dry-run").code == 2


# --- what a dry run may not touch -------------------------------------------------------------------------------------


def content(database: Database) -> object:
    """Everything that a command could have changed: the files of an embedded database, or what a server answers."""
    if database.url.startswith("sqlite:"):
        folder = Path(database.url.removeprefix("sqlite:///")).parent
        files = (file for file in folder.iterdir() if not file.name.endswith("-shm"))  # it indexes the log, for readers
        return {file.name: file.read_bytes() for file in files if file.stat().st_size}
    return asyncio.run(_content(database))


async def _content(database: Database) -> object:
    storage = await open_storage(database.url, migration_url=database.migration_url, writable=False)
    try:
        pending = await storage.pending()
        if pending:
            return pending
        spaces = [placements.space_of(placement) for placement in await storage.read(SCOPE, _placements)]
        return [
            *[await storage.digest(SCOPE, table) for table in tables.DIRECTORY],
            *[await storage.digest(space, table) for space in spaces for table in tables.SPACE],
        ]
    finally:
        await storage.close()


async def _placements(tx: Transaction) -> list[Placement]:
    return await tx.page(tables.placements, limit=100)
