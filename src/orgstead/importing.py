"""Creating organizations in bulk, from lines that carry an external id.

Every line gets an outcome, in order. A line whose external id is there already changes nothing, so an import that was
interrupted is simply run again. Lines are written in batches: one transaction for the intents of a batch, the spaces
side by side, one transaction that activates them; a process that dies leaves operations that any other completes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from orgstead import creation, identity, kit, names, operations, slugs
from orgstead.audit import Actor
from orgstead.creation import NewOrganization
from orgstead.errors import BudgetExhausted, Conflict, InvalidInput, OrgsteadError, Unavailable
from orgstead.model import Operation, User
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


class Result(StrEnum):
    CREATED = "created"
    EXISTS = "exists"
    RENAMED = "renamed"
    """Created under a numbered slug, because the plain one is taken or reserved."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: its number (from 1, as an editor counts) and its fields, or why it could not be read."""

    number: int
    fields: Mapping[str, str]
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line. ``reason`` says why it was renamed or refused."""

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


async def import_organizations(
    app: App, lines: Iterable[Line], actor: Actor, *, plan: str | None = None
) -> AsyncGenerator[list[Outcome], None]:
    """Create what the lines ask for; yield the outcomes of each batch once they are durable.

    ``plan`` is for lines that name none (default: the setting ``default_plan``). Raises only what stops the whole
    import, such as a full disk; what was yielded before stays done. A batch that has begun is finished even when the
    caller is cancelled; ``App.close`` waits for it.
    """
    await operations.adopt_left_behind(app)
    remaining = iter(lines)
    numbers: dict[str, int] = {}
    while batch := list(islice(remaining, BATCH)):
        work = _import_batch(app, batch, actor, plan or app.settings.default_plan, numbers)
        yield await asyncio.shield(app.in_background(work))


async def _import_batch(app: App, batch: list[Line], actor: Actor, plan: str, numbers: dict[str, int]) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    wanted: list[_Wanted] = []
    for line in batch:
        try:
            wanted.append(_wanted(app, line, plan))
        except InvalidInput as error:
            outcomes[line.number] = _refused(line.number, line.fields.get("external_id") or "", error)
    written = await _written(app, wanted, actor, numbers)
    errors = await operations.drive_together(app, [operation for _, operation in written if operation])
    for outcome, operation in written:
        failure = errors.get(operation.id) if operation else None
        if isinstance(failure, Unavailable):
            raise failure
        outcomes[outcome.line] = _refused(outcome.line, outcome.external_id, failure) if failure else outcome
    return [outcomes[line.number] for line in batch]


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
    return _Wanted(line.number, new, external_id, slug, reserved)


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
    held = await tx.find_many(tables.slugs, [(slug,) for slug in {line.slug for line in wanted}])
    free = {line.slug for line in wanted} - {claim.slug for claim in held}
    return [await _write_intent(tx, app, line, actor, numbers, free) for line in wanted]


async def _write_intent(
    tx: Transaction, app: App, wanted: _Wanted, actor: Actor, numbers: dict[str, int], free: set[str]
) -> tuple[Outcome, Operation | None]:
    external_id = wanted.external_id
    if there := await tx.find(tables.organizations, external_id=external_id):
        return Outcome(wanted.line, external_id, Result.EXISTS, there.id, there.slug), None
    new = wanted.new
    if new.owner:
        account = await tx.find(tables.users, email_key=new.owner.email_key)
        new = replace(new, owner=account or new.owner, owner_is_new=account is None)
    slug = wanted.slug
    if slug in free and not wanted.reserved:
        free.discard(slug)  # known without asking for each line; from here on it is taken
    else:
        slug = await _free_slug(tx, wanted, new.owner.id if new.owner else None, app, numbers)
    try:
        drawn = creation.draft(app, replace(new, slug=slug), actor)
        await creation.write_intent(tx, drawn, actor)
    except (InvalidInput, BudgetExhausted) as error:
        return _refused(wanted.line, external_id, error), None
    result, reason = Result.CREATED, None
    if slug != wanted.slug:
        result, reason = Result.RENAMED, f"The slug {wanted.slug} is {'reserved' if wanted.reserved else 'taken'}."
    return Outcome(wanted.line, external_id, result, drawn.organization.id, slug, reason), drawn.operation


async def _free_slug(tx: Transaction, wanted: _Wanted, user_id: str | None, app: App, numbers: dict[str, int]) -> str:
    """The slug wanted, or the first numbered one that is free. ``numbers`` remembers where to go on looking.

    It only ever makes the search shorter, so it may be wrong after a transaction that was retried.
    """
    number = numbers.get(wanted.slug, 2 if wanted.reserved else 1)
    while True:
        slug = wanted.slug if number == 1 else names.numbered_slug(wanted.slug, number)
        held = await tx.find(tables.slugs, slug=slug)
        if held is None or slugs.is_free(held, "", user_id, app.clock()):
            if number > 1:
                numbers[wanted.slug] = number + 1
            return slug
        number += 1
