"""Who holds which slug. One row per slug in every state, so that the key of ``slugs`` decides every race for a name.

current -> (renamed) redirect -> (purged, or pushed out by newer redirects) quarantined -> (time) free.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orgstead.errors import NameTaken
from orgstead.model import SlugClaim, SlugState
from orgstead.storage import tables
from orgstead.storage.port import Transaction

MAX_REDIRECTS = 20
"""How many former slugs an organization keeps as redirects; more would let it hoard names by renaming."""


def is_free(claim: SlugClaim, org_id: str, user_id: str | None, at: datetime) -> bool:
    """May ``org_id``, created or renamed by ``user_id``, take over this claim?"""
    if claim.state is SlugState.REDIRECT:
        return claim.org_id == org_id
    if claim.state is SlugState.QUARANTINED:
        return (claim.until is not None and claim.until <= at) or (user_id is not None and claim.held_for == user_id)
    return False


def first_claim(slug: str, org_id: str) -> SlugClaim:
    """The claim of a slug that nobody has or had; to be added."""
    return SlugClaim(slug=slug, org_id=org_id, state=SlugState.CURRENT)


async def claim(tx: Transaction, slug: str, org_id: str, user_id: str | None, at: datetime) -> None:
    """Take the slug for the organization. Raises ``NameTaken``, or ``AlreadyExists`` ("slugs.key") when raced."""
    await tx.add_many(tables.slugs, await take_over(tx, slug, org_id, user_id, at))


async def take_over(tx: Transaction, slug: str, org_id: str, user_id: str | None, at: datetime) -> list[SlugClaim]:
    """``claim`` for those who add the claim themselves, with other rows: what to add, nothing where the slug had one.

    Raises ``NameTaken``.
    """
    held = await tx.find(tables.slugs, slug=slug)
    if held is None:
        return [first_claim(slug, org_id)]
    if not is_free(held, org_id, user_id, at):
        raise NameTaken
    held = await tx.lock(tables.slugs, slug)
    if not is_free(held, org_id, user_id, at):
        raise NameTaken  # somebody else took it over meanwhile
    await tx.replace(tables.slugs, replace(held, org_id=org_id, state=SlugState.CURRENT, held_for=None, until=None))
    return []


async def redirect(tx: Transaction, slug: str, until: datetime) -> None:
    """The slug's organization was renamed: keep it as a redirect, and quarantine redirects beyond ``MAX_REDIRECTS``."""
    held = await tx.get(tables.slugs, slug)
    await tx.replace(tables.slugs, replace(held, state=SlugState.REDIRECT))
    where = {"org_id": held.org_id, "state": SlugState.REDIRECT}
    redirects = await tx.page(tables.slugs, where, limit=MAX_REDIRECTS + 1)
    for surplus in [claim for claim in redirects if claim.slug != slug][MAX_REDIRECTS - 1 :]:
        await tx.replace(tables.slugs, replace(surplus, state=SlugState.QUARANTINED, until=until))


async def release_all(tx: Transaction, org_id: str, held_for: str | None, until: datetime) -> None:
    """The organization is gone: quarantine every slug it held. ``held_for`` may take them before ``until``."""
    for state in (SlugState.CURRENT, SlugState.REDIRECT):
        for held in await tx.page(tables.slugs, {"org_id": org_id, "state": state}, limit=MAX_REDIRECTS + 1):
            await tx.replace(tables.slugs, replace(held, state=SlugState.QUARANTINED, held_for=held_for, until=until))


async def free(tx: Transaction, slug: str) -> None:
    """Forget the claim: its organization never came to be."""
    await tx.remove(tables.slugs, slug)


async def holder(tx: Transaction, slug: str) -> str | None:
    """The id of the organization that has the slug, or had it and is redirected from it; None if nobody."""
    held = await tx.find(tables.slugs, slug=slug)
    return held.org_id if held and held.state is not SlugState.QUARANTINED else None
