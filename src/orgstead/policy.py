"""Who may do what: roles x permissions, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from orgstead.model import Role


class Permission(StrEnum):
    """What a route or command asks for. The value is what documentation and audit entries show."""

    READ_ORGANIZATION = "organization.read"
    UPDATE_ORGANIZATION = "organization.update"
    RENAME_ORGANIZATION = "organization.rename"
    DELETE_ORGANIZATION = "organization.delete"
    RESTORE_ORGANIZATION = "organization.restore"
    SUSPEND_ORGANIZATION = "organization.suspend"
    REACTIVATE_ORGANIZATION = "organization.reactivate"
    CHANGE_PLAN = "organization.change_plan"
    READ_OPERATIONS = "operation.read"
    READ_RECORDS = "record.read"
    WRITE_RECORDS = "record.write"
    DEFINE_COLLECTIONS = "collection.define"
    MANAGE_API_KEYS = "api_key.manage"
    USE_OWN_ACCOUNT = "account.use"


_EVERYONE = frozenset(
    {
        Permission.READ_ORGANIZATION,
        Permission.READ_OPERATIONS,
        Permission.READ_RECORDS,
        Permission.USE_OWN_ACCOUNT,
    }
)
_MEMBERS = _EVERYONE | {Permission.WRITE_RECORDS}
"""Members work with the organization's data; viewers look at it."""

_ADMINS = _MEMBERS | {
    Permission.UPDATE_ORGANIZATION,
    Permission.RENAME_ORGANIZATION,
    # A schema or a unique field decides what everybody else may write, and an index what every write costs.
    Permission.DEFINE_COLLECTIONS,
    Permission.MANAGE_API_KEYS,
}

FOR_PEOPLE = frozenset(
    {
        Permission.USE_OWN_ACCOUNT,
        Permission.MANAGE_API_KEYS,
        Permission.DELETE_ORGANIZATION,
        Permission.RESTORE_ORGANIZATION,
    }
)
"""What no API key may, whatever its role: it has no account, one that leaked must not make itself others, and what
ends an organization takes a person."""

ALLOWED: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _EVERYONE,
    Role.MEMBER: _MEMBERS,
    Role.ADMIN: _ADMINS,
    Role.OWNER: frozenset(Permission),
}

RANK: Mapping[Role, int] = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3}
"""The order of the roles: each may do what those below it may."""


def allowed(role: Role, permission: Permission) -> bool:
    return permission in ALLOWED[role]


def lower(role: Role, other: Role) -> Role:
    """The one of the two that may do less."""
    return min(role, other, key=RANK.__getitem__)
