"""May this credential do this? Judged on every request from rows read fresh, so that revocation is immediate."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from orgstead.api_keys import KeyClaims
from orgstead.errors import Forbidden, InvalidToken, NotFound, Suspended
from orgstead.model import Access, ApiKey, Membership, Organization, OrganizationStatus, Placement, Role, Session
from orgstead.policy import FOR_PEOPLE, RANK, Permission, allowed, lower
from orgstead.tokens import Claims

ACTIVE = frozenset({OrganizationStatus.ACTIVE})
"""The statuses in which nearly everything is allowed, and nothing in others."""

_EXISTING = frozenset({OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED, OrganizationStatus.CLOSED})
_OPEN_TO_KEYS = frozenset({OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED})

_RESTORABLE = (
    "The organization is closed, and all that this token opens is the way back, for as long as it is not purged: "
    "POST /v1/organizations/{organization_id}/restore."
)


class Principal(msgspec.Struct, frozen=True):
    """Who a credential stands for, in one organization, as the store has them now: a person who has logged in, or a
    program with an API key. The ``membership`` is that person's, or of the one who made the key."""

    organization: Organization
    placement: Placement
    membership: Membership
    credential: Session | ApiKey

    @property
    def id(self) -> str:
        """Who does something, as audit entries and events name them."""
        return self.credential.id if isinstance(self.credential, ApiKey) else self.membership.user_id

    @property
    def user_id(self) -> str:
        """The person, also behind an API key."""
        return self.membership.user_id

    @property
    def role(self) -> Role:
        """An API key's own, and never more than that of whoever made it."""
        role = self.membership.role
        return lower(role, self.credential.role) if isinstance(self.credential, ApiKey) else role

    @property
    def session(self) -> Session:
        """The person's session. Raises ``Forbidden`` for an API key: only people have an account."""
        if isinstance(self.credential, ApiKey):
            raise Forbidden
        return self.credential

    def may(self, permission: Permission) -> bool:
        """Has the role this permission, and is it one that this kind of credential can have?"""
        if permission in FOR_PEOPLE and isinstance(self.credential, ApiKey):
            return False
        return allowed(self.role, permission)


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


def authenticate_key(access: Access, claims: KeyClaims, at: datetime, *, limited: bool) -> tuple[Principal, ApiKey]:
    """What the API key claims, confirmed against the store. Raises ``InvalidToken``, and never says why.

    The organization must exist and not be closed, the key be the one it has under this id, neither expired nor
    deleted, and whoever was shown it be a member since before then. Where their role is below the key's by now, the
    key is dead, or ``limited`` to their role.
    """
    organization, placement, membership, key = (
        access.organization,
        access.placement,
        access.membership,
        access.api_key,
    )
    if (
        organization is None
        or placement is None
        or membership is None
        or key is None
        or organization.status not in _OPEN_TO_KEYS
        or not claims.is_of(key)
        or (key.expires_at is not None and key.expires_at <= at)
        or key.updated_at < membership.created_at
        or (RANK[membership.role] < RANK[key.role] and not limited)
    ):
        raise InvalidToken
    return Principal(organization, placement, membership, key), key


def authorize(
    principal: Principal,
    permission: Permission,
    statuses: Collection[OrganizationStatus] = ACTIVE,
    *,
    named: str | None = None,
) -> None:
    """Raise unless the principal's role has the permission and the organization is in one of the ``statuses``.

    ``named`` is the organization that the request itself names, if it does. Closed organizations are dead to every
    credential (``InvalidToken``), except to an owner where ``statuses`` say so: somebody must be able to restore one,
    and an owner, whose log-in works, is told so.
    Raises, in this order, ``InvalidToken``, ``NotFound`` where ``named`` is not the principal's own, ``Suspended``,
    ``Forbidden``.
    """
    organization = principal.organization
    status = organization.status
    if status is OrganizationStatus.CLOSED:
        if principal.role is not Role.OWNER:
            raise InvalidToken
        if status not in statuses:
            raise InvalidToken(_RESTORABLE)
    if named is not None and named != organization.id:
        raise NotFound
    if status is OrganizationStatus.SUSPENDED and status not in statuses:
        raise Suspended
    if not principal.may(permission):
        raise Forbidden
