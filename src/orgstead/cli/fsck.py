"""``orgstead fsck``: does everything agree with everything else?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from orgstead import integrity
from orgstead.app import App
from orgstead.cli.commands import command, single
from orgstead.cli.errors import CHECK_FAILED
from orgstead.cli.local import reading, writing
from orgstead.cli.output import Output
from orgstead.cli.progress import progress

app = single()

COLUMNS = ("id", "subject", "detail", "repaired")


@command(app, "fsck")
def fsck(
    ctx: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired safely.")] = False,
) -> None:
    """Compare the directory with itself and with the spaces; ends with 6 if something is left unrepaired."""

    async def work(app: App, out: Output) -> int:
        left = found = 0
        with progress(out, "Organizations checked") as advance:

            async def rows() -> AsyncIterator[Mapping[str, Any]]:
                nonlocal left, found
                async for finding in integrity.fsck(app, repair=repair, progress=advance):
                    found += 1
                    left += not finding.repaired
                    yield asdict(finding)

            await out.stream(rows(), COLUMNS)
        if not found:
            out.say("Everything agrees.")
        return left

    if (writing if repair else reading)(ctx, work):
        raise typer.Exit(CHECK_FAILED)
