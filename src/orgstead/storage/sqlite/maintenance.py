"""Upkeep that reads everything: digests, figures, backups."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

from orgstead.errors import ConfigurationError, FileExists
from orgstead.findings import Finding, ok, warn
from orgstead.storage import examination
from orgstead.storage.port import Digest, Scope, Table
from orgstead.storage.sqlite import failures, schema, spaces
from orgstead.storage.sqlite.connections import snapshot
from orgstead.storage.sqlite.transaction import SqliteTransaction

_BACKUP_PAGES = 1024


def digest(connection: sqlite3.Connection, scope: Scope, table: Table[Any]) -> Digest:
    """``Storage.digest``: the sum of the rows' SHA-256 modulo 2**256, so that no order is needed. Streams the rows."""
    tx = SqliteTransaction(connection, scope)
    sql = tx.statements(table)
    conditions, values = tx.conditions(sql, None)
    count, total = 0, 0
    try:
        for row in connection.execute(sql.select + (" AND ".join(conditions) or "1"), values):
            count += 1
            total += int.from_bytes(hashlib.sha256(sql.codec.canonical(row)).digest())
    except sqlite3.OperationalError as error:
        if not (tx.within_organization and failures.is_missing_table(error)):
            raise
    return Digest(count, f"{total % 2**256:064x}")


def stats(connection: sqlite3.Connection) -> dict[str, int | float | str]:
    """``Storage.stats``: ``bytes`` is the file, ``free_bytes`` the part of it that is unused."""
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return {
        "server": f"SQLite {sqlite3.sqlite_version}",
        "schema_version": schema.version_of(connection),
        "bytes": page_size * pages,
        "free_bytes": page_size * free,
        "dedicated_spaces": spaces.count_dedicated(connection),
    }


def examine(connection: sqlite3.Connection) -> list[Finding]:
    """``Storage.examine``. ``processes`` is not asked for: one process writes, however many read."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    durable = "Committed work survives a power cut: it is written ahead and synchronised."
    found = [
        ok(examination.DURABILITY, durable)
        if mode == "wal"
        else warn(examination.DURABILITY, f"The journal is {mode}; the next start of the service makes it wal.")
    ]
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    try:
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError:
        raise failures.gone() from None
    if others:
        found.append(warn(examination.RIGHTS, f"Others on this machine may open {path}.", f"chmod 600 {path}"))
    else:
        found.append(ok(examination.RIGHTS, "The database's file is ours alone."))
    return [*found, ok(examination.PLACEMENTS, "Pooled and dedicated.")]


def backup(connection: sqlite3.Connection, target: str) -> None:
    """``Storage.backup``: copied in steps beside ``target``, then put there at once, readable for its owner only."""
    path = Path(target)
    partial = path.with_name(path.name + ".partial")
    if path.exists():
        raise FileExists
    if schema.version_of(connection) == 0:
        raise ConfigurationError(
            "There is nothing in the database to back up.", next="correct the path, or orgstead up"
        )
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"The backup cannot be written: {os.strerror(error.errno or 0)}.", next="name a file in a writable folder"
        ) from error
    try:
        _copy(connection, partial)
        os.link(partial, path)  # unlike a rename it never replaces what is there
    except FileExistsError:
        raise FileExists from None
    finally:
        for left in (partial, partial.with_name(partial.name + "-journal")):
            left.unlink(missing_ok=True)


def _copy(connection: sqlite3.Connection, partial: Path) -> None:
    # One snapshot for all steps: without it, each commit of the writer would begin the copy anew.
    with snapshot(connection), closing(sqlite3.connect(partial)) as copy:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.backup(copy, pages=_BACKUP_PAGES, sleep=0)
    with partial.open("rb") as written:
        os.fsync(written.fileno())


def empty_log(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file and cut it off; readers that are still at work leave it for later."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
