"""``orgstead record``: an organization's records, as the operator."""

from __future__ import annotations

import shutil
import sys
import tempfile
from codecs import getreader
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from orgstead import queries, record_tables, records, spaces
from orgstead.app import App
from orgstead.cli import lines, record_import, record_lines, within
from orgstead.cli.commands import command, group
from orgstead.cli.dry import DryRun
from orgstead.cli.errors import UsageError
from orgstead.cli.files import new_file
from orgstead.cli.local import PAGE, reading, writing
from orgstead.cli.output import Output
from orgstead.cli.progress import progress
from orgstead.cli.within import CollectionOption, Limit, Org
from orgstead.errors import NotFound
from orgstead.model import Placement
from orgstead.queries import Query, Rules

app = group("Read, query, import and export an organization's records.")

COLUMNS = ("id", "version", "updated_at", "data")


@command(app, "list")
def list_(ctx: typer.Context, org: Org, collection: CollectionOption, limit: Limit = None) -> None:
    """List the records of a collection, by id."""

    async def work(app: App, out: Output) -> None:
        placement = (await within.organization(app, org)).placement
        await out.stream(_found(app, placement, collection, queries.parse(), limit), COLUMNS)

    reading(ctx, work)


@command(app, "get")
def get(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="The record's id.")],
    org: Org,
    collection: CollectionOption,
) -> None:
    """Show a record."""

    async def work(app: App, out: Output) -> None:
        placement = (await within.organization(app, org)).placement
        try:
            found = await spaces.read(app, placement, records.get, collection, id)
        except NotFound:
            next_ = f"orgstead record list --org {placement.org_id} --collection {collection}"
            raise NotFound("The collection has no record of this id.", next=next_) from None
        out.item(queries.shown(found))

    reading(ctx, work)


@command(app, "query")
def query(
    ctx: typer.Context,
    org: Org,
    collection: CollectionOption,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help='A condition, such as {"field": "city", "eq": "Berlin"}.')
    ] = None,
    order: Annotated[
        str | None, typer.Option(metavar="FIELDS", help="What to sort by, such as city,-price; ids unless told.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(metavar="FIELDS", help="The members to show, such as city,price; all unless told.")
    ] = None,
    limit: Limit = None,
) -> None:
    """List the records that meet a condition, in an order."""
    asked = queries.parse(
        within.json_option(where, "--where") if where is not None else None,
        order.split(",") if order is not None else None,
        select.split(",") if select is not None else None,
    )

    async def work(app: App, out: Output) -> None:
        placement = (await within.organization(app, org)).placement
        await out.stream(_found(app, placement, collection, asked, limit), COLUMNS)

    reading(ctx, work)


@command(app, "export")
def export(
    ctx: typer.Context,
    org: Org,
    collection: CollectionOption,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv|jsonl", help="The file to write, or - for standard output.")
    ] = Path("-"),
    format: Annotated[
        str | None, typer.Option(metavar="csv|jsonl", help="Its format; jsonl unless its name tells.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write all records of a collection into a file, as they are at one moment.

    JSON Lines has everything about each record, and is read again by record import --format records. CSV has the id and
    a column for each member of the data; text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    chosen = format or (lines.JSON_LINES if str(file) == "-" else lines.format_of(file))
    if chosen not in (lines.CSV, lines.JSON_LINES):
        raise UsageError("The format is neither csv nor jsonl.", next="use --format csv or --format jsonl")

    async def work(app: App, out: Output) -> None:
        placement = (await within.organization(app, org)).placement
        write = record_tables.write_csv if chosen == lines.CSV else record_tables.write_lines
        with ExitStack() as stack:
            target: BinaryIO
            if str(file) == "-":
                target = stack.enter_context(tempfile.TemporaryFile())
            else:
                target = stack.enter_context(new_file(file, replace=force))
            advance = stack.enter_context(progress(out, "Exporting records"))
            try:
                count = await spaces.scan(app, placement, write, collection, _beginning(target), advance)
            except NotFound:
                raise _no_collection(placement) from None
            if str(file) == "-":
                sys.stdout.flush()
                target.seek(0)
                shutil.copyfileobj(getreader("utf-8")(target), sys.stdout)
        out.say(f"{count} record{'' if count == 1 else 's'}")

    reading(ctx, work)


def _beginning(target: BinaryIO) -> Callable[[], BinaryIO]:
    """Gives the target emptied: what is begun again is written anew."""

    def begin() -> BinaryIO:
        target.seek(0)
        target.truncate()
        return target

    return begin


@command(app, "import")
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv|jsonl", help="The file, or - for standard input.")],
    collection: CollectionOption,
    org: Annotated[
        str | None,
        typer.Option("--org", metavar="ORGANIZATION", help="Whose records they are: an id, slug or external id."),
    ] = None,
    org_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column that says whose a record is, instead of --org."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of the records' ids; made for each unless told.")
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(metavar="COLUMN=TYPE,…", help=f"Types of columns of CSV: {', '.join(record_lines.TYPES)}."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="csv|jsonl|records", help="Its format, where its name does not tell."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write what became of each line into a new file.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Create records in bulk: a line of CSV, or an object on each line of JSON Lines, is the data of a record.

    With --id-column (or --format records) a line whose id is there already changes nothing, so an import that was cut
    short is simply run again. Without, each run makes new records.

    A column of CSV is text, unless --types or, for one organization, a schema of the collection says otherwise. A
    number is true to its text. An empty cell is no member. The columns of id and organization are not in the data.

    A dry run says what would become of each line. What only shows when it is done, such as a full disk, it does not
    foresee.
    """
    if (org is None) == (org_column is None):
        raise UsageError("Say whose records they are.", next="add either --org or --org-column")
    if format not in (None, *record_lines.FORMATS):
        raise UsageError(
            "The format is none of csv, jsonl and records.", next="use --format csv, --format jsonl or --format records"
        )
    chosen = format or lines.format_of(file)
    if chosen == record_lines.RECORDS and id_column:
        raise UsageError("Lines of the format records have their ids.", next="leave out --id-column")
    if chosen != lines.CSV and types:
        raise UsageError("JSON says its types itself.", next="leave out --types")
    how = record_lines.Reading(chosen, id_column, org_column, record_lines.types_of(types))

    async def work(app: App, out: Output) -> None:
        await record_import.run(app, out, file, collection, org, how, report)

    writing(ctx, work, dry_run=dry_run)


async def _found(
    app: App, placement: Placement, collection: str, query: Query, limit: int | None
) -> AsyncIterator[dict[str, Any]]:
    """All records that the query finds, page by page."""
    rules: Rules = queries.rules_of(app.settings)
    after = None
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        try:
            page = await spaces.read(app, placement, queries.run, collection, query, rules, after=after, limit=size)
        except NotFound:
            raise _no_collection(placement) from None
        for record in page.records:
            yield queries.shown(record, query.select)
        if page.mark is None:
            return
        after = page.mark
        left = None if left is None else left - len(page.records)


def _no_collection(placement: Placement) -> NotFound:
    next_ = f"orgstead collection list --org {placement.org_id}"
    return NotFound("The organization has no collection of this name.", next=next_)
