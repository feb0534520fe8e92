"""Accounts: one per mailbox, made once, changed only with what is right, and noted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orgstead import identity, importing, sessions
from orgstead.audit import OPERATOR, Actor, first_broken
from orgstead.errors import (
    AlreadyExists,
    BadCredentials,
    InvalidEmail,
    InvalidToken,
    NotFound,
    PasswordUnacceptable,
    RateLimited,
    UserExists,
)
from orgstead.model import User
from orgstead.storage import tables
from tests.use_cases.accounts import ADDRESS, PASSWORD, SCOPE, WRONG, World

pytestmark = pytest.mark.anyio

ANOTHER = "a quite different passphrase"


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada@Example.COM", "ada@example.com"),
        ("ada+tag@example.com", "ada+tag@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("GRÜSSE@example.com", "grüsse@example.com"),
        ("gru\u0308sse@example.com", "grüsse@example.com"),
        ("grüße@example.com", "grüsse@example.com"),
        ("o'neil@example.com", "o'neil@example.com"),
        ("a@intra.test", "a@intra.test"),
        ("a@host.internal", "a@host.internal"),
    ],
)
def test_one_mailbox_is_one_account(spelling: str, key: str) -> None:
    assert identity.canonical_email(spelling)[1] == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "ada@test",
        "ada@example..com",
        "ada@example.com.",
        "ada@.example.com",
        "ada@-example.com",
        ".ada@example.com",
        "a..b@example.com",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada\r\n@example.com",
        "ada\0@example.com",
        "ada@exa\0mple.com",
        "ada@example.com,eve@example.com",
        "ada@example.com eve@example.com",
        "a@b,c@d",
        "a@b@example.com",
        " ada@example.com",
        "ada@example.com ",
        "Ada <ada@example.com>",
        '"ada"@example.com',
        "ada@[127.0.0.1]",
        "ada@127.0.0.1",
        "a\u202eda@example.com",
        "\ud800@example.com",
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "ada@" + "a." * 200 + "com",
        "x" * 100_000,
    ],
)
def test_what_mail_could_not_be_delivered_to_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidEmail) as refused:
        identity.canonical_email(text)
    assert str(refused.value) == InvalidEmail.title


# --- signing up -------------------------------------------------------------------------------------------------------


async def signed_up(world: World, email: str, password: str) -> User:
    """What creating an organization does about its owner, the lost race included."""
    account = await identity.account_for_signup(world.app, email, password, address=ADDRESS)
    if account.is_new:
        try:
            await world.add(tables.users, account.user)
        except AlreadyExists:
            account = await identity.account_for_signup(world.app, email, password, address=ADDRESS)
    return account.user


async def test_a_text_as_long_as_a_body_may_be_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalizing and matching a megabyte of accents takes seconds, in which nobody else is answered."""
    looked_at: list[str] = []
    monkeypatch.setattr("email_validator.validate_email", lambda text, **_: looked_at.append(text))
    with pytest.raises(InvalidEmail):
        identity.canonical_email("e" + "\u0301\u0316" * 200_000 + "@example.com")
    assert looked_at == []


async def test_a_new_address_gets_an_account_that_is_not_stored_yet(world: World) -> None:
    account = await identity.account_for_signup(world.app, "Ada@Example.com", PASSWORD, address=ADDRESS)
    assert account.is_new
    assert account.user.email == "Ada@example.com"
    assert account.user.email_key == "ada@example.com"
    assert await world.passwords.verify(account.user.password_hash, PASSWORD)
    assert await world.rows(tables.users) == []


async def test_an_address_with_an_account_signs_up_with_its_password(world: World) -> None:
    user = await world.user()
    account = await identity.account_for_signup(world.app, "ADA@example.com", PASSWORD, address=ADDRESS)
    assert (account.user.id, account.is_new) == (user.id, False)


async def test_the_password_of_an_account_cannot_be_guessed_by_signing_up(world: World) -> None:
    await world.user()
    for _ in range(10):
        with pytest.raises(UserExists):
            await identity.account_for_signup(world.app, "ada@example.com", WRONG, address=ADDRESS)
    evaluated = world.passwords.evaluated
    for _ in range(5):
        with pytest.raises(RateLimited):
            await identity.account_for_signup(world.app, "ada@example.com", PASSWORD, address=ADDRESS)
    with pytest.raises(RateLimited):
        await sessions.login(world.app, "ada@example.com", PASSWORD, address=ADDRESS)
    assert world.passwords.evaluated == evaluated


