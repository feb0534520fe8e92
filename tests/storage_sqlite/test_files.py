"""The file: where it is, who may read it, who writes it, and what is said about one that cannot be used."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from orgstead.api import management
from orgstead.app import App
from orgstead.errors import (
    ConfigurationError,
    DatabaseInUse,
    FileExists,
    Overloaded,
    SchemaOutdated,
    SchemaTooNew,
    StorageError,
    StorageReadOnly,
)
from orgstead.kit import now
from orgstead.model import PlacementKind, Record
from orgstead.settings import Settings
from orgstead.storage import DEFAULT_URL, describe, open_storage, tables
from orgstead.storage.port import Space, Transaction
from orgstead.storage.sqlite import engine
from orgstead.storage.sqlite.engine import SqliteStorage
from tests.storage_sqlite.work import ORG, SYSTEM, add, ids, stored

pytestmark = pytest.mark.anyio


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def holds(path: Path, text: str) -> bool:
    """True when a file of the database has ``text`` in it anywhere."""
    return any(text.encode() in file.read_bytes() for file in path.parent.iterdir())


@contextmanager
def taken_away(path: Path, *, replaced: bool) -> Iterator[None]:
    """Another file, or none, at the path inside the block."""
    away = path.with_name("away.db")
    path.rename(away)
    if replaced:
        path.write_bytes(b"")
    yield
    away.rename(path)


@contextmanager
def nobody() -> Iterator[Path]:
    """A folder that everyone may use, and, where the tests run as root, an account that is not root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        privileged = os.geteuid() == 0
        if privileged:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if privileged:
                os.seteuid(0)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        (DEFAULT_URL, "orgstead-data"),
        ("sqlite:////var/lib/x/a.db?max_pages=9", "/var/lib/x"),
        ("sqlite:///a%20b.db", "."),
    ],
)
def test_a_url_is_described_without_touching_anything(url: str, folder: str) -> None:
    description = describe(url)
    assert description.folder == Path(folder)
    assert "?" not in description.url
    assert describe(description.url) == description


@pytest.mark.parametrize(
    "url",
    [
        *("", "main.db", "mysql://a/b", "sqlite:", "sqlite://", "sqlite:///", "sqlite://host/a.db"),
        *("sqlite:///:memory:", "sqlite:///a/", "sqlite:///a.db?mode=ro", "sqlite:///a.db?max_pages=x"),
        "sqlite:///a%00b",
    ],
)
async def test_a_url_that_names_no_database_is_refused_without_repeating_it(url: str) -> None:
    for refused in (lambda: open_storage(url), lambda: _described(url)):
        with pytest.raises(ConfigurationError) as caught:
            await refused()
        assert caught.value.next
        assert "mysql" not in caught.value.detail


async def _described(url: str) -> None:
    describe(url)


async def test_the_files_are_for_their_owner_only(storage: SqliteStorage, path: Path, tmp_path: Path) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    await storage.backup(str(tmp_path / "copy.db"))
    assert mode(path.parent) == 0o700
    found = {file.name: mode(file) for file in path.parent.iterdir()}
    assert found == dict.fromkeys(("main.db", "main.db-wal", "main.db-shm", "main.db.lock"), 0o600)
    assert mode(tmp_path / "copy.db") == 0o600


async def test_a_path_that_cannot_be_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is a letter, not a database. " * 100)
    for place in (tmp_path, tmp_path / "text.db", tmp_path / "text.db" / "main.db"):
        with pytest.raises(ConfigurationError) as caught:
            await open_storage(f"sqlite:///{place}")
        assert caught.value.next
    with pytest.raises(ConfigurationError, match="There is no database at /"):
        await open_storage(f"sqlite:///{tmp_path}/missing.db", writable=False)
    assert not (tmp_path / "missing.db").exists()


