"""``orgstead operation``: work of several steps, running and done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from orgstead import operations
from orgstead.app import App
from orgstead.cli import within
from orgstead.cli.commands import command, group
from orgstead.cli.local import SCOPE, as_rows, everything, reading
from orgstead.cli.output import Output
from orgstead.errors import NotFound
from orgstead.model import Operation, OperationState

app = group("Look at operations: work of several steps, running and done.")

COLUMNS = ("id", "org_id", "kind", "state", "step", "progress", "attempts", "error", "updated_at")


@command(app, "list")
def list_(
    ctx: typer.Context,
    state: Annotated[OperationState | None, typer.Option(help="Only those in this state.")] = None,
    organization: Annotated[
        str | None,
        typer.Option("--org", "--organization", metavar="ORGANIZATION", help="Only those of this organization."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all unless told.")] = None,
) -> None:
    """List operations, newest first."""

    async def work(app: App, out: Output) -> None:
        where: dict[str, Any] = {"state": state} if state else {}
        if organization:
            where["org_id"] = (await within.organization(app, organization)).organization.id

        async def fetch(after: Sequence[Any] | None, size: int) -> Sequence[Operation]:
            position = None if after is None else (after[0], after[1])
            return await app.storage.read(SCOPE, operations.page, where, after=position, limit=size)

        found = everything(fetch, lambda last: (last.id, last.org_id), limit)
        await out.stream(as_rows(found, asdict), COLUMNS)

    reading(ctx, work)


@command(app, "get")
def get(ctx: typer.Context, operation: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Show an operation."""

    async def work(app: App, out: Output) -> None:
        found = await app.storage.read(SCOPE, operations.page, {"id": operation}, after=None, limit=1)
        if not found:
            detail = "There is no operation of this id; those that ended are kept for 30 days."
            raise NotFound(detail, next="orgstead operation list")
        out.item(asdict(found[0]))

    reading(ctx, work)
