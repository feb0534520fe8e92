"""``Storage.examine``: what the catalogue and the settings of a PostgreSQL server say to ``doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from orgstead.errors import OrgsteadError
from orgstead.findings import Finding, fail, ok, warn
from orgstead.storage import examination

FIXED: Mapping[tuple[int, ...], int] = {(15,): 16, (16,): 12, (17,): 8, (18,): 2}
"""Major version -> the first minor release without the holes of February 2026 (CVE-2026-2003 to 2007: a user of the
database runs code on the server)."""

_FACTS = """
SELECT clock_timestamp() AS now,
       current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS number,
       current_setting('server_encoding') AS encoding,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS connections,
       pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only')::boolean AS only_reads,
       current_database()::text AS database,
       pg_postmaster_start_time() AS started,
       (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'org\\_%') AS spaces
"""

_ROLE = """
SELECT r.rolname AS name, r.rolconnlimit AS connections, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb,
       pg_has_role(r.oid, d.datdba, 'MEMBER') AS owner
  FROM pg_roles r, pg_database d
 WHERE r.rolname = current_user AND d.datname = current_database()
"""

_TABLES = """
SELECT c.oid::regclass::text AS name,
       c.relrowsecurity AND c.relforcerowsecurity
         AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) AS guarded,
       has_table_privilege(c.oid, 'TRUNCATE') AS truncatable
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$)'
   AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped)
 ORDER BY 1