async def test_a_read_only_file_can_be_read_and_says_that_it_cannot_be_written() -> None:
    with nobody() as folder:
        path = folder / "main.db"
        storage = await open_storage(f"sqlite:///{path}")
        await storage.migrate()
        await storage.run(SYSTEM, add, "evt_1")
        await storage.close()
        path.chmod(0o400)
        with pytest.raises(ConfigurationError, match="cannot be written"):
            await open_storage(f"sqlite:///{path}")
        reader = await open_storage(f"sqlite:///{path}", writable=False)
        await reader.check()
        assert await reader.read(SYSTEM, ids) == ["evt_1"]
        await reader.close()


@pytest.mark.parametrize("beside", [("-shm",), ("-wal",), ("-wal", "-shm")], ids=" ".join)
async def test_a_file_whose_log_cannot_be_written_is_not_ready(beside: tuple[str, ...]) -> None:
    with nobody() as folder:
        path = folder / "main.db"
        storage = await open_storage(f"sqlite:///{path}")
        await storage.migrate()
        await storage.close()
        for suffix in beside:
            path.with_name(path.name + suffix).touch(0o400)
        storage = await open_storage(f"sqlite:///{path}")
        try:
            assert await storage.read(SYSTEM, ids) == []
            with pytest.raises(StorageReadOnly) as raised:
                await storage.check()
            assert "the right to write" in (raised.value.next or "")
            assert await management.unready(App(Settings(), storage)) == "storage.read_only"
        finally:
            await storage.close()


