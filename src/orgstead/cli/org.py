"""``orgstead org``: organizations, as the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from orgstead import creation, organizations, purging, renaming, representations
from orgstead.app import App
from orgstead.archives import TableFormat
from orgstead.audit import OPERATOR
from orgstead.cli import dry, lines, org_archive, org_import, within
from orgstead.cli.commands import command, group
from orgstead.cli.dry import DryRun
from orgstead.cli.errors import UsageError
from orgstead.cli.local import SCOPE, as_rows, everything, reading, writing
from orgstead.cli.output import Output
from orgstead.creation import NewOrganization
from orgstead.errors import ConfirmationRequired
from orgstead.model import OrganizationStatus
from orgstead.organizations import Located
from orgstead.renaming import NewName
from orgstead.storage.port import Transaction

app = group("Create, list and change organizations.")

COLUMNS = ("id", "slug", "name", "plan", "status", "collection_name", "created_at")

Which = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its id, slug (a former one too) or external id.")]


def shown(located: Located) -> dict[str, Any]:
    """The organization as the API shows it, with what only the operator sees."""
    organization = located.organization
    return {
        **representations.organization(organization, located.placement),
        "suspended_by": organization.suspended_by,
        "purge_at": organization.purge_at,
    }


@command(app, "create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name, as people write it.")],
    plan: Annotated[str | None, typer.Option(help="Its plan; the setting default_plan unless told.")] = None,
    slug: Annotated[str | None, typer.Option(help="Its short name; derived from the name unless told.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Its id in another system, unique.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Create an organization without members."""

    async def work(app: App, out: Output) -> None:
        new = NewOrganization(name=name, slug=slug, plan=plan or app.settings.default_plan, external_id=external_id)
        created = shown(await creation.create(app, new, OPERATOR))
        _told(app, out, None, {**created, "id": None} if dry_run else created)

    writing(ctx, work, dry_run=dry_run)


@command(app, "list")
def list_(
    ctx: typer.Context,
    status: Annotated[OrganizationStatus | None, typer.Option(help="Only those in this status.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only those on this plan.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all unless told.")] = None,
) -> None:
    """List organizations, oldest first."""
    where = {name: value for name, value in (("status", status), ("plan", plan)) if value is not None}

    async def work(app: App, out: Output) -> None:
        async def fetch(after: Sequence[Any] | None, size: int) -> Sequence[Located]:
            return await app.storage.read(SCOPE, organizations.page, where, after=after, limit=size)

        found = everything(fetch, lambda last: (last.organization.id,), limit)
        await out.stream(as_rows(found, shown), COLUMNS)

    reading(ctx, work)


@command(app, "get")
def get(ctx: typer.Context, organization: Which) -> None:
    """Show an organization."""

    async def work(app: App, out: Output) -> None:
        out.item(await _found(app, await _resolved(app, organization)))

    reading(ctx, work)


