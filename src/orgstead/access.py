"""May this credential do this? Judged on every request from rows read fresh, so that revocation is immediate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from orgstead.errors import Forbidden, InvalidToken, NotFound, Suspended
from orgstead.model import Access, Membership, Organization, OrganizationStatus, Placement, Role, Session
from orgstead.policy import Permission, allowed
from orgstead.tokens import Claims

ACTIVE = frozenset({OrganizationStatus.ACTIVE})
"""The statuses in which nearly everything is allowed, and nothing in others."""

_EXISTING = frozenset({OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED, OrganizationStatus.CLOSED})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a credential stands for: a person in one organization, as the store has them now."""

    organization: Organization
    placement: Placement
    membership: Membership
    session: Session

    @property
    def user_id(self) -> str:
        return self.membership.user_id


def authenticate(access: Access, claims: Claims, at: datetime) -> Principal:
    """What the token claims, confirmed against the store. Raises ``InvalidToken``, and never says why.

    The organization must exist under the token's epoch, the person be its member, the session be of that person and
    organization, neither ended nor older than the person's own cut-off.
    """
    organization, placement, membership, session = (
        access.organization,
        access.placement,
        access.membership,
        access.session,
    )
    if (
        organization is None
        or placement is None
        or membership is None
        or session is None
        or organization.status not in _EXISTING
        or organization.epoch != claims.org_epoch
        or session.user_id != claims.user_id
        or session.org_id != organization.id
        or session.revoked_at is not None
        or session.expires_at <= at
        or session.user_epoch != access.user_epoch
    ):
        raise InvalidToken
    return Principal(organization, placement, membership, session)


def authorize(
    principal: Principal,
    permission: Permission,
    statuses: Collection[OrganizationStatus] = ACTIVE,
    *,
    named: str | None = None,
) -> None:
    """Raise unless the principal's role has the permission and the organization is in one of the ``statuses``.

    ``named`` is the organization that the request itself names, if it does. Closed organizations are dead to every
    credential (``InvalidToken``), except to an owner where ``statuses`` say so: somebody must be able to restore one.
    Raises, in this order, ``InvalidToken``, ``NotFound`` where ``named`` is not the principal's own, ``Suspended``,
    ``Forbidden``.
    """
    organization, role = principal.organization, principal.membership.role
    status = organization.status
    if status is OrganizationStatus.CLOSED and (status not in statuses or role is not Role.OWNER):
        raise InvalidToken
    if named is not None and named != organization.id:
        raise NotFound
    if status is OrganizationStatus.SUSPENDED and status not in statuses:
        raise Suspended
    if not allowed(role, permission):
        raise Forbidden
