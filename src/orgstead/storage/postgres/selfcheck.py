"""Whether row-level security really holds: what would switch it off in silence is refused before the service starts.
Whether the server takes writes is asked here, too.

PostgreSQL's documentation, "Row Security Policies": superusers and roles with BYPASSRLS always pass, owners unless the
table says FORCE; a view and a SECURITY DEFINER function run with their owner's rights; TRUNCATE and foreign keys are
not subject to policies.
"""

from __future__ import annotations

from dataclasses import dataclass

from orgstead.errors import ConfigurationError, StorageReadOnly
from orgstead.storage.postgres.connections import Connection, single
from orgstead.storage.postgres.examine import FIXED
from orgstead.storage.postgres.policies import ORG_SETTING, POLICY, SYSTEM_SETTING
from orgstead.storage.postgres.statements import SCHEMA

OLDEST = 150_000


@dataclass(frozen=True, slots=True)
class _Rule:
    """``finds`` is what a query selects, from where and on which condition: the name of something that breaks the rule.

    ``next`` may name it as ``{0}``.
    """

    finds: str
    detail: str
    next: str


_RULES = (
    _Rule(
        "quote_ident(rolname) FROM pg_roles WHERE rolname = current_user AND rolsuper",
        "The service connects as a superuser, for whom no policy holds.",
        "CREATE ROLE orgstead_app LOGIN PASSWORD '…'; put it into ORGSTEAD_DATABASE_URL and the owner into"
        " ORGSTEAD_MIGRATION_URL, then orgstead db upgrade",
    ),
    _Rule(
        "quote_ident(rolname) FROM pg_roles WHERE rolname = current_user AND rolbypassrls",
        "The service's role has BYPASSRLS, so that no policy holds for it.",
        "ALTER ROLE {0} NOBYPASSRLS",
    ),
    _Rule(
        "quote_ident(r.rolname) FROM pg_roles r WHERE (r.rolsuper OR r.rolbypassrls)"
        " AND r.rolname <> current_user AND pg_has_role(current_user, r.oid, 'MEMBER')",
        "The service's role may become a role for which no policy holds.",
        "REVOKE {0} FROM the role in ORGSTEAD_DATABASE_URL",
    ),
    _Rule(
        "quote_ident(r.rolname) FROM pg_roles r WHERE r.rolname <> current_user"
        " AND pg_has_role(current_user, r.oid, 'MEMBER') AND EXISTS (SELECT FROM ours WHERE relowner = r.oid)",
        "The service's role may become the owner of its tables, who can switch their policies off.",
        "REVOKE {0} FROM the role in ORGSTEAD_DATABASE_URL",
    ),
    _Rule(
        "target FROM ours WHERE relkind IN ('m', 'f')",
        "A materialized view or foreign table among the service's tables has no policies.",
        "move {0} to another schema",
    ),
    _Rule(
        "target FROM ours WHERE relkind IN ('r', 'p') AND NOT relrowsecurity",
        "A table has row-level security switched off.",
        "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY",
    ),
    _Rule(
        "target FROM ours WHERE relkind IN ('r', 'p') AND NOT relforcerowsecurity",
        "A table does not force row-level security on its owner.",
        "ALTER TABLE {0} FORCE ROW LEVEL SECURITY",
    ),
    _Rule(
        "target FROM ours WHERE relkind IN ('r', 'p')"
        " AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = ours.oid AND p.polname = $2)",
        "A table has no policy of orgstead's, so it is not one of its tables or was changed by hand.",
        "move {0} to another schema, or restore the schema from a backup",
    ),
    _Rule(
        "quote_ident(p.polname) || ' ON ' || target FROM ours JOIN pg_policy p ON p.polrelid = ours.oid"
        " WHERE p.polname <> $2 AND p.polpermissive",
        "A table has a further policy, which opens rows that orgstead's own keeps shut.",
        "DROP POLICY {0}",
    ),
    _Rule(
        "target FROM ours JOIN pg_policy p ON p.polrelid = ours.oid AND p.polname = $2"
        " WHERE p.polcmd <> '*' OR NOT p.polpermissive OR p.polroles <> ARRAY[0::oid]"
        " OR pg_get_expr(p.polqual, p.polrelid) IS DISTINCT FROM pg_get_expr(p.polwithcheck, p.polrelid)"
        " OR pg_get_expr(p.polqual, p.polrelid) !~ $3",
        "A table's policy is not the one that orgstead makes.",
        "restore the policy of {0} from a backup of the schema",
    ),
    _Rule(
        "target FROM ours WHERE relkind = 'v' AND NOT EXISTS (SELECT FROM unnest(reloptions) o"
        " WHERE o IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'))",
        "A view reads the service's tables with its owner's rights, past the policies of whoever asks.",
        "ALTER VIEW {0} SET (security_invoker = true)",
    ),
    _Rule(
        "format('%I.%I', n.nspname, v.relname) FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace"
        " WHERE (v.relkind = 'm' OR v.relkind = 'v' AND NOT EXISTS (SELECT FROM unnest(v.reloptions) o"
        " WHERE o IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes')))"
        " AND v.oid IN (SELECT r.ev_class FROM ours JOIN pg_depend d ON d.refobjid = ours.oid"
        " AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_rewrite'::regclass"
        " JOIN pg_rewrite r ON r.oid = d.objid) AND v.oid NOT IN (SELECT oid FROM ours)"
        " AND has_table_privilege(v.oid, 'SELECT')",
        "A view elsewhere, which the service's role may read, shows the service's tables past their policies.",
        "REVOKE SELECT ON {0} FROM PUBLIC and from the role in ORGSTEAD_DATABASE_URL",
    ),
    _Rule(
        "p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        " AND has_function_privilege(p.oid, 'EXECUTE') AND NOT EXISTS (SELECT FROM pg_depend d"
        " WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')",
        "A SECURITY DEFINER function, which the service's role may call, runs with its owner's rights.",
        "ALTER FUNCTION {0} SECURITY INVOKER, or REVOKE EXECUTE ON FUNCTION {0} FROM PUBLIC",
    ),
    _Rule(
        "target FROM ours WHERE relkind IN ('r', 'p') AND NOT pg_has_role(relowner, 'USAGE')"
        " AND has_table_privilege(ours.oid, 'TRUNCATE, REFERENCES, TRIGGER')",
        "The service's role may TRUNCATE a table, refer to it or put triggers on it: policies do not hold for that.",
        "REVOKE TRUNCATE, REFERENCES, TRIGGER ON {0} FROM PUBLIC and from the role in ORGSTEAD_DATABASE_URL",
    ),
    _Rule(
        "name FROM unnest($4::text[]) AS name WHERE NULLIF(current_setting(name, true), '') IS NOT NULL",
        "A setting that the policies rely on has a value before any transaction sets it.",
        "ALTER DATABASE … RESET {0}, and ALTER ROLE … RESET {0}",
    ),
)

_OURS = r"""WITH ours AS (SELECT c.oid, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relowner,
  format('%I.%I', n.nspname, c.relname) AS target FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE (n.nspname = $1 OR n.nspname LIKE 'org\_%') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')),
  given AS (SELECT $2::text, $3::text, $4::text[])"""
"""What is in our schemas; ``given`` has the parameters' types known to queries that do not use them."""

_SETTING = r"current_setting\('{}'::text, true\)"
_SYSTEM = rf"\({_SETTING.format(SYSTEM_SETTING)} = 'on'::text\)"
_SCOPED = rf"\(\(\w+ = NULLIF\({_SETTING.format(ORG_SETTING)}, ''::text\)\) OR {_SYSTEM}\)"
_EXPRESSION = f"^({_SYSTEM}|{_SCOPED})$"
"""How the server spells the conditions of ``policies``."""


async def check(connection: Connection) -> None:
    """Raise ``ConfigurationError`` for the first thing that would let rows be seen or changed past the policies.

    The connection is in no transaction of ours, so that it shows the settings as they are without one.
    """
    number, encoding = await single(
        connection, "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')"
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
        query = f"{_OURS} SELECT {rule.finds} LIMIT 1"
        found = await connection.fetchval(query, SCHEMA, POLICY, _EXPRESSION, [ORG_SETTING, SYSTEM_SETTING])
        if found is not None:
            raise ConfigurationError(rule.detail, next=rule.next.format(found))


async def require_writes(connection: Connection) -> None:
    """Raise ``StorageReadOnly`` where the next transaction of the service would only read."""
    standby, only_reads = await single(
        connection, "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean"
    )
    if standby:
        raise StorageReadOnly(
            "The server is a standby, which accepts no writes; nothing was changed.",
            next="name the primary in ORGSTEAD_DATABASE_URL, or all servers and target_session_attrs=primary",
        )
    if only_reads:
        raise StorageReadOnly(next="ALTER DATABASE … RESET default_transaction_read_only, and ALTER ROLE … RESET it")


def version_warning(number: int) -> str:
    """A sentence about a minor release with known holes; empty for one that has none."""
    major, minor = divmod(number, 10_000)
    fixed = FIXED.get((major,), 0)
    if minor >= fixed:
        return ""
    return f"PostgreSQL {major}.{minor} has known holes; upgrade to {major}.{fixed}."
