"""Who belongs to an organization, in which role. The last owner cannot leave.

Every change locks the organization before it looks: two owners who remove each other would otherwise both see the other
one, and somebody could be added to an organization that is just being purged.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from orgstead import audit, events, lifecycle, usage
from orgstead.audit import Actor
from orgstead.errors import AlreadyMember, LastOwner, StatusConflict
from orgstead.model import Membership, Role
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from orgstead.usage import Limits

if TYPE_CHECKING:
    from orgstead.settings import Settings


async def add(
    tx: Transaction, settings: Settings, org_id: str, user_id: str, role: Role, actor: Actor, at: datetime
) -> Membership:
    """Make a person a member.

    Raises ``AlreadyMember``, ``NotFound``, ``StatusConflict`` while it is made or purged, ``QuotaExceeded``.
    """
    organization = await tx.lock(tables.organizations, org_id)
    if organization.status in lifecycle.BUSY:
        raise StatusConflict(f"The organization is {organization.status}.")
    if await tx.find(tables.memberships, org_id=org_id, user_id=user_id):
        raise AlreadyMember
    await usage.count(tx, organization, usage.limits_of(settings, organization.plan), {"members": 1})
    membership = Membership(org_id=org_id, user_id=user_id, role=role, created_at=at, updated_at=at)
    await tx.add(tables.memberships, membership)
    await _note(tx, "membership.created", membership, actor, at)
    return membership


async def change_role(tx: Transaction, org_id: str, user_id: str, role: Role, actor: Actor, at: datetime) -> Membership:
    """Give a member another role, in force on the next request. Raises ``NotFound``, ``LastOwner``."""
    await tx.lock(tables.organizations, org_id)
    membership = await tx.get(tables.memberships, org_id, user_id)
    if membership.role is Role.OWNER and role is not Role.OWNER:
        await _keep_an_owner(tx, org_id)
    changed = await tx.replace(tables.memberships, replace(membership, role=role, updated_at=at))
    await _note(tx, "membership.role_changed", changed, actor, at)
    return changed


async def remove(tx: Transaction, org_id: str, user_id: str, actor: Actor, at: datetime) -> None:
    """End a membership; the person's tokens are refused on the next request. Raises ``NotFound``, ``LastOwner``."""
    organization = await tx.lock(tables.organizations, org_id)
    membership = await tx.get(tables.memberships, org_id, user_id)
    if membership.role is Role.OWNER:
        await _keep_an_owner(tx, org_id)
    await tx.remove(tables.memberships, org_id, user_id)
    await usage.count(tx, organization, Limits(), {"members": -1})
    await _note(tx, "membership.removed", membership, actor, at)


async def _keep_an_owner(tx: Transaction, org_id: str) -> None:
    """Raise ``LastOwner`` unless there is another one."""
    owners = await tx.page(tables.memberships, {"org_id": org_id, "role": Role.OWNER}, limit=2)
    if len(owners) < 2:
        raise LastOwner


async def _note(tx: Transaction, action: str, membership: Membership, actor: Actor, at: datetime) -> None:
    facts = {"user_id": membership.user_id, "role": membership.role.value}
    await audit.record(tx, membership.org_id, actor, action, facts, at=at)
    await events.emit(tx, membership.org_id, action, facts, at=at)
