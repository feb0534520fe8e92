"""The schema of a file: which version it has, and bringing it to this one."""

from __future__ import annotations

import sqlite3

from orgstead.errors import ConfigurationError
from orgstead.kit import Clock, rfc3339
from orgstead.storage import migrations
from orgstead.storage.sqlite import failures
from orgstead.storage.sqlite.statements import add_column, create_table, quoted

_HISTORY = (
    "CREATE TABLE IF NOT EXISTS schema_migrations"
    " (version INTEGER PRIMARY KEY, title TEXT NOT NULL, applied_at TEXT NOT NULL) STRICT"
)


def version_of(connection: sqlite3.Connection) -> int:
    """The newest migration that was applied, 0 for an empty file. Raises ``ConfigurationError`` for a foreign one."""
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name = 'schema_migrations' DESC LIMIT 1"
        )
    }
    if not tables:
        return 0
    if "schema_migrations" not in tables:
        raise ConfigurationError(
            "The file is a database of another program.", next="name another file in ORGSTEAD_DATABASE_URL"
        )
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    return int(version)


def check(connection: sqlite3.Connection) -> None:
    """Raise ``SchemaOutdated`` or ``SchemaTooNew`` unless the file has this version's schema."""
    if pending(connection):
        raise failures.outdated()


def pending(connection: sqlite3.Connection) -> tuple[migrations.Migration, ...]:
    """What ``migrate`` would apply. Raises ``SchemaTooNew``, and ``ConfigurationError`` for a foreign file."""
    return migrations.pending(version_of(connection))


def migrate(connection: sqlite3.Connection, clock: Clock) -> int:
    """Apply the migrations that are missing, inside the transaction that the caller began."""
    missing = pending(connection)
    connection.execute(_HISTORY)
    for migration in missing:
        for table in migration.creates:
            for statement in create_table(table, table.name, mark="pooled"):
                connection.execute(statement)
        for column in migration.adds:
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted(column.table.name)})")}
            if column.name not in there:
                connection.execute(add_column(column.table, column.name, column.default))
        connection.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?)", (migration.version, migration.title, rfc3339(clock()))
        )
    return migrations.SCHEMA_VERSION
