"""``orgstead record import``: records in bulk, of one organization or of many, with an account of every line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from orgstead import record_import, record_import_many, spaces
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.cli import accounts, lines, record_lines, within
from orgstead.cli.accounts import Account
from orgstead.cli.errors import UsageError
from orgstead.cli.output import Output
from orgstead.cli.progress import progress
from orgstead.cli.record_lines import Reading
from orgstead.model import Collection
from orgstead.organizations import Located
from orgstead.record_batches import terms_of
from orgstead.record_definitions import checked_name
from orgstead.record_import import Line, Outcome, Result
from orgstead.record_import_many import Addressed, Told
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

COLUMNS = ("line", "organization_id", "record_id", "result", "pointer", "reason")


async def run(
    app: App, out: Output, file: Path, collection: str, org: str | None, how: Reading, report: Path | None
) -> None:
    """Import the file; print each line's outcome (JSON, JSON Lines, CSV) or the totals (table).

    Raises ``LinesRefused`` at the end if any was, ``UsageError`` before anything is done if the file cannot be read.
    """
    checked_name(collection)
    with ExitStack() as stack:
        stream = stack.enter_context(lines.opened(file))
        where = await within.organization(app, org) if org is not None else None
        if where is not None:
            if where.organization.status not in record_import_many.WRITABLE:
                raise UsageError(f"The organization is {where.organization.status}.")
            found = await spaces.read(app, where.placement, _collection, collection)
            how = replace(how, schema_types=record_lines.types_in_schema(found.schema if found else None))
        read = record_lines.read(stream, how)
        write = stack.enter_context(accounts.report(report, COLUMNS))
        repeatable = how.id_column is not None or how.format == record_lines.RECORDS
        account = Account(out, COLUMNS, "record_id", write, repeatable=repeatable, dry_run=app.is_rehearsing)
        total = accounts.count_lines(file, header=how.format == lines.CSV)
        advance = stack.enter_context(progress(out, "Importing records", total))
        with account.kept(tuple(Result)):
            async for outcomes in _outcomes(app, collection, read, where):
                account.take(outcomes)
                advance(len(outcomes))
    account.judge()


async def _outcomes(
    app: App, collection: str, read: Iterator[Addressed], where: Located | None
) -> AsyncIterator[Sequence[dict[str, Any]]]:
    if where is None:
        told: list[Told]
        async for told in record_import_many.import_records(app, collection, read, OPERATOR):
            yield [_shown(one.organization_id, one.outcome) for one in told]
        return
    org_id = where.organization.id
    terms = terms_of(app, where.organization.plan, OPERATOR)
    plain: Iterator[Line] = (addressed.line for addressed in read)
    async for outcomes in record_import.import_records(app, where.placement, collection, plain, terms):
        yield [_shown(org_id, outcome) for outcome in outcomes]


def _shown(org_id: str | None, outcome: Outcome) -> dict[str, Any]:
    return {
        "line": outcome.line,
        "organization_id": org_id,
        "record_id": outcome.record_id,
        "result": outcome.result.value,
        "pointer": outcome.pointer,
        "reason": outcome.reason,
    }


async def _collection(tx: Transaction, space: Space, name: str) -> Collection | None:
    return await tx.find(tables.collections, org_id=space.org_id, name=name)
