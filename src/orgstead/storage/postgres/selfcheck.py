"""Whether row-level security really holds: what would switch it off in silence is refused before the service starts.

PostgreSQL's documentation, "Row Security Policies": superusers and roles with BYPASSRLS always pass, owners unless the
table says FORCE; a view and a SECURITY DEFINER function run with their owner's rights; TRUNCATE and foreign keys are
not subject to policies.
"""

from __future__ import annotations

from dataclasses import dataclass

from orgstead.errors import ConfigurationError
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.policies import ORG_SETTING, POLICY, SYSTEM_SETTING
from orgstead.storage.postgres.statements import SCHEMA

OLDEST = 150_000
MINORS = {15: 150_016, 16: 160_012, 17: 170_008, 18: 180_002}
"""Minor releases of February 2026: older ones have known holes in row security."""

_TABLES = r"""SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relowner,
  format('%I.%I', n.nspname, c.relname) AS target
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE (n.nspname = $1 OR n.nspname LIKE 'org\_%') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""


@dataclass(frozen=True, slots=True)
class _Rule:
    """``query`` finds the name of something that breaks the rule; None says which ($1 is our schema)."""

    query: str
    detail: str
    next: str


_RULES = (
    _Rule(
        "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = current_user AND rolsuper AND $1 <> ''",
        "The service connects as a superuser, for whom no policy holds.",
        "CREATE ROLE orgstead_app LOGIN PASSWORD '…'; put it into ORGSTEAD_DATABASE_URL and the owner into"
        " ORGSTEAD_MIGRATION_URL, then orgstead db upgrade",
    ),
    _Rule(
        "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = current_user AND rolbypassrls AND $1 <> ''",
        "The service's role has BYPASSRLS, so that no policy holds for it.",
        "ALTER ROLE {0} NOBYPASSRLS",
    ),
    _Rule(
        "SELECT quote_ident(r.rolname) FROM pg_roles r WHERE (r.rolsuper OR r.rolbypassrls) AND r.rolname <> current_user"
        " AND pg_has_role(current_user, r.oid, 'MEMBER') AND $1 <> ''",
        "The service's role may become a role for which no policy holds.",
        "REVOKE {0} FROM the role in ORGSTEAD_DATABASE_URL",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t WHERE relkind IN ('m', 'f')",
        "A materialized view or foreign table among the service's tables has no policies.",
        "move {0} to another schema",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t WHERE relkind IN ('r', 'p') AND NOT relrowsecurity",
        "A table has row-level security switched off.",
        "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t WHERE relkind IN ('r', 'p') AND NOT relforcerowsecurity",
        "A table does not force row-level security on its owner.",
        "ALTER TABLE {0} FORCE ROW LEVEL SECURITY",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t WHERE relkind IN ('r', 'p')"
        f" AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = t.oid AND p.polname = '{POLICY}')",
        "A table has no policy of orgstead's, so it is not one of its tables or was changed by hand.",
        "move {0} to another schema, or restore the schema from a backup",
    ),
    _Rule(
        f"SELECT target || ': ' || quote_ident(p.polname) FROM ({_TABLES}) t JOIN pg_policy p ON p.polrelid = t.oid"
        f" WHERE p.polname <> '{POLICY}' AND p.polpermissive",
        "A table has a further policy, which opens rows that orgstead's own keeps shut.",
        "DROP POLICY of {0}",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t JOIN pg_policy p ON p.polrelid = t.oid AND p.polname = '{POLICY}'"
        " CROSS JOIN LATERAL (SELECT pg_get_expr(p.polqual, t.oid) AS seen, pg_get_expr(p.polwithcheck, t.oid) AS kept) e"
        " WHERE p.polcmd <> '*' OR NOT p.polpermissive OR p.polroles <> ARRAY[0::oid] OR seen IS DISTINCT FROM kept"
        rf" OR seen NOT LIKE '%current\_setting(''{SYSTEM_SETTING}''%) = ''on''%'"
        rf" OR (seen LIKE '%{ORG_SETTING}%' AND seen NOT LIKE '%NULLIF(current\_setting(''{ORG_SETTING}''%')"
        r" OR seen ~ '\mtrue\M(?!\))'",
        "A table's policy is not the one that orgstead makes.",
        "restore the policy of {0} from a backup of the schema",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t WHERE relkind = 'v' AND NOT EXISTS (SELECT FROM unnest(reloptions) o"
        r" WHERE o IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'))",
        "A view reads the service's tables with its owner's rights, past the policies of whoever asks.",
        "ALTER VIEW {0} SET (security_invoker = true)",
    ),
    _Rule(
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND $1 <> ''"
        " AND has_function_privilege(p.oid, 'EXECUTE') AND NOT EXISTS (SELECT FROM pg_depend d"
        " WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')",
        "A SECURITY DEFINER function, which the service's role may call, runs with its owner's rights.",
        "ALTER FUNCTION {0} SECURITY INVOKER, or REVOKE EXECUTE ON FUNCTION {0} FROM PUBLIC",
    ),
    _Rule(
        f"SELECT target FROM ({_TABLES}) t WHERE relkind IN ('r', 'p') AND NOT pg_has_role(relowner, 'USAGE')"
        " AND has_table_privilege(t.oid, 'TRUNCATE, REFERENCES, TRIGGER')",
        "The service's role may TRUNCATE a table, refer to it or put triggers on it: policies do not hold for that.",
        "REVOKE TRUNCATE, REFERENCES, TRIGGER ON {0} FROM PUBLIC and from the role in ORGSTEAD_DATABASE_URL",
    ),
    _Rule(
        f"SELECT name FROM (VALUES ('{ORG_SETTING}'), ('{SYSTEM_SETTING}')) AS s (name)"
        " WHERE NULLIF(current_setting(name, true), '') IS NOT NULL AND $1 <> ''",
        "A setting that the policies rely on has a value before any transaction sets it.",
        "ALTER DATABASE … RESET {0}, and ALTER ROLE … RESET {0}",
    ),
)


async def check(connection: Connection) -> None:
    """Raise ``ConfigurationError`` for the first thing that would let rows be seen or changed past the policies.

    The connection is in no transaction of ours, so that it shows the settings as they are without one.
    """
    number, encoding = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')"
    )
    if number < OLDEST:
        raise ConfigurationError(
            f"The server is PostgreSQL {number // 10_000}, which is too old.",
            next=f"upgrade it to PostgreSQL {OLDEST // 10_000} or newer",
        )
    if encoding != "UTF8":
        raise ConfigurationError(
            "The database's encoding cannot hold every text.", next="create the database with ENCODING 'UTF8'"
        )
    for rule in _RULES:
        found = await connection.fetchval(rule.query + " LIMIT 1", SCHEMA)
        if found is not None:
            raise ConfigurationError(rule.detail, next=rule.next.format(found))


def version_warning(number: int) -> str:
    """A sentence about a minor release with known holes; empty for one that has none."""
    fixed = MINORS.get(number // 10_000)
    if fixed is None or number >= fixed:
        return ""
    return f"PostgreSQL {number // 10_000}.{number % 10_000} has known holes; upgrade to {fixed // 10_000}.{fixed % 10_000}."
