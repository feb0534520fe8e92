"""Upkeep that reads everything: digests and figures."""

from __future__ import annotations

import hashlib
from typing import Any

from orgstead.errors import ConfigurationError
from orgstead.storage.port import Digest, Table
from orgstead.storage.postgres import lists, schema, selfcheck, spaces_found
from orgstead.storage.postgres.connections import Connection, single
from orgstead.storage.postgres.transaction import PostgresTransaction

_ROWS = 1000


async def digest(tx: PostgresTransaction, table: Table[Any]) -> Digest:
    """``Storage.digest``: the sum of the rows' SHA-256 modulo 2**256, so that no order is needed. Pages of rows."""
    sql = tx.statements(table)
    count, total = 0, 0
    after: list[Any] | None = None
    while True:
        rows = await lists.rows_of_page(tx, sql, None, order=(), after=after, limit=_ROWS)
        for row in rows:
            total += int.from_bytes(hashlib.sha256(sql.codec.canonical(tuple(row))).digest())
        count += len(rows)
        if len(rows) < _ROWS:
            return Digest(count, f"{total % 2**256:064x}")
        last = sql.codec.decode(tuple(rows[-1]))
        after = [getattr(last, column) for column in table.key]


async def stats(connection: Connection) -> dict[str, int | float | str]:
    """``Storage.stats``: ``bytes`` is the whole database; ``warning`` says what its operator should look into."""
    number, version, size = await single(
        connection,
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " pg_database_size(current_database())",
    )
    facts: dict[str, int | float | str] = {
        "server": f"PostgreSQL {version.split()[0]}",
        "schema_version": await schema.version_of(connection),
        "bytes": size,
        "dedicated_spaces": await spaces_found.count_dedicated(connection),
        "role": await connection.fetchval("SELECT current_user::text"),
    }
    if warning := selfcheck.version_warning(number):
        facts["warning"] = warning
    return facts


def no_backup() -> ConfigurationError:
    """What ``Storage.backup`` answers here: the server's own tool is the one that makes a copy which can be trusted."""
    return ConfigurationError(
        "A PostgreSQL database is backed up with the server's own pg_dump, by a role that is above its policies.",
        next="pg_dump --format=custom --file=FILE --dbname=URL, as a superuser, or as a role with BYPASSRLS and"
        " pg_read_all_data",
    )
