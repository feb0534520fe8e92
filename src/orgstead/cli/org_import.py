"""``orgstead org import``: organizations in bulk, with an account of every line."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from orgstead import importing
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.cli import accounts, lines
from orgstead.cli.accounts import Account
from orgstead.cli.output import Output
from orgstead.cli.progress import progress
from orgstead.importing import Result
from orgstead.placements import kind_of

REQUIRED = ("external_id", "name")
RESULTS = (Result.CREATED, Result.EXISTS, Result.RENAMED, Result.REFUSED)
COLUMNS = ("line", "external_id", "result", "organization_id", "slug", "reason")


async def run(app: App, out: Output, file: Path, format: str | None, plan: str | None, report: Path | None) -> None:
    """Import the file; print each line's outcome (JSON, JSON Lines, CSV) or the totals (table).

    Raises ``LinesRefused`` at the end if any was, ``UsageError`` before anything is done if the file cannot be read.
    """
    if plan:
        kind_of(app.settings, plan)
    with ExitStack() as stack:
        stream = stack.enter_context(lines.opened(file))
        chosen = format or lines.format_of(file)
        read = lines.read(stream, chosen, importing.COLUMNS, REQUIRED)
        write = stack.enter_context(accounts.report(report, COLUMNS))
        account = Account(out, COLUMNS, "organization_id", write, dry_run=app.is_rehearsing)
        total = accounts.count_lines(file, header=chosen == lines.CSV)
        advance = stack.enter_context(progress(out, "Importing organizations", total))
        with account.kept(RESULTS):
            async for outcomes in importing.import_organizations(app, read, OPERATOR, plan=plan):
                account.take([asdict(outcome) for outcome in outcomes])
                advance(len(outcomes))
    account.judge()
