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
    USE_OWN_ACCOUNT = "account.use"


_EVERYONE = frozenset({Permission.READ_ORGANIZATION, Permission.READ_OPERATIONS, Permission.USE_OWN_ACCOUNT})
_ADMINS = _EVERYONE | {Permission.UPDATE_ORGANIZATION, Permission.RENAME_ORGANIZATION}

ALLOWED: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _EVERYONE,
    Role.MEMBER: _EVERYONE,
    Role.ADMIN: _ADMINS,
    Role.OWNER: frozenset(Permission),
}

RANK: Mapping[Role, int] = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3}
"""The order of the roles: each may do what those below it may."""


def allowed(role: Role, permission: Permission) -> bool:
    return permission in ALLOWED[role]