@pytest.mark.parametrize("password", ["short", "password", "ada@example.com", "acme rockets", "x" * 1025])
async def test_a_new_account_needs_an_acceptable_password(world: World, password: str) -> None:
    with pytest.raises(PasswordUnacceptable):
        await identity.account_for_signup(
            world.app, "ada@example.com", password, address=ADDRESS, related=["Acme Rockets"]
        )
    assert world.passwords.evaluated == 0


async def test_a_hundred_sign_ups_with_one_address_make_one_account(world: World) -> None:
    users = await asyncio.gather(*(signed_up(world, "ada@example.com", PASSWORD) for _ in range(100)))
    assert len({user.id for user in users}) == 1
    assert [user.id for user in await world.rows(tables.users)] == [users[0].id]


# --- changing an account --------------------------------------------------------------------------------------------


async def test_a_new_password_ends_every_other_session_and_keeps_the_one_it_came_from(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    there = await sessions.login(world.app, user.email, PASSWORD)
    await identity.change_account(
        world.app, user.id, here.session_id, acme.id, actor=Actor(user.id), current=PASSWORD, password=ANOTHER
    )
    access = await world.app.storage.access(acme.id, user.id, here.session_id)
    assert access.session
    assert access.session.user_epoch == access.user_epoch == 2
    access = await world.app.storage.access(acme.id, user.id, there.session_id)
    assert access.session
    assert access.session.user_epoch == 1
    with pytest.raises(InvalidToken):
        await sessions.refresh(world.app, there.refresh_token)
    assert await sessions.refresh(world.app, here.refresh_token)
    with pytest.raises(BadCredentials):
        await sessions.login(world.app, user.email, PASSWORD)
    assert await sessions.login(world.app, user.email, ANOTHER)


async def test_the_present_password_is_asked_for_and_throttled(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD, address=ADDRESS)

    async def change(current: str) -> User:
        actor = Actor(user.id, address=ADDRESS)
        return await identity.change_account(
            world.app, user.id, here.session_id, acme.id, actor=actor, current=current, password=ANOTHER
        )

    for _ in range(10):
        with pytest.raises(BadCredentials):
            await change(WRONG)
    with pytest.raises(RateLimited):
        await change(PASSWORD)
    (stored,) = await world.rows(tables.users)
    assert stored == user
    world.watch.advance(900)
    assert (await change(PASSWORD)).epoch == 2


async def test_the_right_present_password_is_not_counted_as_a_guess(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD, address=ADDRESS)
    for _ in range(15):
        actor = Actor(user.id, address=ADDRESS)
        await identity.change_account(
            world.app, user.id, here.session_id, acme.id, actor=actor, current=PASSWORD, password=PASSWORD
        )


@pytest.mark.parametrize("password", ["short", "password", "ada@example.com", "new@example.com", "acme rockets"])
async def test_an_unacceptable_new_password_changes_nothing(world: World, password: str) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    email = "new@example.com" if password == "new@example.com" else None
    with pytest.raises(PasswordUnacceptable):
        await identity.change_account(
            world.app,
            user.id,
            here.session_id,
            acme.id,
            actor=Actor(user.id),
            email=email,
            password=password,
            related=["Acme Rockets"],
        )
    assert await world.rows(tables.users) == [user]


async def test_the_operator_sets_a_password_which_ends_every_session(world: World) -> None:
    """Also the first one, of an account that an import made."""
    user = await world.user()
    both = [await world.organization(slug, user) for slug in ("acme", "nova")]
    there = await sessions.login(world.app, user.email, PASSWORD, organization="acme")
    await world.replace(tables.users, replace(user, password_hash=importing.NO_PASSWORD))
    with pytest.raises(BadCredentials):
        await sessions.login(world.app, user.email, PASSWORD, organization="acme")
    changed = await identity.set_password(world.app, "Ada@example.com", ANOTHER, actor=OPERATOR)
    assert (changed.id, changed.epoch) == (user.id, user.epoch + 1)
    assert await sessions.login(world.app, user.email, ANOTHER, organization="nova")
    with pytest.raises(InvalidToken):
        await sessions.refresh(world.app, there.refresh_token)
    for organization in both:
        noted = [(e.action, e.actor, e.details) for e in await world.audited(organization.id) if e.actor == "operator"]
        assert noted == [("user.password_changed", "operator", {"user_id": user.id})]
        assert await world.app.storage.read(SCOPE, first_broken, organization.id) is None


@pytest.mark.parametrize("password", ["short", "password", "ada@example.com", "acme rockets", "acme-rockets"])
async def test_the_operator_too_sets_none_that_is_unacceptable(world: World, password: str) -> None:
    user = await world.user()
    await world.organization("acme", user, name="Acme Rockets")
    with pytest.raises(PasswordUnacceptable):
        await identity.set_password(world.app, user.email, password, actor=OPERATOR)
    with pytest.raises(NotFound):
        await identity.set_password(world.app, "nobody@example.com", ANOTHER, actor=OPERATOR)
    assert await world.rows(tables.users) == [user]


async def test_a_change_that_another_one_overtook_changes_nothing(world: World) -> None:
    """Somebody who knew the old password must not bring their session over a change of the password."""
    user = await world.user()
    acme = await world.organization("acme", user)
    here, there = [await sessions.login(world.app, user.email, PASSWORD) for _ in range(2)]
    late = await identity.prepared_change(world.app, user, password="the password of a thief")
    await identity.change_account(
        world.app, user.id, here.session_id, acme.id, actor=Actor(user.id), password=ANOTHER, current=PASSWORD
    )
    with pytest.raises(InvalidToken):
        await world.app.storage.run(
            SCOPE, identity.change, user.id, there.session_id, acme.id, late, actor=Actor(user.id), at=world.watch()
        )
    await sessions.logout(world.app, here.session_id, actor=Actor(user.id))
    with pytest.raises(InvalidToken):
        await world.app.storage.run(
            SCOPE, identity.change, user.id, here.session_id, acme.id, late, actor=Actor(user.id), at=world.watch()
        )
    assert await sessions.login(world.app, user.email, ANOTHER)


async def test_a_new_address_logs_in_and_the_old_one_does_not(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    changed = await identity.change_account(
        world.app, user.id, here.session_id, acme.id, actor=Actor(user.id), email="Countess@Example.com"
    )
    assert (changed.email, changed.email_key, changed.epoch) == ("Countess@example.com", "countess@example.com", 1)
    assert await sessions.login(world.app, "countess@example.com", PASSWORD)
    with pytest.raises(BadCredentials):
        await sessions.login(world.app, user.email, PASSWORD)
    assert await sessions.refresh(world.app, here.refresh_token), "an address is no credential"


async def test_an_address_of_somebody_else_is_refused(world: World) -> None:
    user, other = await world.user(), await world.user("other@example.com")
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    with pytest.raises(UserExists):
        await identity.change_account(
            world.app, user.id, here.session_id, acme.id, actor=Actor(user.id), email=other.email, password=ANOTHER
        )
    taken = identity.AccountChange(email=other.email, email_key=other.email_key)
    with pytest.raises(UserExists):
        await world.app.storage.run(
            SCOPE, identity.change, user.id, here.session_id, acme.id, taken, actor=Actor(user.id), at=world.watch()
        )
    assert await sessions.login(world.app, user.email, PASSWORD), "nothing was changed"


async def test_an_address_may_change_its_case(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    changed = await identity.change_account(
        world.app, user.id, here.session_id, acme.id, actor=Actor(user.id), email="ADA@example.com"
    )
    assert (changed.email, changed.email_key) == ("ADA@example.com", "ada@example.com")


async def test_changes_are_noted_with_who_and_whence_and_without_the_secret(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    actor = Actor(user.id, request_id="req-1", address=ADDRESS)
    await identity.change_account(
        world.app, user.id, here.session_id, acme.id, actor=actor, email="new@example.com", password=ANOTHER
    )
    entries = (await world.audited(acme.id))[1:]
    assert [entry.action for entry in entries] == ["user.email_changed", "user.password_changed"]
    assert {(entry.actor, entry.request_id, entry.address) for entry in entries} == {(user.id, "req-1", ADDRESS)}
    events = await world.rows(tables.events, org_id=acme.id)
    assert sorted(event.type for event in events) == ["user.email_changed", "user.password_changed"]
    assert ANOTHER not in repr(entries) + repr(events)
    assert "argon2" not in repr(entries) + repr(events)
    assert await world.app.storage.read(SCOPE, first_broken, acme.id) is None


async def test_nothing_to_change_changes_nothing_about_credentials(world: World) -> None:
    user = await world.user()
    acme = await world.organization("acme", user)
    here = await sessions.login(world.app, user.email, PASSWORD)
    changed = await identity.change_account(
        world.app, user.id, here.session_id, acme.id, actor=Actor(user.id), email=user.email
    )
    assert replace(changed, version=1, updated_at=user.updated_at) == user
    assert [entry.action for entry in await world.audited(acme.id)] == ["session.created"]
