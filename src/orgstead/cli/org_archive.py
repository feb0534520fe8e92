"""``orgstead org export`` and ``org import`` of an archive: one organization with everything that is its own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from orgstead import archive_export, archive_files, archive_import, representations
from orgstead.app import App
from orgstead.archive_import import Result
from orgstead.archives import TableFormat
from orgstead.audit import OPERATOR
from orgstead.cli import dry, within
from orgstead.cli.errors import UsageError
from orgstead.cli.files import new_file
from orgstead.cli.output import Output
from orgstead.cli.progress import progress

WOULD = {Result.CREATED: "would_create", Result.RESUMED: "would_resume", Result.EXISTS: "exists"}
"""What a dry run calls the results."""


def is_archive(file: Path) -> bool:
    """Does the file begin like an archive, or have the name of one? Raises ``UsageError`` where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return archive_files.is_archive(stream) or file.suffix.lower() == ".zip"
    except OSError as error:
        raise UsageError(f"The file cannot be read: {error.strerror}.") from None


async def export(app: App, out: Output, which: str, file: Path, formats: Collection[TableFormat], force: bool) -> None:
    """Write the archive into a new file and show what is in it."""
    org_id = (await within.organization(app, which)).organization.id
    with new_file(file, replace=force) as target, progress(out, "Exporting records") as advance:
        manifest = await archive_export.export(app, org_id, target, formats=formats, advance=advance)
        size = target.tell()
    out.item(
        {
            "organization_id": org_id,
            "file": str(file),
            "bytes": size,
            "collections": len(manifest.collections),
            "records": manifest.records,
            "members": manifest.members,
            "audit_entries": manifest.point.audit.seq,
            "at": manifest.point.at,
        },
        key="file",
    )


async def import_(app: App, out: Output, file: Path, plan: str | None, large: bool) -> None:
    """Make the organization of the archive and show it; what is not as it was is said."""
    with progress(out, "Looking at records") as checking, progress(out, "Loading records") as loading:
        imported = await archive_import.import_archive(
            app, file, OPERATOR, plan=plan, large=large, checking=checking, loading=loading
        )
    for note in imported.notes:
        out.say(note)
    located = imported.located
    shown: dict[str, Any] = {
        "result": WOULD[imported.result] if app.is_rehearsing else imported.result.value,
        **representations.organization(located.organization, located.placement),
    }
    out.item(shown)
    if app.is_rehearsing:
        dry.end(out, differs=imported.result is not Result.EXISTS)
