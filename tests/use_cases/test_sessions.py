"""Sessions: what is told apart and what is not, which organization is entered, and when a session is over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orgstead import sessions
from orgstead.access import authenticate
from orgstead.audit import Actor, first_broken
from orgstead.errors import BadCredentials, InvalidToken, OrganizationRequired, Overloaded, RateLimited
from orgstead.model import Membership, OrganizationStatus, Placement, PlacementKind, Role, Session, SlugClaim, SlugState
from orgstead.passwords import Passwords
from orgstead.sessions import LoginResult, login, logout, refresh
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from orgstead.throttles import Throttles
from tests.use_cases.accounts import ADDRESS, PASSWORD, SCOPE, WRONG, CountingPasswords, World

pytestmark = pytest.mark.anyio

GRACE = 30
STATUSES = list(OrganizationStatus)


async def accepted(world: World, access_token: str) -> bool:
    """Would a request with this access token be let in?"""
    try:
        claims = world.app.tokens.verify_access(access_token)
        access = await world.app.storage.access(claims.org_id, claims.user_id, claims.session_id)
        authenticate(access, claims, world.watch())
    except InvalidToken:
        return False
    return True


# --- one answer, one cost (R08) ---------------------------------------------------------------------------------------


async def test_what_must_not_be_told_apart_has_one_answer_and_one_cost(world: World) -> None:
    ada = await world.user()
    suspended, closed = OrganizationStatus.SUSPENDED, OrganizationStatus.CLOSED
    await world.organization("acme", ada)
    await world.organization("foreign", await world.user("eve@example.com"))
    await world.organization("halted", ada, status=suspended, suspended_by="owner")
    await world.organization("gone", ada, status=closed, role=Role.ADMIN)
    await world.organization("half-made", ada, status=OrganizationStatus.PROVISIONING)
    await world.organization("half-gone", ada, status=OrganizationStatus.PURGING)
    only_halted = await world.user("halted@example.com")
    await world.organization("halted-too", only_halted, status=suspended, suspended_by="operator")
    await world.user("nowhere@example.com")
    await world.replace(tables.users, replace(await world.user("damaged@example.com"), password_hash="damaged"))
    asked: list[tuple[str, str, str | None]] = [
        ("unknown@example.com", PASSWORD, None),
        ("not an address", PASSWORD, None),
        ("\ud800@example.com", PASSWORD, None),
        (ada.email, WRONG, None),
        (ada.email, WRONG, "acme"),
        (ada.email, "", "acme"),
        (ada.email, "x" * 5000, "acme"),
        (ada.email, PASSWORD, "foreign"),
        (ada.email, PASSWORD, "missing"),
        (ada.email, PASSWORD, ""),
        (ada.email, PASSWORD, "halted"),
        (ada.email, PASSWORD, "gone"),
        (ada.email, PASSWORD, "half-made"),
        (ada.email, PASSWORD, "half-gone"),
        (only_halted.email, PASSWORD, None),
        ("nowhere@example.com", PASSWORD, None),
        ("damaged@example.com", PASSWORD, None),
    ]
    for number, (email, password, organization) in enumerate(asked):
        before = world.passwords.evaluated
        with pytest.raises(BadCredentials) as refused:
            await login(world.app, email, password, organization=organization, address=f"192.0.2.{number}")
        assert world.passwords.evaluated == before + 1
        assert (str(refused.value), refused.value.retry_after, refused.value.problems) == (
            BadCredentials.title,
            None,
            (),
        )
    assert await world.rows(tables.sessions) == []
    assert await world.audited() == []


@pytest.mark.parametrize("email", ["ada@example.com", "unknown@example.com", "not an address"])
async def test_known_and_unknown_accounts_are_throttled_alike(world: World, email: str) -> None:
    await world.organization("acme", await world.user())
    for _ in range(10):
        with pytest.raises(BadCredentials):
            await login(world.app, email, WRONG, address=ADDRESS)
    before = world.passwords.evaluated
    with pytest.raises(RateLimited):
        await login(world.app, email, PASSWORD, address=ADDRESS)
    assert world.passwords.evaluated == before, "nothing is hashed for who is throttled"


async def test_the_right_password_of_a_suspended_organization_is_throttled_like_a_wrong_one(world: World) -> None:
    await world.organization("halted", await world.user(), status=OrganizationStatus.SUSPENDED)
    for _ in range(10):
        with pytest.raises(BadCredentials):
            await login(world.app, "ada@example.com", PASSWORD, address=ADDRESS)
    with pytest.raises(RateLimited):
        await login(world.app, "ada@example.com", PASSWORD, address=ADDRESS)


async def test_the_spelling_of_an_address_gives_no_new_guesses(world: World) -> None:
    await world.organization("acme", await world.user())
    for n in range(10):
        spelling = "".join(c.upper() if n >> i & 1 else c for i, c in enumerate("ada@example.com"))
        with pytest.raises(BadCredentials):
            await login(world.app, spelling, WRONG, address=ADDRESS)
    with pytest.raises(RateLimited):
        await login(world.app, "ada@example.com", WRONG, address=ADDRESS)


async def test_a_hundred_guesses_at_once_are_no_more_than_ten(world: World) -> None:
    await world.organization("acme", await world.user())
    guesses = (login(world.app, "ada@example.com", WRONG, address=ADDRESS) for _ in range(100))
    outcomes = [type(outcome) for outcome in await asyncio.gather(*guesses, return_exceptions=True)]
    assert outcomes.count(BadCredentials) == 10
    assert outcomes.count(RateLimited) == 90
    assert world.passwords.evaluated == 10


async def test_good_log_ins_at_once_all_get_in(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    world.app.throttles = Throttles(clock=world.watch, max_wait_seconds=60)  # however slow the machine is
    results = await asyncio.gather(*(login(world.app, user.email, PASSWORD, address=ADDRESS) for _ in range(100)))
    assert len({result.session_id for result in results}) == 100
    assert len(await world.audited(acme.id)) == 100
    assert await world.app.storage.read(SCOPE, first_broken, acme.id) is None


async def test_a_queue_that_is_full_is_no_wrong_password(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.organization("acme", await world.user())

    async def overloaded(self: Passwords, stored: str, password: str) -> bool:
        raise Overloaded(retry_after=1)

    with monkeypatch.context() as patched:
        patched.setattr(CountingPasswords, "verify", overloaded)
        for _ in range(20):
            with pytest.raises(Overloaded):
                await login(world.app, "ada@example.com", PASSWORD, address=ADDRESS)
    assert await login(world.app, "ada@example.com", PASSWORD, address=ADDRESS)


# --- what a log-in gives ----------------------------------------------------------------------------------------------


async def test_a_log_in_gives_tokens_of_a_session_that_is_noted(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user, role=Role.ADMIN, epoch=7)
    result = await login(world.app, "ADA@example.com", PASSWORD, address=ADDRESS, request_id="req-1")
    claims = world.app.tokens.verify_access(result.access_token)
    assert (claims.user_id, claims.org_id, claims.role, claims.org_epoch) == (user.id, acme.id, Role.ADMIN, 7)
    assert (result.user_id, result.organization_id, result.expires_in) == (user.id, acme.id, 900)
    session = await world.session(claims.session_id)
    assert session.id == result.session_id
    assert session.expires_at == world.watch() + timedelta(days=30)
    (entry,) = await world.audited(acme.id)
    assert (entry.action, entry.actor, entry.address, entry.request_id) == (
        "session.created",
        user.id,
        ADDRESS,
        "req-1",
    )
    stored = repr(session) + repr(entry)
    assert result.refresh_token not in stored
    assert result.refresh_token.rpartition("_")[2] not in stored
    assert result.access_token not in stored


async def test_a_hash_of_other_parameters_is_replaced_at_the_next_log_in(world: World) -> None:
    user = await world.user()
    await world.organization("acme", user)
    world.app.passwords = CountingPasswords(memory_kib=16)
    assert await login(world.app, user.email, PASSWORD)
    (stored,) = await world.rows(tables.users)
    assert "m=16," in stored.password_hash
    assert replace(stored, password_hash=user.password_hash, version=user.version) == user, "sessions live on"
    before = world.app.passwords.evaluated
    assert await login(world.app, user.email, PASSWORD)
    assert world.app.passwords.evaluated == before + 1


async def test_a_full_queue_does_not_fail_the_log_in_that_would_replace_the_hash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await world.user()
    await world.organization("acme", user)
    world.app.passwords = CountingPasswords(memory_kib=16)

    async def overloaded(self: Passwords, password: str) -> str:
        raise Overloaded(retry_after=1)

    monkeypatch.setattr(CountingPasswords, "hash", overloaded)
    assert await login(world.app, user.email, PASSWORD)
    assert await world.rows(tables.users) == [user]


async def test_a_password_changed_while_it_was_compared_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await world.user()
    await world.organization("acme", user)
    real = CountingPasswords.verify

    async def meanwhile(self: CountingPasswords, stored: str, password: str) -> bool:
        right = await real(self, stored, password)
        await world.replace(tables.users, replace(user, password_hash=await self.hash(WRONG), epoch=2))
        return right

    monkeypatch.setattr(CountingPasswords, "verify", meanwhile)
    with pytest.raises(BadCredentials):
        await login(world.app, user.email, PASSWORD)
    assert await world.rows(tables.sessions) == []


# --- which organization -----------------------------------------------------------------------------------------------


async def test_the_only_organization_is_entered(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    assert (await login(world.app, user.email, PASSWORD)).organization_id == acme.id


async def test_one_of_several_must_be_named_the_first_time_and_is_remembered(world: World) -> None:
    user = await world.user()
    acme, beta = await world.organization("acme", user), await world.organization("beta", user)
    with pytest.raises(OrganizationRequired) as choice:
        await login(world.app, user.email, PASSWORD)
    assert sorted(choice.value.organizations) == [(acme.id, "acme", "Acme"), (beta.id, "beta", "Beta")]
    for organization in (beta, acme, beta):
        world.watch.advance(1)
        await login(world.app, user.email, PASSWORD, organization=organization.slug)
        world.watch.advance(1)
        assert (await login(world.app, user.email, PASSWORD)).organization_id == organization.id


async def test_being_asked_which_one_is_no_wrong_password(world: World) -> None:
    user = await world.user()
    await world.organization("acme", user)
    await world.organization("beta", user)
    for _ in range(20):
        with pytest.raises(OrganizationRequired):
            await login(world.app, user.email, PASSWORD, address=ADDRESS)


async def test_an_organization_is_named_by_id_slug_former_slug_or_name(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user, name="Acme Rockets & Söhne")
    await world.organization("beta", user)
    await world.add(tables.slugs, SlugClaim(slug="old-acme", org_id=acme.id, state=SlugState.REDIRECT))
    for text in (acme.id, "acme", "ACME", "old-acme", "Acme Rockets & Söhne", " acme rockets & SÖHNE "):
        assert (await login(world.app, user.email, PASSWORD, organization=text)).organization_id == acme.id
    with pytest.raises(BadCredentials):
        await login(world.app, user.email, PASSWORD, organization="Acme Rockets")


async def test_a_slug_goes_before_a_name_and_one_name_of_several_is_asked_about(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user, name="Twin")
    twin = await world.organization("twin", user, name="Other")
    assert (await login(world.app, user.email, PASSWORD, organization="twin")).organization_id == twin.id
    third = await world.organization("third", user, name="other")
    with pytest.raises(OrganizationRequired) as choice:
        await login(world.app, user.email, PASSWORD, organization="Other")
    assert {found[0] for found in choice.value.organizations} == {twin.id, third.id}
    assert acme.id not in {found[0] for found in choice.value.organizations}


async def test_a_foreign_organization_is_never_entered_nor_named(world: World) -> None:
    user, eve = await world.user(), await world.user("eve@example.com")
    acme = await world.organization("acme", user)
    foreign = await world.organization("foreign", eve)
    for text in (foreign.id, "foreign", "Foreign"):
        with pytest.raises(BadCredentials):
            await login(world.app, user.email, PASSWORD, organization=text)
    assert (await login(world.app, user.email, PASSWORD)).organization_id == acme.id


async def test_who_has_left_the_last_one_enters_the_other(world: World) -> None:
    user = await world.user()
    acme, beta = await world.organization("acme", user), await world.organization("beta", user)
    await login(world.app, user.email, PASSWORD, organization="beta")
    await world.remove(tables.memberships, beta.id, user.id)
    assert (await login(world.app, user.email, PASSWORD)).organization_id == acme.id


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("status", STATUSES)
async def test_the_status_decides_who_may_enter(world: World, status: OrganizationStatus, role: Role) -> None:
    user = await world.user()
    organization = await world.organization("acme", user, role=role, status=status)
    enters = status is OrganizationStatus.ACTIVE or (status is OrganizationStatus.CLOSED and role is Role.OWNER)
    for named in (None, "acme"):
        if enters:
            result = await login(world.app, user.email, PASSWORD, organization=named)
            assert result.organization_id == organization.id
        else:
            with pytest.raises(BadCredentials):
                await login(world.app, user.email, PASSWORD, organization=named)


async def test_a_closed_one_is_entered_only_by_name_while_others_are_active(world: World) -> None:
    user = await world.user()
    closed = await world.organization("closed", user, status=OrganizationStatus.CLOSED)
    active = await world.organization("active", user)
    assert (await login(world.app, user.email, PASSWORD)).organization_id == active.id
    world.watch.advance(1)
    assert (await login(world.app, user.email, PASSWORD, organization="closed")).organization_id == closed.id
    assert (await login(world.app, user.email, PASSWORD)).organization_id == active.id


# --- refreshing (R17, C31, C32) ---------------------------------------------------------------------------------------


async def entered(world: World, *, role: Role = Role.OWNER, **changes: Any) -> LoginResult:
    user = await world.user()
    acme = await world.organization("acme", user, role=role, **changes)
    await world.add(tables.placements, Placement(org_id=acme.id, cell="main", kind=PlacementKind.POOLED, space=None))
    return await login(world.app, user.email, PASSWORD)


async def test_a_refresh_gives_new_tokens_of_the_same_session(world: World) -> None:
    first = await entered(world)
    world.watch.advance(600)
    second = await refresh(world.app, first.refresh_token)
    assert second.session_id == first.session_id
    assert second.refresh_token != first.refresh_token
    assert world.app.tokens.verify_access(second.access_token).expires_at == int(world.watch().timestamp()) + 900
    assert await accepted(world, second.access_token)
    world.watch.advance(600)
    third = await refresh(world.app, second.refresh_token)
    assert (await world.session(first.session_id)).generation == 3
    assert third.refresh_token not in (first.refresh_token, second.refresh_token)


async def test_a_lost_answer_can_be_asked_for_again(world: World) -> None:
    first = await entered(world)
    world.watch.advance(3600)
    second = await refresh(world.app, first.refresh_token)
    for _ in range(3):
        world.watch.advance(GRACE / 3)
        again = await refresh(world.app, first.refresh_token)
        assert again.refresh_token == second.refresh_token
    assert await refresh(world.app, second.refresh_token)


async def test_asking_again_does_not_make_the_grace_longer(world: World) -> None:
    first = await entered(world)
    await refresh(world.app, first.refresh_token)
    world.watch.advance(GRACE)
    await refresh(world.app, first.refresh_token)
    world.watch.advance(1)
    with pytest.raises(InvalidToken):
        await refresh(world.app, first.refresh_token)


async def test_later_use_of_an_old_token_ends_the_whole_session(world: World) -> None:
    first = await entered(world)
    second = await refresh(world.app, first.refresh_token)
    assert await accepted(world, second.access_token)
    world.watch.advance(GRACE + 1)
    with pytest.raises(InvalidToken):
        await refresh(world.app, first.refresh_token)
    for token in (second.refresh_token, first.refresh_token):
        with pytest.raises(InvalidToken):
            await refresh(world.app, token)
    assert not await accepted(world, second.access_token)
    entries = await world.audited(first.organization_id)
    assert [entry.action for entry in entries] == ["session.created", "session.reuse_detected"]


async def test_an_older_than_the_last_one_is_never_in_grace(world: World) -> None:
    first = await entered(world)
    second = await refresh(world.app, first.refresh_token)
    third = await refresh(world.app, second.refresh_token)
    with pytest.raises(InvalidToken):
        await refresh(world.app, first.refresh_token)
    with pytest.raises(InvalidToken):
        await refresh(world.app, third.refresh_token)


async def test_refreshes_at_once_make_one_next_token(world: World) -> None:
    first = await entered(world)
    results = await asyncio.gather(*(refresh(world.app, first.refresh_token) for _ in range(20)))
    assert len({result.refresh_token for result in results}) == 1
    assert (await world.session(first.session_id)).generation == 2


async def test_a_session_ends_however_often_it_is_refreshed(world: World) -> None:
    result = await entered(world)
    for _ in range(29):
        world.watch.advance(86400)
        result = await refresh(world.app, result.refresh_token)
    world.watch.advance(86399)
    result = await refresh(world.app, result.refresh_token)
    world.watch.advance(1)
    with pytest.raises(InvalidToken):
        await refresh(world.app, result.refresh_token)


async def test_a_refreshed_token_has_the_role_and_epoch_of_now(world: World) -> None:
    first = await entered(world)
    (membership,) = await world.rows(tables.memberships)
    assert isinstance(membership, Membership)
    await world.replace(tables.memberships, replace(membership, role=Role.VIEWER))
    (organization,) = await world.rows(tables.organizations)
    await world.replace(tables.organizations, replace(organization, epoch=2))
    claims = world.app.tokens.verify_access((await refresh(world.app, first.refresh_token)).access_token)
    assert (claims.role, claims.org_epoch) == (Role.VIEWER, 2)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("status", STATUSES)
async def test_the_status_decides_who_may_refresh(world: World, status: OrganizationStatus, role: Role) -> None:
    first = await entered(world, role=role)
    (organization,) = await world.rows(tables.organizations)
    await world.replace(tables.organizations, replace(organization, status=status))
    stays = status in (OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED) or (
        status is OrganizationStatus.CLOSED and role is Role.OWNER
    )
    if stays:
        assert await refresh(world.app, first.refresh_token)
    else:
        with pytest.raises(InvalidToken):
            await refresh(world.app, first.refresh_token)
        (organization,) = await world.rows(tables.organizations)
        await world.replace(tables.organizations, replace(organization, status=OrganizationStatus.ACTIVE))
        assert await refresh(world.app, first.refresh_token), "a refusal uses nothing up"


@pytest.mark.parametrize("gone", ["membership", "user", "session", "user epoch"])
async def test_a_session_without_its_grounds_is_over(world: World, gone: str) -> None:
    first = await entered(world)
    (user,) = await world.rows(tables.users)
    if gone == "membership":
        await world.remove(tables.memberships, first.organization_id, user.id)
    elif gone == "user":
        await world.remove(tables.users, user.id)
    elif gone == "session":
        await world.remove(tables.sessions, first.session_id)
    else:
        await world.replace(tables.users, replace(user, epoch=2))
    with pytest.raises(InvalidToken):
        await refresh(world.app, first.refresh_token)


async def test_a_session_that_is_removed_meanwhile_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await entered(world)
    session = await world.session(first.session_id)

    async def as_it_was(tx: Transaction, session_id: str) -> Session:
        return session

    await world.remove(tables.sessions, session.id)
    monkeypatch.setattr(sessions, "_session", as_it_was)
    with pytest.raises(InvalidToken):
        await refresh(world.app, first.refresh_token)


async def test_what_is_no_refresh_token_is_refused(world: World) -> None:
    first = await entered(world)
    session = await world.session(first.session_id)
    forged = first.refresh_token[:-1] + ("0" if first.refresh_token[-1] != "0" else "1")
    future = world.app.tokens.refresh_token(replace(session, generation=2)).rpartition("_")[0] + "_" + "0" * 64
    for token in ("", "rt_", first.access_token, first.session_id, forged, future, first.refresh_token.upper()):
        with pytest.raises(InvalidToken):
            await refresh(world.app, token)
    assert await world.session(first.session_id) == session, "a forged token ends no session"
    assert await refresh(world.app, first.refresh_token)


# --- logging out (C25) ------------------------------------------------------------------------------------------------


async def test_logging_out_ends_the_session_at_once_and_may_be_repeated(world: World) -> None:
    first = await entered(world)
    other = await login(world.app, "ada@example.com", PASSWORD)
    assert await accepted(world, first.access_token)
    for _ in range(3):
        await logout(world.app, first.session_id, actor=Actor(first.user_id))
        world.watch.advance(1)
    assert not await accepted(world, first.access_token)
    with pytest.raises(InvalidToken):
        await refresh(world.app, first.refresh_token)
    assert await accepted(world, other.access_token)
    actions = [entry.action for entry in await world.audited(first.organization_id)]
    assert actions == ["session.created", "session.created", "session.ended"]


async def test_logging_out_of_nothing_is_no_error(world: World) -> None:
    await logout(world.app, "ses_01jd0000000000000000000000", actor=Actor("system"))
