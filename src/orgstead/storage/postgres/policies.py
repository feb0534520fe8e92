"""Row-level security: which rows a transaction may see and write follows from two settings that end with it.

``app.org_id`` opens the rows of one organization, ``app.system`` all of them. After a transaction such a setting is
not NULL but empty, hence ``NULLIF``: without it a row whose organization is the empty text would be open to everyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from orgstead.storage.port import OrgScope, Scope, Space, Table
from orgstead.storage.postgres.statements import quoted, within

POLICY = "orgstead_scope"
ORG_SETTING, SYSTEM_SETTING = "app.org_id", "app.system"

_SYSTEM = f"current_setting('{SYSTEM_SETTING}', true) = 'on'"
_ORG = f"NULLIF(current_setting('{ORG_SETTING}', true), '')"
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]*")


def condition(table: Table[Any]) -> str:
    """What is true of the rows of ``table`` that a transaction may touch."""
    return _SYSTEM if table.scope is None else f"{quoted(table.scope)} = {_ORG} OR {_SYSTEM}"


def protect(table: Table[Any], schema: str) -> Iterator[str]:
    """The statements that put ``table`` under its policy, for its owner, too."""
    yield from protect_as(within(schema, table.name), condition(table))


def protect_as(target: str, allowed: str) -> Iterator[str]:
    """The statements that let only rows of which ``allowed`` is true be seen or written."""
    yield f"ALTER TABLE {target} ENABLE ROW LEVEL SECURITY"
    yield f"ALTER TABLE {target} FORCE ROW LEVEL SECURITY"
    yield f"CREATE POLICY {quoted(POLICY)} ON {target} USING ({allowed}) WITH CHECK ({allowed})"


def system_only() -> str:
    """The condition of tables that no organization has rows in."""
    return _SYSTEM


def literal(text: str) -> str:
    """``text`` as an SQL expression, whatever is in it and however the server reads a backslash."""
    if _PLAIN.fullmatch(text):
        return f"'{text}'"
    return f"convert_from(decode('{text.encode().hex()}', 'hex'), 'UTF8')"


def settings(scope: Scope | None) -> dict[str, str]:
    """The settings of a transaction within ``scope``; None is the engine's own work on everything."""
    if isinstance(scope, (OrgScope, Space)):
        return {ORG_SETTING: scope.org_id, SYSTEM_SETTING: "off"}
    return {ORG_SETTING: "", SYSTEM_SETTING: "on"}


def begin(scope: Scope | None, mode: str, also: dict[str, str] | None = None) -> str:
    """One message that begins a transaction within ``scope``, all of its settings local to it."""
    wanted = {**settings(scope), **(also or {})}
    calls = ", ".join(f"set_config('{name}', {literal(value)}, true)" for name, value in wanted.items())
    return f"BEGIN {mode}; SELECT {calls}"
