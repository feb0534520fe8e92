"""Who acts in tests of the HTTP API: organizations with a member of every role, in every status, and their tokens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import httpx2
from argon2 import PasswordHasher

from orgstead import creation, kit, members, organizations, sessions
from orgstead.app import App
from orgstead.audit import SYSTEM
from orgstead.audit import Actor as AuditActor
from orgstead.creation import NewOrganization
from orgstead.model import Organization, OrganizationStatus, Placement, Role, User
from orgstead.organizations import OWNER, Located
from orgstead.sessions import Entry
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction
from tests.watch import Watch

SCOPE = SystemScope("test")
PASSWORD = "correct horse battery staple"


@cache
def password_hash() -> str:
    """A real hash of ``PASSWORD``, with the cheapest parameters that the settings allow."""
    return PasswordHasher(memory_cost=8192, time_cost=1, parallelism=1).hash(PASSWORD)


@dataclass(frozen=True, slots=True)
class Person:
    """A member of an organization who is logged in to it."""

    user_id: str
    email: str
    role: Role
    session_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class Program:
    """A program with an API key that an organization's owner made."""

    key_id: str
    role: Role
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class Standing:
    """An organization as it was when it was made, and its people."""

    organization: Organization
    placement: Placement
    people: Mapping[Role, Person]

    @property
    def id(self) -> str:
        return self.organization.id

    @property
    def slug(self) -> str:
        return self.organization.slug

    @property
    def path(self) -> str:
        return f"/v1/organizations/{self.id}"

    @property
    def owner(self) -> Person:
        return self.people[Role.OWNER]

    @property
    def admin(self) -> Person:
        return self.people[Role.ADMIN]

    @property
    def member(self) -> Person:
        return self.people[Role.MEMBER]

    @property
    def viewer(self) -> Person:
        return self.people[Role.VIEWER]


class Service:
    """The application over a new database, a client for it, and the verbs that put people into it."""

    def __init__(self, app: App, client: httpx2.AsyncClient, watch: Watch) -> None:
        self.app = app
        self.client = client
        self.watch = watch

    async def ask(
        self,
        method: str,
        path: str,
        person: Person | Program | None = None,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request as ``person``; ``body`` is sent as JSON, ``key`` as Idempotency-Key."""
        sent = {**(person.headers if person else {}), **(headers or {})}
        if key is not None:
            sent["idempotency-key"] = key
        if body is None:
            return await self.client.request(method, path, headers=sent)
        return await self.client.request(method, path, headers=sent, json=body)

    # --- people -----------------------------------------------------------------------------------------------------

    def new_user(self, email: str | None = None) -> User:
        """Somebody with the password ``PASSWORD`` who is not stored yet."""
        address = email or f"{secrets.token_hex(6)}@people.example.com"
        at = self.watch()
        return User(
            id=kit.new_id("usr"),
            email=address,
            email_key=address.casefold(),
            password_hash=password_hash(),
            created_at=at,
            updated_at=at,
        )

    async def stored_user(self, email: str | None = None) -> User:
        user = self.new_user(email)
        await self.app.storage.run(SCOPE, _add_user, user)
        return user

    async def logged_in(self, organization: Organization, user: User, role: Role) -> Person:
        """A session of the person in the organization, and its access token."""
        entry: Entry = await self.app.storage.run(
            SCOPE, sessions.begin, user, organization.id, sessions.lifetime(self.app), AuditActor(user.id), self.watch()
        )
        token = self.app.tokens.mint_access(
            user_id=user.id,
            session_id=entry.session.id,
            org_id=organization.id,
            role=role,
            org_epoch=entry.organization.epoch,
        )
        return Person(user.id, user.email, role, entry.session.id, token.token)

    # --- organizations ----------------------------------------------------------------------------------------------

    async def organization(self, name: str, plan: str = "free") -> Standing:
        """An active organization with one person of each role, all logged in."""
        owner = self.new_user()
        new = NewOrganization(name=name, plan=plan, owner=owner, owner_is_new=True)
        located: Located = await creation.create(self.app, new, AuditActor(owner.id))
        people = {Role.OWNER: await self.logged_in(located.organization, owner, Role.OWNER)}
        for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
            user = await self.stored_user()
            await self.join(located.organization, user, role)
            people[role] = await self.logged_in(located.organization, user, role)
        return Standing(located.organization, located.placement, people)

    async def join(self, organization: Organization, user: User, role: Role) -> None:
        """Make the person a member."""
        await self.app.storage.run(
            SCOPE, members.add, self.app.settings, organization.id, user.id, role, SYSTEM, self.watch()
        )

    async def suspended(self, name: str, by: str = OWNER) -> Standing:
        """An organization that its owner, or the operator, suspended after everyone had logged in."""
        standing = await self.organization(name)
        changed = await self.app.storage.run(
            SCOPE, organizations.suspend, standing.id, by, actor=SYSTEM, at=self.watch()
        )
        return replace(standing, organization=changed)

    async def closed(self, name: str) -> Standing:
        """An organization that was closed after everyone had logged in; it is purged in 30 days."""
        standing = await self.organization(name)
        changed = await self.app.storage.run(
            SCOPE, organizations.close, standing.id, timedelta(days=30), actor=SYSTEM, at=self.watch()
        )
        return replace(standing, organization=changed)

    async def program(self, standing: Standing, role: Role, person: Person | None = None, **more: Any) -> Program:
        """An API key that the owner (or another) makes over HTTP; it has been used, which is written down by now."""
        body = {"name": f"a {role} program", "role": role, **more}
        made = await self.ask("POST", f"{standing.path}/api_keys", person or standing.owner, body)
        assert made.status_code == 201, made.text
        program = Program(made.json()["id"], role, made.json()["token"])
        if standing.organization.status is OrganizationStatus.ACTIVE:
            assert (await self.ask("GET", standing.path, program)).status_code == 200
            await self.settled()
        return program

    async def settled(self) -> None:
        """Wait for what goes on in the background."""
        if self.app._tasks:
            await asyncio.wait(self.app._tasks)

    # --- what is stored ---------------------------------------------------------------------------------------------

    async def rows(self, table: Any, **where: Any) -> list[Any]:
        """The stored rows equal to ``where``, at most 500."""
        return await self.app.storage.read(SCOPE, _rows, table, where)

    async def located(self, org_id: str) -> Located:
        """The organization as it is stored now."""
        return await self.app.storage.read(SCOPE, organizations.get, org_id)


async def _add_user(tx: Transaction, user: User) -> None:
    await tx.add(tables.users, user)


async def _rows(tx: Transaction, table: Any, where: Mapping[str, Any]) -> list[Any]:
    return await tx.page(table, where, limit=500)


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, which must have this status and code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert (document["status"], document["code"]) == (status, code), document
    assert document["request_id"] == response.headers["x-request-id"]
    return document
