"""``orgstead org``, ``operation``, ``db``, ``fsck``, ``doctor`` and ``demo`` on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import pytest

from orgstead.cli import local
from orgstead.errors import StorageFull
from orgstead.storage import DEFAULT_URL, open_storage, tables
from orgstead.storage.port import SystemScope, Transaction
from orgstead.storage.sqlite import maintenance
from tests.cli.conftest import ORGSTEAD, Result, Run

Data = Callable[..., Any]


@pytest.fixture
def data(cli: Run) -> Data:
    """Runs a command that must succeed on an upgraded database, and returns its JSON."""
    assert cli("db", "upgrade").code == 0

    def call(*args: str) -> Any:
        result = cli(*args, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    return call


def refused(result: Result, code: int, error: str) -> None:
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"error {error}: ")
    assert "Traceback" not in result.err


# --- org ------------------------------------------------------------------------------------------------------------


def test_the_life_of_an_organization(data: Data, cli: Run) -> None:
    made = data("org", "create", "Acme Labs", "--plan", "enterprise", "--external-id", "crm-1")
    assert (made["slug"], made["collection_name"], made["status"]) == ("acme-labs", "org_acme-labs", "active")
    for which in (made["id"], "acme-labs", "crm-1"):
        assert data("org", "get", which)["id"] == made["id"]

    renamed = data("org", "rename", "acme-labs", "Acme Works")
    assert (renamed["name"], renamed["collection_name"]) == ("Acme Works", "org_acme-works")
    assert data("org", "get", "acme-labs")["id"] == made["id"], "the old slug leads to it"

    assert data("org", "suspend", "acme-works")["suspended_by"] == "operator"
    assert data("org", "reactivate", "acme-works")["status"] == "active"

    closed = data("org", "delete", "acme-works", "--yes")
    assert closed["status"] == "closed"
    assert closed["purge_at"]
    assert data("org", "restore", "acme-works")["purge_at"] is None

    purged = data("org", "delete", "acme-works", "--purge", "--confirm", "acme-works")
    assert purged["state"] == "succeeded"
    assert purged["removed"]["slots"] == 1
    refused(cli("org", "get", made["id"]), 5, "resource.not_found")
    assert data("fsck") == []


def test_a_closed_organization_can_be_purged(data: Data) -> None:
    data("org", "create", "Acme")
    data("org", "delete", "acme", "--yes")
    assert data("org", "delete", "acme", "--purge", "--confirm", "acme")["state"] == "succeeded"


def test_plan_and_slug_are_taken_as_given(data: Data) -> None:
    made = data("org", "create", "Acme", "--slug", "zz-top", "--plan", "pro")
    assert (made["slug"], made["plan"]) == ("zz-top", "pro")
    assert data("org", "rename", "zz-top", "Acme", "--slug", "zz-two")["slug"] == "zz-two"


def test_the_default_plan_is_the_setting(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_DEFAULT_PLAN", "enterprise")
    assert data("org", "create", "Acme")["plan"] == "enterprise"


def test_a_list_crosses_pages_and_filters(data: Data, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PAGE", 2)
    names = [f"Number {number}" for number in range(5)]
    for name in names:
        data("org", "create", name, "--plan", "pro" if name.endswith("3") else "free")
    data("org", "suspend", "number-1")
    assert [row["name"] for row in data("org", "list")] == names
    assert [row["name"] for row in data("org", "list", "--limit", "3")] == names[:3]
    assert [row["name"] for row in data("org", "list", "--limit", "2")] == names[:2]
    assert [row["name"] for row in data("org", "list", "--plan", "pro")] == ["Number 3"]
    assert [row["name"] for row in data("org", "list", "--status", "suspended")] == ["Number 1"]
    assert data("org", "list", "--status", "closed") == []
    assert len(cli("org", "list", "-o", "id").out.splitlines()) == 5


@pytest.mark.parametrize(
    ("args", "code", "error"),
    [
        (("org", "get", "nobody"), 5, "resource.not_found"),
        (("org", "rename", "nobody", "Somebody"), 5, "resource.not_found"),
        (("org", "create", "Acme"), 7, "organization.name_taken"),
        (("org", "create", "admin"), 2, "organization.name_reserved"),
        (("org", "create", "Other", "--slug", "A B"), 2, "organization.slug_invalid"),
        (("org", "create", "Other", "--plan", "golden"), 2, "plan.unknown"),
        (("org", "create", "Other", "--external-id", ""), 2, "request.invalid"),
        (("org", "create", "Other", "--external-id", "crm-1"), 7, "organization.external_id_taken"),
        (("org", "reactivate", "acme"), 7, "organization.status_conflict"),
        (("org", "restore", "acme"), 7, "organization.status_conflict"),
        (("org", "delete", "acme", "--purge"), 2, "organization.confirmation_required"),
        (("org", "delete", "acme", "--purge", "--yes", "--confirm", "acne"), 2, "organization.confirmation_required"),
        (("org", "delete", "acme"), 2, "usage"),
        (("org", "list", "--limit", "0"), 2, "usage"),
        (("operation", "get", "op_none"), 5, "resource.not_found"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    args: tuple[str, ...], code: int, error: str, data: Data, cli: Run
) -> None:
    before = data("org", "create", "Acme", "--external-id", "crm-1")
    refused(cli(*args), code, error)
    assert data("org", "list") == [before]


# --- operation, db, fsck --------------------------------------------------------------------------------------------


def test_operations_are_listed_newest_first(data: Data) -> None:
    first, second = (data("org", "create", name) for name in ("One", "Two"))
    found = data("operation", "list")
    assert [row["org_id"] for row in found] == [second["id"], first["id"]]
    assert [row["org_id"] for row in data("operation", "list", "--organization", "one")] == [first["id"]]
    assert data("operation", "list", "--state", "failed") == []
    assert data("operation", "get", found[0]["id"]) == found[0]


def test_upgrade_may_be_repeated_and_current_tells_the_version(data: Data) -> None:
    assert data("db", "upgrade") == data("db", "upgrade")
    assert data("db", "current")["schema_version"] == data("db", "upgrade")["schema_version"]
    assert "No" not in str(data("db", "current")["url"])


def test_check_tells_programs_that_the_database_is_ready(data: Data) -> None:
    assert data("db", "check")["status"] == "ready"


def test_check_fails_with_6_on_a_database_that_is_not_there(cli: Run) -> None:
    result = cli("db", "check")
    assert result.code == 6
    assert result.err.startswith("error ")
    assert "next: " in result.err


@pytest.mark.parametrize(
    "args",
    [
        ("serve",),
        ("serve", "--role", "worker"),
        ("worker",),
        ("org", "list"),
        ("org", "create", "Acme"),
        ("org", "delete", "acme", "--yes"),
        ("org", "import", "in.csv"),
        ("demo", "load"),
        ("demo", "drop", "--yes"),
        ("fsck", "--repair"),
        ("db", "backup", "copy.db"),
    ],
    ids=" ".join,
)
def test_only_up_and_upgrade_make_a_database(args: tuple[str, ...], cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("external_id,name\n")
    result = cli(*args)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error configuration.invalid: There is no database at ")
    assert [path.name for path in folder.iterdir()] == ["in.csv"]


def test_nothing_is_no_backup(cli: Run, folder: Path) -> None:
    (folder / "empty.db").touch()
    refused(cli("db", "backup", "copy.db", "--database-url", "sqlite:///empty.db"), 1, "configuration.invalid")
    assert [path.name for path in folder.iterdir()] == ["empty.db"]


def test_a_backup_that_finds_no_room_leaves_nothing(
    data: Data, cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_connection: object, partial: Path) -> None:
        partial.with_name(f"{partial.name}-journal").touch()
        raise StorageFull

    monkeypatch.setattr(maintenance, "_copy", full)
    result = cli("db", "backup", "copy.db")
    assert result.code == 8
    assert "next: make room on the disk, then run the same command again\n" in result.err
    assert [path.name for path in folder.iterdir()] == ["orgstead-data"]


def test_a_file_of_another_program_stays_as_it_is(cli: Run, folder: Path) -> None:
    (folder / "letter.txt").write_text("Dear reader, this is no database. " * 20)
    with closing(sqlite3.connect(folder / "other.db")) as other:
        other.execute("CREATE TABLE theirs (id)")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in before:
        refused(cli("db", "upgrade", "--database-url", f"sqlite:///{name}"), 1, "configuration.invalid")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_backup_is_a_database(data: Data, cli: Run, folder: Path) -> None:
    data("org", "create", "Acme")
    data("db", "backup", "copy.db")
    url = f"{data('db', 'current')['url'].rpartition('orgstead-data')[0]}copy.db"
    assert [row["slug"] for row in data("org", "list", "--database-url", url)] == ["acme"]
    before = (folder / "copy.db").read_bytes()
    refused(cli("db", "backup", "copy.db"), 7, "file.exists")
    assert (folder / "copy.db").read_bytes() == before


def test_fsck_ends_with_6_until_what_it_found_is_repaired(data: Data, cli: Run) -> None:
    data("org", "create", "Acme", "--plan", "enterprise")

    async def miscount(tx: Transaction) -> None:
        (cell,) = await tx.page(tables.cells, limit=2)
        await tx.replace(tables.cells, replace(cell, dedicated=cell.dedicated + 5))

    async def spoil() -> None:
        storage = await open_storage(DEFAULT_URL)
        await storage.run(SystemScope("test"), miscount)
        await storage.close()

    asyncio.run(spoil())
    found = cli("fsck", "--json")
    assert found.code == 6
    assert [(row["id"], row["repaired"]) for row in json.loads(found.out)] == [("I6", False)]
    assert [(row["id"], row["repaired"]) for row in data("fsck", "--repair")] == [("I6", True)]
    assert data("fsck") == []
    clean = cli("fsck")
    assert (clean.code, clean.out, clean.err) == (0, "[]\n", "Everything agrees.\n")


# --- doctor ---------------------------------------------------------------------------------------------------------


def findings(result: Result) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in json.loads(result.out):
        found.setdefault(row["check"], set()).add(row["status"])
    return found


def test_doctor_before_the_first_start_names_the_missing_database(cli: Run, folder: Path) -> None:
    result = cli("doctor", "--json")
    assert result.code == 6
    assert findings(result)["database"] == {"fail"}
    assert list(folder.iterdir()) == [], "it looks, and makes nothing"


def test_doctor_finds_a_working_installation_fit(data: Data, cli: Run) -> None:
    result = cli("doctor", "--json")
    assert result.code == 0
    found = findings(result)
    assert "fail" not in set().union(*found.values())
    for check in ("configuration", "data folder", "database", "schema", "disk", "open files"):
        assert found[check] == {"ok"}, check


@pytest.mark.parametrize(
    ("environ", "check", "status"),
    [
        ({"ORGSTEAD_HTP__PORT": "1"}, "configuration", "warn"),
        ({"ORGSTEAD_MODE": "production"}, "production", "fail"),
        ({"ORGSTEAD_SECRET_KEY": "short"}, "keys", "fail"),
        ({"ORGSTEAD_PLACEMENT__WARN_DEDICATED": "0"}, "dedicated spaces", "warn"),
        (
            {"ORGSTEAD_PLACEMENT__WARN_DEDICATED": "0", "ORGSTEAD_PLACEMENT__MAX_DEDICATED": "0"},
            "dedicated spaces",
            "fail",
        ),
        ({"ORGSTEAD_HTTP__MAX_CONNECTIONS": "99999999999"}, "open files", "warn"),
        ({"ORGSTEAD_HTTP__WORKERS": "2"}, "processes", "fail"),
        ({"ORGSTEAD_DATABASE_URL": "scheme://host/db"}, "database", "fail"),
    ],
)
def test_doctor_sees(
    environ: dict[str, str], check: str, status: str, data: Data, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    result = cli("doctor", "--json")
    assert status in findings(result)[check]
    assert result.code == (6 if status == "fail" else 0)


def test_doctor_sees_rights_of_others(data: Data, cli: Run, folder: Path) -> None:
    (folder / "orgstead-data").chmod(0o755)
    (folder / "orgstead-data" / "main.db").chmod(0o644)
    found = findings(cli("doctor", "--json"))
    assert (found["data folder"], found["rights"]) == ({"warn"}, {"warn"})
    (row,) = (row for row in json.loads(cli("doctor", "--json").out) if row["check"] == "data folder")
    assert row["next"] == "chmod 700 orgstead-data"


@pytest.mark.parametrize(
    "place",
    [Path.cwd().root, ".", "..", "sticky", "foreign", "/tmp"],
    ids=["root", "here", "above", "sticky", "foreign", "tmp"],
)
def test_doctor_gives_no_advice_that_would_lock_others_out(
    place: str, cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder / "here"
    here.mkdir(mode=0o755)
    monkeypatch.chdir(here)
    for name in ("sticky", "foreign"):
        (here / name).mkdir()
        (here / name).chmod(0o1755 if name == "sticky" else 0o755)
    for path in (folder, here):
        path.chmod(0o755)
    if place == "foreign":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    url = f"sqlite:///{Path(place) / 'main.db'}"
    rows = json.loads(cli("doctor", "--json", "--database-url", url).out)
    rows = [
        row for row in rows if row["check"] == "data folder" and row["status"] == "warn" and "Others" in row["detail"]
    ]
    assert [row["next"] for row in rows] == ["move the database to a folder of its own"]


def test_doctor_sees_secrets_that_others_may_read(
    data: Data, cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "key").write_text(token_urlsafe(48))
    (folder / "orgstead.toml").write_text(f'signup = "token"\nsignup_token = "{token_urlsafe(48)}"\n')
    monkeypatch.setenv("ORGSTEAD_SECRET_KEY_FILE", "key")
    for mode, said in ((0o644, ["chmod 600 orgstead.toml", "chmod 600 key"]), (0o640, [])):
        for name in ("key", "orgstead.toml"):
            (folder / name).chmod(mode)
        result = cli("doctor", "--json")
        assert result.code == 0
        assert [row["next"] for row in json.loads(result.out) if row["check"] == "secrets"] == said
    (folder / "orgstead.toml").write_text('mode = "dev"\n')
    (folder / "orgstead.toml").chmod(0o644)
    assert "secrets" not in findings(cli("doctor", "--json"))


@pytest.mark.parametrize("name", ["main.db", "main.db.lock"])
def test_doctor_sees_a_file_that_cannot_be_written(
    name: str, data: Data, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access

    def access(path: Any, mode: int, **options: Any) -> bool:
        return allowed(path, mode, **options) and not (mode & os.W_OK and Path(path).name == name)

    monkeypatch.setattr(os, "access", access)
    result = cli("doctor", "--json")
    assert result.code == 6
    assert "fail" in findings(result)["database"]


# --- demo -----------------------------------------------------------------------------------------------------------


def test_demo_data_is_loaded_once_dropped_whole_and_can_come_back(data: Data) -> None:
    mine = data("org", "create", "Mine")
    for _ in range(2):
        assert data("demo", "load") == {"organizations": 12, "members": 340}
        assert data("demo", "load") == {"organizations": 12, "members": 340}
        assert len(data("org", "list")) == 13
        assert data("fsck") == []
        assert data("demo", "drop", "--yes") == {"organizations": 12}
        assert data("org", "list") == [mine]


# --- beside another process -----------------------------------------------------------------------------------------


@pytest.fixture
def held(data: Data, folder: Path) -> Iterator[None]:
    """Another process has the database open for writing."""
    script = (
        "import asyncio, sys\n"
        "from orgstead.storage import DEFAULT_URL, open_storage\n"
        "async def main():\n"
        "    storage = await open_storage(DEFAULT_URL)\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
        "    await storage.close()\n"
        "asyncio.run(main())\n"
    )
    holder = subprocess.Popen(
        [ORGSTEAD[0], "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    yield
    holder.communicate(timeout=30)


@pytest.mark.usefixtures("held")
def test_reading_goes_on_beside_a_server_and_writing_says_why_not(data: Data, cli: Run) -> None:
    assert data("org", "list") == []
    assert data("db", "current")
    assert data("fsck") == []
    assert cli("doctor").code == 0
    refused(cli("org", "create", "Acme"), 8, "storage.in_use")
    assert data("org", "list") == []
