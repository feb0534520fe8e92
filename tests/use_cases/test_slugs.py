"""Who holds which slug: current, redirect, quarantined, free."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orgstead import kit, renaming, slugs
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.creation import NewOrganization, create
from orgstead.errors import NameTaken
from orgstead.model import SlugClaim, SlugState, User
from orgstead.organizations import Located
from orgstead.renaming import NewName
from orgstead.slugs import MAX_REDIRECTS
from orgstead.storage import tables
from tests import apps

pytestmark = pytest.mark.anyio


async def claims(app: App) -> dict[str, SlugState]:
    return {claim.slug: claim.state for claim in await apps.rows(app, tables.slugs)}


async def rename(app: App, org_id: str, name: str) -> None:
    await renaming.rename(app, org_id, NewName(name=name), apps.TESTER)


async def holder(app: App, slug: str) -> str | None:
    return await app.storage.read(apps.SCOPE, slugs.holder, slug)


async def created_by(app: App, user: User, name: str) -> Located:
    return await create(app, NewOrganization(name=name, plan="free", owner=user), Actor(user.id))


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_former_slug_is_a_redirect_that_nobody_else_gets(app: App, plan: str) -> None:
    org_id = (await apps.created(app, "Acme", plan)).organization.id
    await rename(app, org_id, "Labs")
    assert await claims(app) == {"acme": SlugState.REDIRECT, "labs": SlugState.CURRENT}
    assert await holder(app, "acme") == await holder(app, "labs") == org_id
    with pytest.raises(NameTaken):
        await apps.created(app, "Acme")
    other = (await apps.created(app, "Other", plan)).organization.id
    with pytest.raises(NameTaken):
        await rename(app, other, "Acme")


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_an_organization_takes_its_former_slug_back(app: App, plan: str) -> None:
    org_id = (await apps.created(app, "Acme", plan)).organization.id
    for name in ("Labs", "Acme", "Labs"):
        await rename(app, org_id, name)
    assert await claims(app) == {"acme": SlugState.REDIRECT, "labs": SlugState.CURRENT}


async def test_a_slug_can_not_be_taken_from_who_has_it(app: App) -> None:
    one = (await apps.created(app, "One")).organization.id
    await apps.created(app, "Two")
    with pytest.raises(NameTaken):
        await rename(app, one, "Two")
    assert await claims(app) == {"one": SlugState.CURRENT, "two": SlugState.CURRENT}


async def test_what_a_purged_organization_held_is_quarantined(app: App, clock: apps.Clock) -> None:
    """For a while only its owner may take it; then everybody."""
    org_id = (await apps.created(app, "Acme")).organization.id
    (owner,) = await apps.rows(app, tables.users)
    await rename(app, org_id, "Labs")
    await apps.purged(app, org_id)
    assert await claims(app) == {"acme": SlugState.QUARANTINED, "labs": SlugState.QUARANTINED}
    assert await holder(app, "acme") is None
    with pytest.raises(NameTaken):
        await apps.created(app, "Acme")
    await created_by(app, owner, "Acme")
    days = timedelta(days=app.settings.name_quarantine_days)
    clock.pass_(days - timedelta(minutes=1))
    with pytest.raises(NameTaken):
        await apps.created(app, "Labs")
    clock.pass_(timedelta(minutes=2))
    await apps.created(app, "Labs")
    assert await claims(app) == {"acme": SlugState.CURRENT, "labs": SlugState.CURRENT}


async def test_names_cannot_be_hoarded_by_renaming(app: App) -> None:
    org_id = (await apps.created(app, "Name 0")).organization.id
    for number in range(1, MAX_REDIRECTS + 6):
        await rename(app, org_id, f"Name {number}")
    held = await claims(app)
    counts = {state: sum(1 for s in held.values() if s is state) for state in SlugState}
    assert counts == {SlugState.CURRENT: 1, SlugState.REDIRECT: MAX_REDIRECTS, SlugState.QUARANTINED: 5}
    assert held[f"name-{MAX_REDIRECTS + 5}"] is SlugState.CURRENT
    assert held[f"name-{MAX_REDIRECTS + 4}"] is SlugState.REDIRECT, "the newest redirect is kept"


async def test_who_may_take_which_claim() -> None:
    now = kit.now()
    past, future = now - timedelta(seconds=1), now + timedelta(seconds=1)

    def free(state: SlugState, **fields: object) -> bool:
        claim = SlugClaim(slug="acme", org_id="org_1", state=state, **fields)  # type: ignore[arg-type]  # by the table
        return slugs.is_free(claim, "org_1", "usr_1", now)

    assert not free(SlugState.CURRENT)
    assert free(SlugState.REDIRECT)
    assert not slugs.is_free(SlugClaim(slug="a", org_id="org_2", state=SlugState.REDIRECT), "org_1", "usr_1", now)
    assert free(SlugState.QUARANTINED, until=past)
    assert free(SlugState.QUARANTINED, until=now)
    assert not free(SlugState.QUARANTINED, until=future)
    assert free(SlugState.QUARANTINED, until=future, held_for="usr_1")
    assert not free(SlugState.QUARANTINED, until=future, held_for="usr_2")
    nobody = SlugClaim(slug="a", org_id="org_1", state=SlugState.QUARANTINED, until=future, held_for=None)
    assert not slugs.is_free(nobody, "org_1", None, now)
