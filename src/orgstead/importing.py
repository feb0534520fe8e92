"""Creating organizations in bulk, from lines that carry an external id.

Every line gets an outcome, in order. A line whose external id is there already changes nothing, so an import that was
interrupted is simply run again. Lines are written in batches: one transaction for the intents of a batch, the spaces
side by side, one transaction that activates them; a process that dies, like a disk that fills up, leaves operations
that any other completes.

In a rehearsal (``App.is_rehearsing``) the outcomes are those that there would be, without the ids of what was not made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from orgstead import creation, identity, kit, names, operations, placements, resuming, slugs
from orgstead.audit import Actor
from orgstead.creation import Draft, NewOrganization
from orgstead.errors import BudgetExhausted, Conflict, InvalidInput, OrgsteadError, Unavailable
from orgstead.model import Operation, Organization, PlacementKind, SlugClaim, User
from orgstead.record_errors import QuotaExceeded
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("import organizations")
BATCH = 500
COLUMNS = ("external_id", "name", "slug", "plan", "owner_email")
WRITES = 5
"""How often a batch is written again because somebody else was faster with one of its names or addresses."""
NO_PASSWORD = "!"  # noqa: S105  # not a password: the hash that none matches
"""The password hash of an account that somebody else made; its owner cannot log in until a password is set."""


RUN_AGAIN = "Its space is still to be made: running the import again completes it."
LEFT_TO_WORKERS = "Its space is still to be made: the service's background work completes it."


class Result(StrEnum):
    CREATED = "created"
    EXISTS = "exists"
    RENAMED = "renamed"
    """Created under a numbered slug, because the plain one is taken or reserved."""
    REFUSED = "refused"
    BEGUN = "begun"
    """Written down, but kept from being completed by what stopped the import."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: its number (from 1, as an editor counts) and its fields, or why it could not be read."""

    number: int
    fields: Mapping[str, str]
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line. ``reason`` says why it was renamed, refused or only begun."""

    line: int
    external_id: str
    result: Result
    organization_id: str | None = None
    slug: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A line that was read well. ``slug`` is what it asks for, which may be taken or reserved."""

    line: int
    new: NewOrganization
    external_id: str
    slug: str
    reserved: bool
    is_dedicated: bool


async def import_organizations(
    app: App, lines: Iterable[Line], actor: Actor, *, plan: str | None = None
) -> AsyncGenerator[list[Outcome], None]:
    """Create what the lines ask for; yield the outcomes of each batch once they are durable.

    ``plan`` is for lines that name none (default: the setting ``default_plan``). Raises only what stops the whole
    import, such as a full disk, after the outcomes of what is durable; of what follows them nothing was written. A
    batch that has begun is finished, and its outcomes yielded, even when the caller is cancelled.
    """
    if not app.is_rehearsing:
        await resuming.adopt_left_behind(app)
    remaining = iter(lines)
    numbers: dict[str, int] = {}
    made_up: set[str] = set()
    batches = iter(lambda: list(islice(remaining, BATCH)), [])
    works = (_import_batch(app, batch, actor, plan or app.settings.default_plan, numbers, made_up) for batch in batches)
    async for outcomes, failure in app.one_by_one(works):
        yield outcomes
        if failure:
            raise failure


async def _import_batch(
    app: App, batch: list[Line], actor: Actor, plan: str, numbers: dict[str, int], made_up: set[str]
) -> tuple[list[Outcome], Unavailable | None]:
    """The outcome of each line, and what kept some from being completed and would keep others.

    ``made_up`` collects the ids that a rehearsal gave.
    """
    outcomes: dict[int, Outcome] = {}
    wanted: list[_Wanted] = []
    for line in batch:
        try:
            wanted.append(_wanted(app, line, plan))
        except InvalidInput as error:
            outcomes[line.number] = _refused(line.number, line.fields.get("external_id") or "", error)
    written = await _written(app, wanted, actor, numbers)
    if app.is_rehearsing:
        made_up |= {operation.org_id for _, operation in written if operation}
        written = [(replace(o, organization_id=None) if o.organization_id in made_up else o, None) for o, _ in written]
    errors = await operations.drive_together(app, [operation for _, operation in written if operation])
    stopped: Unavailable | None = None
    for outcome, operation in written:
        failure = errors.get(operation.id) if operation else None
        if isinstance(failure, Unavailable):
            stopped = failure
            reason = RUN_AGAIN if app.is_only_writer else LEFT_TO_WORKERS
            outcomes[outcome.line] = replace(outcome, result=Result.BEGUN, reason=reason)
        else:
            outcomes[outcome.line] = _refused(outcome.line, outcome.external_id, failure) if failure else outcome
    return [outcomes[line.number] for line in batch], stopped


async def _written(
    app: App, wanted: list[_Wanted], actor: Actor, numbers: dict[str, int]
) -> list[tuple[Outcome, Operation | None]]:
    for _ in range(WRITES - 1):
        with suppress(Conflict):  # nothing was written, and the next time what is in the way is seen before
            return await app.storage.run(SCOPE, _write_intents, app, wanted, actor, numbers)
    return await app.storage.run(SCOPE, _write_intents, app, wanted, actor, numbers)


def _refused(line: int, external_id: str, error: OrgsteadError) -> Outcome:
    return Outcome(line, external_id, Result.REFUSED, reason=error.detail)


