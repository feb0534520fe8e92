"""``orgstead collection``: the kinds of records that an organization has, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from orgstead import record_collections, record_definitions, spaces
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.cli import within
from orgstead.cli.commands import command, group
from orgstead.cli.errors import UsageError
from orgstead.cli.local import as_rows, everything, reading, writing
from orgstead.cli.output import Output
from orgstead.cli.within import Limit, Org
from orgstead.errors import NotFound
from orgstead.model import Collection
from orgstead.record_batches import terms_of
from orgstead.record_collections import shown

app = group("List and define collections of an organization's records.")

COLUMNS = ("name", "state", "indexes", "unique", "updated_at")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The collection's name.")]


@command(app, "list")
def list_(ctx: typer.Context, org: Org, limit: Limit = None) -> None:
    """List an organization's collections, by name."""

    async def work(app: App, out: Output) -> None:
        placement = (await within.organization(app, org)).placement

        async def fetch(after: Sequence[Any] | None, size: int) -> Sequence[Collection]:
            name = None if after is None else after[0]
            return await spaces.read(app, placement, record_collections.page, after=name, limit=size)

        found = everything(fetch, lambda last: (last.name,), limit)
        await out.stream(as_rows(found, shown), COLUMNS, key="name")

    reading(ctx, work)


@command(app, "get")
def get(ctx: typer.Context, name: Name, org: Org) -> None:
    """Show a collection's definition."""

    async def work(app: App, out: Output) -> None:
        placement = (await within.organization(app, org)).placement
        try:
            found = await spaces.read(app, placement, record_collections.get, name)
        except NotFound:
            next_ = f"orgstead collection list --org {placement.org_id}"
            raise NotFound("The organization has no collection of this name.", next=next_) from None
        out.item(shown(found), key="name")

    reading(ctx, work)


@command(app, "define")
def define(
    ctx: typer.Context,
    name: Name,
    org: Org,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="The whole definition: an object with schema, indexes and unique."),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="A JSON Schema (draft 2020-12) of the records' data.")
    ] = None,
    index: Annotated[
        list[str] | None, typer.Option(metavar="FIELDS", help="An index, such as city,-price; may be repeated.")
    ] = None,
    unique: Annotated[
        list[str] | None, typer.Option(metavar="FIELDS", help="Fields that no two records share; may be repeated.")
    ] = None,
) -> None:
    """Give a collection this definition and no other; make it where there is none of that name.

    Records that are there are checked first: where one violates the definition, nothing has changed.
    """
    if file and (schema or index or unique):
        raise UsageError("--file is the whole definition.", next="leave out --schema, --index and --unique")

    async def work(app: App, out: Output) -> None:
        if file:
            whole = within.json_file(file)
            if not isinstance(whole, dict) or not whole.keys() <= {"schema", "indexes", "unique"}:
                raise UsageError("The file is not a definition.", next="an object with schema, indexes and unique")
            definition = record_definitions.parse(
                whole.get("schema"), whole.get("indexes", ()), whole.get("unique", ())
            )
        else:
            definition = record_definitions.parse(
                within.json_file(schema) if schema else None,
                [fields.split(",") for fields in index or ()],
                [fields.split(",") for fields in unique or ()],
            )
        found = await within.organization(app, org)
        terms = terms_of(app, found.organization.plan, OPERATOR)
        defined = await record_collections.define(app, found.placement, name, definition, terms, OPERATOR)
        if defined.operation:
            out.say(f"The operation goes on: orgstead operation get {defined.operation.id}")
        out.item(shown(defined.collection), key="name")

    writing(ctx, work)
