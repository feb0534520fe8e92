"""Places to measure on: a folder with its key, and its database, filled through the product's own import."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.engines import make, settings_of
from bench.options import Options
from orgstead import kit
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.importing import Line, Result, import_organizations
from orgstead.model import Membership, Session
from orgstead.settings import HttpSettings, ManagementSettings, Settings
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

SCOPE = SystemScope("bench")
MEMBERS = 1000
"""How many organizations have an owner with a session, spread evenly over all of them."""


@dataclass(frozen=True, slots=True)
class Member:
    """An organization and an access token of its owner, valid for a quarter of an hour."""

    org_id: str
    token: str


def settings_in(folder: Path) -> Settings:
    """The product's defaults, for the place in ``folder``.

    Except that an organization on ``pro`` may send as fast as it can: where all load comes from one, that is meant.
    """
    return Settings.model_validate(
        {
            **settings_of(folder),
            "data_folder": folder,
            "public_url": "http://localhost",
            "plans": {"pro": {"requests_per_second": None}},
            "http": HttpSettings(port=0),
            "management": ManagementSettings(port=0),
        }
    )


def filled(options: Options, organizations: int) -> Path:
    """A place with so many pooled organizations; made once and kept, because that takes long.

    One whose making was interrupted is filled further: an import that is run again goes on.
    """
    return kept(options, f"{organizations}-organizations", lambda place: fill(place, organizations))


def kept(options: Options, name: str, fill: Callable[[Path], None]) -> Path:
    """The place of this name, which stays for later runs; ``fill`` is called until it has once come to its end."""
    place = options.kept / name
    make(place, options.databases)
    done = place / "filled"
    if done.exists():
        asyncio.run(_migrate(place))  # it may be of an earlier version
    else:
        fill(place)
        done.touch()
    return place


async def _migrate(folder: Path) -> None:
    app = await App.open(settings_in(folder))
    try:
        await app.storage.migrate()
    finally:
        await app.close()


def fill(place: Path, organizations: int, *, plan: str = "free") -> None:
    """Add so many pooled organizations, as far as they are not there; some owners have a session (``MEMBERS``)."""
    asyncio.run(_fill(place, organizations, plan))


def fresh(options: Options, name: str) -> Path:
    """A place with an empty database, of a name that no other has had."""
    place = options.folder / f"{name}-{secrets.token_hex(4)}"
    make(place, options.databases)
    return place


def members(place: Path) -> list[Member]:
    """The organizations of ``place`` whose owner has a session, each with a new token."""
    return asyncio.run(_members(place))


async def _fill(folder: Path, organizations: int, plan: str) -> None:
    app = await App.open(settings_in(folder))
    try:
        await app.storage.migrate()
        async for outcomes in import_organizations(app, _lines(organizations, plan), OPERATOR):
            if any(outcome.result not in (Result.CREATED, Result.EXISTS) for outcome in outcomes):
                raise RuntimeError("The database could not be filled.")
            new = [outcome for outcome in outcomes if outcome.result is Result.CREATED]
            chosen = [o for o in new if o.line % max(1, organizations // MEMBERS) == 0]
            await app.storage.run(SCOPE, _begin_sessions, [str(o.organization_id) for o in chosen], app)
    finally:
        await app.close()


def external_id(number: int) -> str:
    """The external id of the organization of that number, from 1."""
    return f"bench-{_mixed(number)}"


def _mixed(number: int) -> str:
    """Names in no order, as real ones come: neighbours in time are not neighbours in an index of names."""
    return f"{number * 2654435761 % 2**32:08x}"


def _lines(organizations: int, plan: str) -> Iterator[Line]:
    for number in range(1, organizations + 1):
        mixed = _mixed(number)
        fields = {
            "external_id": external_id(number),
            "name": f"Bench {mixed} Limited",
            "plan": plan,
            "owner_email": f"owner-{mixed}@bench.example.com",
        }
        yield Line(number, fields)


async def _begin_sessions(tx: Transaction, org_ids: list[str], app: App) -> None:
    at = app.clock()
    for org_id in org_ids:
        owner = await _owner(tx, org_id)
        session = Session(
            id=kit.new_id("ses"),
            user_id=owner.user_id,
            org_id=org_id,
            user_epoch=1,
            seed=secrets.token_hex(16),
            rotated_at=at,
            created_at=at,
            expires_at=at + timedelta(days=365),
        )
        await tx.add(tables.sessions, session)


async def _owner(tx: Transaction, org_id: str) -> Membership:
    return (await tx.page(tables.memberships, {"org_id": org_id}, limit=1))[0]


async def _members(place: Path) -> list[Member]:
    app = await App.open(settings_in(place))
    try:
        sessions = await app.storage.read(SCOPE, _sessions)
        owners = [await app.storage.read(SCOPE, _owner, session.org_id) for session in sessions]
        return [
            Member(session.org_id, _token(app, session, owner)) for session, owner in zip(sessions, owners, strict=True)
        ]
    finally:
        await app.close()


async def _sessions(tx: Transaction) -> list[Session]:
    return await tx.page(tables.sessions, limit=MEMBERS)


def _token(app: App, session: Session, owner: Membership) -> str:
    return app.tokens.mint_access(
        user_id=session.user_id, session_id=session.id, org_id=session.org_id, role=owner.role, org_epoch=1
    ).token