def _wanted(app: App, line: Line, plan: str) -> _Wanted:
    """Check a line. Raises ``InvalidInput`` with the reason to refuse it."""
    if line.unreadable:
        raise InvalidInput(line.unreadable)
    fields = {column: text.strip() for column, text in line.fields.items() if text and text.strip()}
    external_id = creation.checked_external_id(fields.get("external_id", ""))
    name = names.cleaned_name(fields.get("name", ""))
    slug = fields.get("slug") or names.plain_slug(name)
    reserved = names.is_reserved(slug)
    if not reserved:
        names.checked_slug(slug)
    owner = _owner(app, fields["owner_email"]) if "owner_email" in fields else None
    new = NewOrganization(name=name, plan=fields.get("plan", plan), external_id=external_id, owner=owner)
    is_dedicated = placements.kind_of(app.settings, new.plan) is PlacementKind.DEDICATED
    return _Wanted(line.number, new, external_id, slug, reserved, is_dedicated)


def _owner(app: App, email: str) -> User:
    """An account for the owner that a line names, to be added unless there is one already."""
    shown, key = identity.canonical_email(email)
    return User(
        id=kit.new_id("usr"),
        email=shown,
        email_key=key,
        password_hash=NO_PASSWORD,
        created_at=app.clock(),
        updated_at=app.clock(),
    )


async def _write_intents(
    tx: Transaction, app: App, wanted: list[_Wanted], actor: Actor, numbers: dict[str, int]
) -> list[tuple[Outcome, Operation | None]]:
    """Write what the batch asks for, each table at once; what the database has of it is asked for at once, too."""
    batch = await _Batch.begun(tx, app, wanted, numbers)
    outcomes = [await batch.take(tx, line, actor) for line in wanted]
    await placements.release_spaces(tx, placements.FIRST_CELL, batch.spaces)
    await creation.write_intents(tx, batch.drafts, batch.claims, actor)
    return outcomes


class _Batch:
    """A batch while its lines are taken one by one: what is there, and what has been drawn up to be added.

    ``spaces`` is how many of the dedicated spaces that were promised are left.
    """

    def __init__(self, app: App, numbers: dict[str, int]) -> None:
        self.drafts: list[Draft] = []
        self.claims: list[SlugClaim] = []
        self.spaces = 0
        self._app = app
        self._numbers = numbers
        self._there: dict[str, Organization] = {}
        self._accounts: dict[str, User] = {}
        self._held: dict[str, SlugClaim] = {}
        self._known: set[str] = set()

    @classmethod
    async def begun(cls, tx: Transaction, app: App, wanted: list[_Wanted], numbers: dict[str, int]) -> _Batch:
        batch = cls(app, numbers)
        ids = {line.external_id for line in wanted}
        emails = {line.new.owner.email_key for line in wanted if line.new.owner}
        batch._known = {line.slug for line in wanted}
        there = await tx.find_many(
            tables.organizations, [(text,) for text in sorted(ids)], unique="organizations.external_id"
        )
        batch._there = {str(organization.external_id): organization for organization in there}
        accounts = await tx.find_many(tables.users, [(key,) for key in sorted(emails)], unique="users.email")
        batch._accounts = {account.email_key: account for account in accounts}
        held = await tx.find_many(tables.slugs, [(slug,) for slug in sorted(batch._known)])
        batch._held = {claim.slug: claim for claim in held}
        new = {line.external_id for line in wanted if line.is_dedicated} - batch._there.keys()
        if new:
            budget = app.settings.placement.max_dedicated
            batch.spaces = await placements.promise_spaces(tx, placements.FIRST_CELL, len(new), budget)
        return batch

    async def take(self, tx: Transaction, wanted: _Wanted, actor: Actor) -> tuple[Outcome, Operation | None]:
        """Draw up what the line asks for. Only a slug that is taken over from somebody is written at once."""
        external_id, new = wanted.external_id, wanted.new
        if there := self._there.get(external_id):
            return Outcome(wanted.line, external_id, Result.EXISTS, there.id, there.slug), None
        if wanted.is_dedicated and not self.spaces:
            return _refused(wanted.line, external_id, BudgetExhausted()), None
        if new.owner:
            account = self._accounts.get(new.owner.email_key)
            new = replace(new, owner=account or new.owner, owner_is_new=account is None)
        slug = await self._free_slug(tx, wanted, new.owner.id if new.owner else None)
        try:
            drawn = creation.draft(self._app, replace(new, slug=slug), actor)
        except (InvalidInput, QuotaExceeded) as error:
            return _refused(wanted.line, external_id, error), None
        organization = drawn.organization
        if slug in self._held:
            await slugs.claim(tx, slug, organization.id, drawn.user_id, organization.created_at)
        else:
            self.claims.append(slugs.first_claim(slug, organization.id))
        self._held[slug] = slugs.first_claim(slug, organization.id)
        self._there[external_id] = organization
        if new.owner:
            self._accounts[new.owner.email_key] = new.owner
        self.spaces -= wanted.is_dedicated
        self.drafts.append(drawn)
        result, reason = Result.CREATED, None
        if slug != wanted.slug:
            result, reason = Result.RENAMED, f"The slug {wanted.slug} is {'reserved' if wanted.reserved else 'taken'}."
        return Outcome(wanted.line, external_id, result, organization.id, slug, reason), drawn.operation

    async def _free_slug(self, tx: Transaction, wanted: _Wanted, user_id: str | None) -> str:
        """The slug wanted, or the first numbered one that is free. ``numbers`` remembers where to go on looking.

        It only ever makes the search shorter, so it may be wrong after a transaction that was retried.
        """
        number = self._numbers.get(wanted.slug, 2 if wanted.reserved else 1)
        while True:
            slug = wanted.slug if number == 1 else names.numbered_slug(wanted.slug, number)
            held = self._held.get(slug)
            if held is None and slug not in self._known and (held := await tx.find(tables.slugs, slug=slug)):
                self._held[slug] = held
            if held is None or slugs.is_free(held, "", user_id, self._app.clock()):
                if number > 1:
                    self._numbers[wanted.slug] = number + 1
                return slug
            number += 1
