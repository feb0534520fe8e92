"""What tests of accounts and sessions share: an App on a fresh database, organizations, and people in them."""

from __future__ import annotations

from typing import Any

from orgstead import audit, kit
from orgstead.app import App
from orgstead.model import (
    AuditEntry,
    Membership,
    Organization,
    OrganizationStatus,
    Role,
    Session,
    SlugClaim,
    SlugState,
    User,
)
from orgstead.passwords import Passwords
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction
from orgstead.throttles import Throttles
from tests import apps
from tests.use_cases.watch import Watch

SCOPE = SystemScope("test")
PASSWORD = "correct horse battery staple"
WRONG = "incorrect horse battery staple"
ADDRESS = "192.0.2.1"
CREATED = "organization.created"


class CountingPasswords(Passwords):
    """Cheap hashes, and how many of them were evaluated."""

    def __init__(self, memory_kib: int = 8) -> None:
        super().__init__(memory_kib=memory_kib, iterations=1, max_wait_seconds=60)
        self.evaluated = 0

    async def hash(self, password: str) -> str:
        self.evaluated += 1
        return await super().hash(password)

    async def verify(self, stored: str, password: str) -> bool:
        self.evaluated += 1
        return await super().verify(stored, password)


class World:
    """An App with counted passwords and a clock, and verbs that put people and organizations into it."""

    def __init__(self, app: App, watch: Watch) -> None:
        self.app = app
        self.watch = watch
        self.passwords = CountingPasswords()
        app.passwords = self.passwords
        app.throttles = Throttles(clock=watch)

    async def user(self, email: str = "ada@example.com", password: str = PASSWORD) -> User:
        user = User(
            id=kit.new_id("usr"),
            email=email,
            email_key=email,
            password_hash=await Passwords.hash(self.passwords, password),
            created_at=self.watch(),
            updated_at=self.watch(),
        )
        await self.add(tables.users, user)
        return user

    async def organization(
        self, slug: str, *owners: User, role: Role = Role.OWNER, name: str | None = None, **changes: Any
    ) -> Organization:
        """An active organization (unless ``changes`` say otherwise) of which ``owners`` are members in ``role``."""
        at = self.watch()
        values: dict[str, Any] = {
            "id": kit.new_id("org"),
            "name": name or slug.title(),
            "slug": slug,
            "plan": "free",
            "status": OrganizationStatus.ACTIVE,
            "created_at": at,
            "updated_at": at,
        }
        organization = Organization(**{**values, **changes})
        await self.add(tables.organizations, organization)
        await self.add(tables.slugs, SlugClaim(slug=slug, org_id=organization.id, state=SlugState.CURRENT))
        await self.app.storage.run(SCOPE, apps.begin_chain, organization.id, audit.SYSTEM, CREATED, {}, at=at)
        for owner in owners:
            await self.add(
                tables.memberships,
                Membership(org_id=organization.id, user_id=owner.id, role=role, created_at=at, updated_at=at),
            )
        return organization

    async def add(self, table: Any, row: Any) -> None:
        async def work(tx: Transaction) -> None:
            await tx.add(table, row)

        await self.app.storage.run(SCOPE, work)

    async def replace(self, table: Any, row: Any) -> None:
        async def work(tx: Transaction) -> None:
            await tx.replace(table, row)

        await self.app.storage.run(SCOPE, work)

    async def remove(self, table: Any, *key: Any) -> None:
        async def work(tx: Transaction) -> None:
            await tx.remove(table, *key)

        await self.app.storage.run(SCOPE, work)

    async def rows(self, table: Any, **where: Any) -> list[Any]:
        async def work(tx: Transaction) -> list[Any]:
            return await tx.page(table, where, limit=500)

        return await self.app.storage.read(SCOPE, work)

    async def session(self, session_id: str) -> Session:
        (session,) = await self.rows(tables.sessions, id=session_id)
        assert isinstance(session, Session)
        return session

    async def audited(self, org_id: str | None = None) -> list[AuditEntry]:
        """The entries, of one organization or all, since the organization was made."""
        entries = await self.rows(tables.audit_entries, **({"org_id": org_id} if org_id else {}))
        return [entry for entry in entries if entry.action != CREATED]
