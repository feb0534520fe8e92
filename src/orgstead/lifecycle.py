"""Which status may follow which: one table, and the only code that changes an organization's status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from orgstead.errors import StatusConflict
from orgstead.model import Organization, OrganizationStatus

PROVISIONING = OrganizationStatus.PROVISIONING
ACTIVE = OrganizationStatus.ACTIVE
SUSPENDED = OrganizationStatus.SUSPENDED
CLOSED = OrganizationStatus.CLOSED
PURGING = OrganizationStatus.PURGING

FOLLOWS: Mapping[OrganizationStatus, frozenset[OrganizationStatus]] = {
    PROVISIONING: frozenset({ACTIVE, PURGING}),
    ACTIVE: frozenset({SUSPENDED, CLOSED}),
    SUSPENDED: frozenset({ACTIVE, CLOSED}),
    CLOSED: frozenset({ACTIVE, SUSPENDED, PURGING}),
    PURGING: frozenset(),
}
"""status -> the statuses that may come next. A purged organization has no row and so no status."""

BUSY: Final = frozenset({PROVISIONING, PURGING})
"""Statuses that an operation is about to end: until then the organization is that operation's, and nobody else's."""


def may_follow(status: OrganizationStatus, then: OrganizationStatus) -> bool:
    return then in FOLLOWS[status]


def moved(organization: Organization, status: OrganizationStatus, at: datetime, **changes: Any) -> Organization:
    """The organization in its new status, with ``changes`` to the fields that go with it.

    Raises ``StatusConflict``, naming both statuses, when the table does not allow the step.
    """
    if not may_follow(organization.status, status):
        raise StatusConflict(f"The organization is {organization.status}; from there it cannot become {status}.")
    return replace(organization, status=status, updated_at=at, **changes)