@command(app, "rename")
def rename(
    ctx: typer.Context,
    organization: Which,
    name: Annotated[str, typer.Argument(help="Its new name.")],
    slug: Annotated[str | None, typer.Option(help="Its new short name; derived from the name unless told.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Give an organization another name. The old slug goes on leading to it."""

    async def work(app: App, out: Output) -> None:
        before = await within.organization(app, organization)
        new = NewName(name=name, slug=slug)
        located, operation = await renaming.rename(app, before.organization.id, new, OPERATOR)
        if operation:
            out.say(f"The operation goes on: orgstead operation get {operation.id}")
        _told(app, out, shown(before), shown(located))

    writing(ctx, work, dry_run=dry_run)


@command(app, "suspend")
def suspend(ctx: typer.Context, organization: Which, dry_run: DryRun = False) -> None:
    """Refuse an organization's members from their next request on. Only the operator can undo it."""
    _change(ctx, organization, organizations.suspend, organizations.OPERATOR, dry_run=dry_run)


@command(app, "reactivate")
def reactivate(ctx: typer.Context, organization: Which, dry_run: DryRun = False) -> None:
    """End an organization's suspension."""
    _change(ctx, organization, organizations.reactivate, organizations.OPERATOR, dry_run=dry_run)


@command(app, "restore")
def restore(ctx: typer.Context, organization: Which, dry_run: DryRun = False) -> None:
    """Bring a deleted organization back, while its grace lasts."""
    _change(ctx, organization, organizations.restore, dry_run=dry_run)


@command(app, "delete")
def delete(
    ctx: typer.Context,
    organization: Which,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its data now; this cannot be undone.")] = False,
    confirm: Annotated[str | None, typer.Option(metavar="SLUG", help="The slug, to confirm --purge.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Close an organization; it is removed when its grace ends, or now with --purge."""
    if purge and dry_run:
        raise UsageError(
            "A purge cannot be rehearsed.", next="leave out --purge, or see orgstead usage for what it has"
        )

    async def work(app: App, out: Output) -> None:
        before = await within.organization(app, organization)
        found = before.organization
        org_id = found.id
        if purge and confirm != found.slug:
            raise ConfirmationRequired(next="add --confirm with its slug")
        if not purge and not dry_run:
            out.confirm(f"Close {found.name} ({found.slug})? Its members lose access at once.")
        if not purge or found.status is not OrganizationStatus.CLOSED:
            grace = timedelta(days=app.settings.delete_grace_days)
            facts: dict[str, Any] = {"actor": OPERATOR, "at": app.clock()}
            closed = await app.storage.run(SCOPE, _changed, organizations.close, org_id, grace, **facts)
        if purge:
            operation = await purging.purge(app, org_id, OPERATOR)
            out.item(
                {
                    "id": org_id,
                    "operation": operation.id,
                    "state": operation.state,
                    "removed": operation.result.get("removed"),
                }
            )
        else:
            _told(app, out, shown(before), shown(closed))

    writing(ctx, work, dry_run=dry_run)


@command(app, "export")
def export(
    ctx: typer.Context,
    organization: Which,
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="The file to write, which only you can read.")],
    csv: Annotated[bool, typer.Option("--csv", help="Add a table for spreadsheets of each collection.")] = False,
    parquet: Annotated[
        bool,
        typer.Option("--parquet", help="Add a Parquet file of each collection, for analysis; needs orgstead[parquet]."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write an organization into one archive, as it is at one moment: records, definitions, members, audit log.

    Passwords and sessions are not in it. orgstead org import makes the organization of it again, on any database.
    """
    formats = [form for form, wanted in ((TableFormat.CSV, csv), (TableFormat.PARQUET, parquet)) if wanted]
    reading(ctx, lambda app, out: org_archive.export(app, out, organization, file, formats, force))


@command(app, "import")
def import_(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv|jsonl|zip", help="The file; or - for lines from standard input.")
    ],
    format: Annotated[
        str | None, typer.Option(metavar="csv|jsonl", help="Its format, where its name does not tell.")
    ] = None,
    plan: Annotated[str | None, typer.Option(help="Plan of lines without one; default_plan unless told.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write what became of each line into a new file.")
    ] = None,
    large: Annotated[
        bool, typer.Option("--large", help="Take an archive that unpacks to more than 100 times its size.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Create organizations in bulk, or one from its archive, which is told by what is in the file.

    In bulk: columns external_id, name, and if wanted slug, plan, owner_email. A line whose external_id is there already
    changes nothing, so an import that was cut short is simply run again.

    An archive (org export) becomes an organization with all that is in it, or nothing is changed. Its members get the
    account of their address, or a new one without a password. Cut short, it is completed by running it again.

    A dry run looks at everything and says what would become of each line, or of the archive. What only shows when it
    is done, such as a full disk, it does not foresee.
    """
    if str(file) != "-" and org_archive.is_archive(file):
        if format or report:
            raise UsageError("An archive has no lines.", next="leave out --format and --report")
        writing(ctx, lambda app, out: org_archive.import_(app, out, file, plan, large), dry_run=dry_run)
        return
    if format not in (None, lines.CSV, lines.JSON_LINES):
        raise UsageError("The format is neither csv nor jsonl.", next="use --format csv or --format jsonl")

    async def work(app: App, out: Output) -> None:
        await org_import.run(app, out, file, format, plan, report)

    writing(ctx, work, dry_run=dry_run)


async def _changed(tx: Transaction, change: Any, org_id: str, *args: Any, **facts: Any) -> Located:
    await change(tx, org_id, *args, **facts)
    return await organizations.get(tx, org_id)


def _told(app: App, out: Output, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
    """Show what became of an organization; in a dry run what would, and end with 3 if it is another then."""
    out.item({"dry_run": True, **after} if app.is_rehearsing else after)
    if app.is_rehearsing:
        dry.end(out, differs=before != after)


async def _resolved(app: App, which: str) -> str:
    return (await within.organization(app, which)).organization.id


async def _found(app: App, org_id: str) -> dict[str, Any]:
    return shown(await app.storage.read(SCOPE, organizations.get, org_id))


def _change(ctx: typer.Context, which: str, change: Any, *args: str, dry_run: bool) -> None:
    """Run one transaction on the organization and show it as it is then."""

    async def work(app: App, out: Output) -> None:
        before = await within.organization(app, which)
        facts: dict[str, Any] = {"actor": OPERATOR, "at": app.clock()}
        changed = await app.storage.run(SCOPE, _changed, change, before.organization.id, *args, **facts)
        _told(app, out, shown(before), shown(changed))

    writing(ctx, work, dry_run=dry_run)
