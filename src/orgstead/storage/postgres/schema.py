"""The schema of a database: which version it has, bringing it to this one, and what the application's role may do."""

from __future__ import annotations

from collections.abc import Iterator

from orgstead.kit import Clock, rfc3339
from orgstead.storage import migrations, tables
from orgstead.storage.postgres import access, failures, policies
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.statements import SCHEMA, add_column, create_table, quoted, within

HISTORY = "schema_migrations"

_LOCK = 0x6F72_6773_7465_6164  # "orgstead"
_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


async def version_of(connection: Connection) -> int:
    """The newest migration that was applied, 0 for a database without our schema."""
    there = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2)",
        SCHEMA,
        HISTORY,
    )
    if not there:
        return 0
    return int(await connection.fetchval(f"SELECT coalesce(max(version), 0) FROM {within(SCHEMA, HISTORY)}"))  # noqa: S608


async def check(connection: Connection) -> None:
    """Raise ``SchemaOutdated`` or ``SchemaTooNew`` unless the database has this version's schema."""
    if migrations.pending(await version_of(connection)):
        raise failures.outdated()


async def pending(connection: Connection, role: str) -> tuple[migrations.Migration, ...]:
    """What ``migrate`` would apply, but for rights. Raises ``SchemaTooNew``, and ``ConfigurationError`` as it does."""
    await _require_role(connection, role)
    return migrations.pending(await version_of(connection))


async def migrate(connection: Connection, clock: Clock, role: str) -> int:
    """Apply the migrations that are missing and give ``role`` its rights, inside the transaction that was begun.

    Whoever else migrates waits for the end of it. What it does again changes nothing. Raises ``ConfigurationError``
    where the server has no such role.
    """
    await _require_role(connection, role)
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    version = await version_of(connection)
    missing = migrations.pending(version)
    statements = list(_first()) if version == 0 else []
    for migration in missing:
        for table in migration.creates:
            statements += [*create_table(table, SCHEMA), *policies.protect(table, SCHEMA)]
        for column in migration.adds:
            statements.append(add_column(column.table, column.name, column.default, SCHEMA))
        values = (str(migration.version), policies.literal(migration.title), policies.literal(rfc3339(clock())))
        statements.append(f"INSERT INTO {within(SCHEMA, HISTORY)} VALUES ({', '.join(values)})")  # noqa: S608
    if version and missing:
        statements.append(access.drop())  # what it returns may be another type, which cannot be replaced
    statements.append(access.create())  # always: a function has no version, and is made anew without harm
    await connection.execute("; ".join(statements))
    await _grant(connection, role)
    return migrations.SCHEMA_VERSION


async def _require_role(connection: Connection, role: str) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        raise failures.no_role(role)


def _first() -> Iterator[str]:
    yield f"CREATE SCHEMA {quoted(SCHEMA)}"
    history = within(SCHEMA, HISTORY)
    yield f"CREATE TABLE {history} (version bigint PRIMARY KEY, title text NOT NULL, applied_at text NOT NULL)"
    yield from policies.protect_as(history, policies.system_only())


def grants(schema: str, role: str, names: tuple[str, ...]) -> Iterator[str]:
    """The statements that let ``role`` work on these tables, and do nothing else to them."""
    yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}"
    listed = ", ".join(within(schema, name) for name in names)
    yield f"GRANT {_RIGHTS} ON {listed} TO {quoted(role)}"


async def _grant(connection: Connection, role: str) -> None:
    """Give ``role`` what it needs where it is not the owner itself: here, and in each space that does not know it."""
    owner = await connection.fetchval("SELECT current_user::text")
    if role == owner:
        return
    declared = tuple(table.name for migration in migrations.MIGRATIONS for table in migration.creates)
    statements = list(grants(SCHEMA, role, declared))
    statements.append(f"GRANT SELECT ON {within(SCHEMA, HISTORY)} TO {quoted(role)}")
    strange = await connection.fetch(
        "SELECT n.nspname::text FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $2"
        r" WHERE n.nspname LIKE 'org\_%' AND pg_has_role(n.nspowner, 'USAGE')"
        " AND NOT has_schema_privilege($1, n.oid, 'USAGE')",
        role,
        tables.slots.name,
    )
    for (name,) in strange:
        statements += grants(name, role, tuple(table.name for table in tables.SPACE))
    await connection.execute("; ".join(statements))