"""
"""Every table that could hold rows of several organizations, whoever made it: what no self-check of ours lists."""

_TRANSPORT = """
SELECT inet_client_addr() AS client, inet_client_addr() << '127.0.0.0/8' OR inet_client_addr() = '::1' AS loopback,
       (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted
"""


_OWNER = """
SELECT current_database()::text AS database, pg_postmaster_start_time() AS started,
       has_database_privilege(current_database(), 'CREATE') AS creates
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """Where the owner's URL leads: which database of the server that was started when, and whether it may make schemas
    there; or ``error``, where it leads nowhere."""

    database: str = ""
    started: datetime | None = None
    creates: bool = False
    error: OrgsteadError | None = None


async def owner_of(connection: asyncpg.Connection) -> Owner:
    """Ask as the owner."""
    row = await connection.fetchrow(_OWNER)
    assert row is not None
    return Owner(row["database"], row["started"], row["creates"])


async def examine(connection: asyncpg.Connection, *, connections: int, owner: Owner | None) -> list[Finding]:
    """Ask as the service's own role.

    ``connections`` is how many all processes of the service may open; ``owner`` what the owner's URL leads to, None
    where the service has none.
    """
    asked = datetime.now(UTC)
    facts = await connection.fetchrow(_FACTS)
    answered = datetime.now(UTC)
    assert facts is not None
    return [
        _version(facts),
        *await _rights(connection),
        await _isolation(connection),
        _durability(facts),
        await _transport(connection),
        examination.clock(facts["now"], asked, answered),
        examination.connections(connections, facts["connections"], _FEWER),
        _placements(owner, facts),
    ]


_FEWER = "raise max_connections, lower ?pool= in ORGSTEAD_DATABASE_URL or http.workers, or put PgBouncer in between"


def _version(facts: asyncpg.Record) -> Finding:
    check, version = examination.VERSION, divmod(facts["number"], 10_000)
    if facts["encoding"] != "UTF8":
        return fail(check, f"The database's encoding is {facts['encoding']}.", "create it with ENCODING 'UTF8'")
    if version[0] < min(FIXED)[0]:
        return warn(check, f"PostgreSQL {facts['version']} is older than any that was tried.", "upgrade the server")
    if examination.is_before(version, FIXED):
        minor = f"{version[0]}.{FIXED[version[:1]]}"
        return warn(check, f"PostgreSQL {facts['version']} has known holes (CVE-2026-2006).", f"upgrade it to {minor}")
    return ok(check, f"PostgreSQL {facts['version']}.")


async def _rights(connection: asyncpg.Connection) -> list[Finding]:
    role = await connection.fetchrow(_ROLE)
    assert role is not None
    check, found = examination.RIGHTS, []
    beyond = {
        "rolsuper": "is a superuser",
        "rolbypassrls": "bypasses row-level security",
        "owner": "owns the database",
        "rolcreaterole": "may create roles",
        "rolcreatedb": "may create databases",
    }
    for right, words in beyond.items():
        if role[right]:
            judged = fail if right in ("rolsuper", "rolbypassrls") else warn
            found.append(
                judged(
                    check,
                    f"The service's role {role['name']} {words}.",
                    "let ORGSTEAD_DATABASE_URL name a role without rights of its own: see docs/operating.md",
                )
            )
    return found or [ok(check, f"The role {role['name']} has no right beyond those it was granted.")]


async def _isolation(connection: asyncpg.Connection) -> Finding:
    check = examination.ISOLATION
    tables = await connection.fetch(_TABLES)
    open_ = [table["name"] for table in tables if not table["guarded"]]
    if open_:
        detail = f"Tables of organizations without forced row-level security: {_few(open_)}."
        return fail(check, detail, "orgstead db upgrade, or drop what is not orgstead's")
    if not tables:
        return ok(check, "There are no tables of organizations yet.")
    emptied = [table["name"] for table in tables if table["truncatable"]]
    if emptied:
        return warn(check, f"The service's role may truncate {_few(emptied)}.", "REVOKE TRUNCATE ON … FROM the role")
    return ok(check, f"Row-level security is forced on all {len(tables)} tables of organizations.")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _durability(facts: asyncpg.Record) -> Finding:
    check = examination.DURABILITY
    if facts["standby"]:
        return fail(check, "This server is a standby, which takes no writes.", "name the primary in the database URL")
    if facts["only_reads"]:
        remedy = "ALTER DATABASE … RESET default_transaction_read_only, and ALTER ROLE … RESET it"
        return fail(check, "default_transaction_read_only is on: the database takes no writes.", remedy)
    for setting in ("fsync", "full_page_writes"):
        if facts[setting] != "on":
            return fail(check, f"{setting} is off: a power cut may destroy the database.", f"set {setting} = on")
    if facts["synchronous_commit"] == "off":
        detail = "synchronous_commit is off: a crash may lose what was acknowledged."
        return fail(check, detail, "set synchronous_commit = on")
    return ok(check, f"Committed work survives a power cut; synchronous_commit is {facts['synchronous_commit']}.")


async def _transport(connection: asyncpg.Connection) -> Finding:
    check = examination.TRANSPORT
    link = await connection.fetchrow(_TRANSPORT)
    assert link is not None
    if link["client"] is None:
        return ok(check, "Connected over a socket of this machine.")
    if link["encrypted"]:
        return ok(check, "Connected with TLS.")
    if link["loopback"]:
        return ok(check, "Connected within this machine.")
    return warn(
        check,
        "Connected over the network without TLS.",
        "add ?sslmode=verify-full&sslrootcert=FILE to the database URL",
    )


def _placements(owner: Owner | None, facts: asyncpg.Record) -> Finding:
    check, setting = examination.PLACEMENTS, "ORGSTEAD_MIGRATION_URL"
    if owner is None:
        return warn(
            check,
            "Pooled only: dedicated spaces are schemas, which only the database's owner may change.",
            f"set {setting} to the URL of the owner",
        )
    if owner.error is not None:
        return fail(check, owner.error.detail, owner.error.next or f"compare {setting} with ORGSTEAD_DATABASE_URL")
    if (owner.database, owner.started) != (facts["database"], facts["started"]):
        detail = f"{setting} and ORGSTEAD_DATABASE_URL lead to two different databases."
        return fail(check, detail, f"let {setting} name the database of ORGSTEAD_DATABASE_URL")
    if not owner.creates:
        return fail(check, f"The role in {setting} may not make schemas.", f"let {setting} name the database's owner")
    return ok(check, f"Pooled and dedicated; {facts['spaces']} schemas of dedicated spaces.")