async def test_a_file_system_that_became_read_only_is_not_ready(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose disk is broken, while files on it are open for writing."""
    await storage.check()
    found = os.statvfs("/")
    read_only = os.statvfs_result((*tuple(found)[:8], found.f_flag | os.ST_RDONLY, found.f_namemax))
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: read_only)
        with pytest.raises(StorageReadOnly):
            await storage.check()
    await storage.check()


async def test_looking_whether_a_file_can_be_written_writes_nothing(storage: SqliteStorage, path: Path) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    before = [(file.name, file.read_bytes()) for file in sorted(path.parent.iterdir()) if file.suffix != ".db-shm"]
    for _ in range(3):
        await storage.check()
    after = [(file.name, file.read_bytes()) for file in sorted(path.parent.iterdir()) if file.suffix != ".db-shm"]
    assert after == before


async def test_a_database_with_too_much_to_write_is_one_that_can_be_written(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage._writer is not None
    monkeypatch.setattr(storage._writer, "_max_queued", 0)
    with pytest.raises(Overloaded):
        await storage.run(SYSTEM, add, "evt_1")
    await storage.check()


async def test_a_database_that_is_being_written_is_one_that_can_be_written(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By us, for longer than anybody waits to hear whether it is ready."""
    monkeypatch.setattr(engine, "_PROBE_SECONDS", 0.01)
    assert storage._writer is not None
    begun, goes_on = threading.Event(), threading.Event()

    def long(_: sqlite3.Connection) -> None:
        begun.set()
        assert goes_on.wait(60)

    writing = asyncio.create_task(storage._writer.submit(long))
    await asyncio.to_thread(begun.wait, 60)
    await storage.check()
    goes_on.set()
    await writing


async def test_whoever_asks_whether_it_can_be_written_takes_no_time_from_those_who_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who asks gives up on another program's lock; a write behind it is only beginning to wait."""
    monkeypatch.setattr(engine, "_PROBE_SECONDS", 60)
    storage = await open_storage(f"sqlite:///{path}?busy_timeout_ms=200")
    assert isinstance(storage, SqliteStorage)
    await storage.migrate()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    checking = asyncio.create_task(storage.check())
    checking.add_done_callback(lambda _: other.execute("ROLLBACK"))
    await asyncio.sleep(0)  # it asks first
    await storage.run(SYSTEM, add, "evt_1")
    await checking
    other.close()
    await storage.close()


async def test_a_reader_works_beside_the_writer_and_never_writes(storage: SqliteStorage, path: Path) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    reader = await open_storage(f"sqlite:///{path}", writable=False)
    assert isinstance(reader, SqliteStorage)
    assert await stored(reader) == ["evt_1"]
    await storage.run(SYSTEM, add, "evt_2")
    assert await stored(reader) == ["evt_1", "evt_2"]
    with pytest.raises(StorageReadOnly):
        await reader.run(SYSTEM, add, "evt_3")
    with pytest.raises(StorageReadOnly):
        await reader.migrate()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._readers.connection().execute("DELETE FROM events")
    await reader.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_in_a_file_that_was_taken_away(
    storage: SqliteStorage, path: Path, replaced: bool
) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    with taken_away(path, replaced=replaced):
        for _ in range(2):
            with pytest.raises(StorageError, match="removed or replaced"):
                await storage.run(SYSTEM, add, "evt_2")
            with pytest.raises(StorageError, match="removed or replaced"):
                await storage.check()
    await storage.check()
    await storage.run(SYSTEM, add, "evt_3")
    assert await stored(storage) == ["evt_1", "evt_3"]


async def test_a_second_writing_process_is_told_which_one_writes(storage: SqliteStorage, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    code = """
import asyncio, sys
from orgstead.errors import DatabaseInUse
from orgstead.storage import open_storage
try:
    asyncio.run(open_storage(sys.argv[1]))
except DatabaseInUse as error:
    print(error.detail, error.next)
"""
    for place in (path, link):
        second = await anyio.run_process([sys.executable, "-c", code, f"sqlite:///{place}"])
        assert f"process {os.getpid()}" in second.stdout.decode()
    with pytest.raises(DatabaseInUse):
        await open_storage(f"sqlite:///{path}")
    await storage.run(SYSTEM, add, "evt_1")
    await storage.close()
    again = await open_storage(f"sqlite:///{path}")
    await again.close()


async def test_the_schema_of_another_program_or_version_is_refused(path: Path) -> None:
    storage = await open_storage(f"sqlite:///{path}")
    for refused in (storage.check(), storage.read(SYSTEM, ids), storage.access("a", "b", "c")):
        with pytest.raises(SchemaOutdated) as outdated:
            await refused
        assert outdated.value.next == "orgstead db upgrade"
    await storage.migrate()
    await storage.close()

    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (999, 'from the future', '')")
    storage = await open_storage(f"sqlite:///{path}")
    with pytest.raises(SchemaTooNew):
        await storage.check()
    with pytest.raises(SchemaTooNew):
        await storage.migrate()
    await storage.close()

    foreign = path.with_name("foreign.db")
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(ConfigurationError, match="another program"):
        await open_storage(f"sqlite:///{foreign}")
    storage = await open_storage(f"sqlite:///{foreign}", writable=False)
    with pytest.raises(ConfigurationError, match="another program"):
        await storage.check()
    await storage.close()


async def test_what_was_purged_is_not_in_the_file(storage: SqliteStorage, path: Path) -> None:
    secret = "a-secret-that-must-not-stay"

    async def keep(tx: Transaction) -> None:
        at = now()
        for n in range(50):
            row = Record(
                org_id=ORG, collection="c", id=f"rec_{n}", data={"s": secret}, bytes=1, created_at=at, updated_at=at
            )
            await tx.add(tables.records, row)

    for space in (Space(ORG, PlacementKind.POOLED, None, 1), Space(ORG, PlacementKind.DEDICATED, "org_test", 1)):
        await storage.create_space(space)
        await storage.run(space, keep)
        assert holds(path, secret)
        while await storage.drop_space(space) is not None:
            pass
        assert not holds(path, secret)


async def test_a_backup_is_a_whole_database_and_replaces_nothing(storage: SqliteStorage, tmp_path: Path) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    target = tmp_path / "copy.db"
    await storage.backup(str(target))
    await storage.run(SYSTEM, add, "evt_2")
    before = target.read_bytes()
    with pytest.raises(FileExists):
        await storage.backup(str(target))
    with pytest.raises(ConfigurationError):
        await storage.backup(str(tmp_path / "no" / "folder.db"))
    assert target.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "data"]
    copy = await open_storage(f"sqlite:///{target}")
    await copy.check()
    assert await copy.read(SYSTEM, ids) == ["evt_1"]
    await copy.close()
