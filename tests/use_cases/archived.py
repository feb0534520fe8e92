"""Archives for the tests: an organization worth exporting, archives taken apart and put together again."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from orgstead import archive_export, archive_import, kit, members, organizations, placements
from orgstead.app import App
from orgstead.archive_import import Imported
from orgstead.archives import LinesDigest, Manifest, TableFormat
from orgstead.model import Placement, Role
from orgstead.storage import tables
from orgstead.storage.port import Digest
from tests import apps
from tests.use_cases.shelves import Shelf

SCHEMA = {"type": "object", "properties": {"price": {"type": ["number", "null"]}}}
HARD: tuple[dict[str, Any], ...] = (
    {},
    {"price": 2**63 - 1, "city": "Köln", "tags": ["a", "b", "a"]},
    {"price": -0.5, "city": "=1+1", "nested": {"a.b": {"$x": [None, True, 1e300]}}},
    {"price": None, "__proto__": {"x": 1}, "_id": "a", "org_id": "b", "": "\u2028\U0010ffff\x01"},
    {"city": 'a\nb\r\n"c",d', "price": 2**53 + 1},
)


async def filled(app: App, name: str = "Acme", plan: str = "free", **fields: Any) -> Shelf:
    """An organization with members of every role and collections of every kind."""
    located = await apps.created(app, name, plan, **fields)
    org_id = located.organization.id
    for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
        person = apps.person(app)
        await app.storage.run(apps.SCOPE, _add_user, person)
        await app.storage.run(apps.SCOPE, members.add, app.settings, org_id, person.id, role, apps.TESTER, app.clock())
    await app.storage.run(
        apps.SCOPE,
        organizations.update,
        org_id,
        metadata={"tier": 1, "x": {"y": [1.0]}},
        actor=apps.TESTER,
        at=app.clock(),
    )
    shelf = Shelf(app, located.placement, plan)
    await shelf.define("goods", schema=SCHEMA, indexes=[["city", "-price"], ["tags[]"]], unique=[["sku"]])
    await shelf.define("empty")
    await shelf.fill("goods", [{**data, "sku": f"s-{n}"} for n, data in enumerate(HARD)])
    await shelf.fill("notes", [{"n": n, "text": "x" * (n % 50)} for n in range(60)])
    await shelf.replace("goods", "r0", {"sku": "changed", "city": "Köln"})
    await shelf.delete("notes", "r7")
    return shelf


async def _add_user(tx: Any, user: Any) -> None:
    await tx.add(tables.users, user)


async def exported(app: App, org_id: str, path: Path, *formats: TableFormat) -> Manifest:
    with path.open("w+b") as target:
        return await archive_export.export(app, org_id, target, formats=formats)


async def imported(app: App, path: Path, **options: Any) -> Imported:
    return await archive_import.import_archive(app, path, apps.TESTER, **options)


async def digest(app: App, placement: Placement) -> Digest:
    """The digest of the organization's records."""
    return await app.cell(placement.cell).digest(placements.space_of(placement), tables.records)


async def directory(app: App) -> dict[str, Digest]:
    """The digests of all tables of the directory, and how many spaces there are: what a refusal must not change."""
    found = {table.name: await app.storage.digest(apps.SCOPE, table) for table in tables.DIRECTORY}
    return {**found, "spaces": Digest(len(await app.storage.spaces()), "")}


# --- taking apart -----------------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """The files of an archive, and its manifest as JSON."""

    files: dict[str, bytes]
    manifest: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> Parts:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        return cls(files, orjson.loads(files.pop("manifest.json")))

    def lines(self, name: str) -> list[Any]:
        return [orjson.loads(line) for line in self.files[name].splitlines()]

    def relink(self) -> None:
        """Make the sums of the manifest right again, as a forger would."""
        self.manifest["files"] = {
            name: {"bytes": len(text), "lines": text.count(b"\n"), "sha256": hashlib.sha256(text).hexdigest()}
            for name, text in self.files.items()
        }
        for name, facts in self.manifest["collections"].items():
            digest = LinesDigest()
            facts["bytes"] = 0
            for line in self.files.get(f"records/{name}.jsonl", b"").splitlines(keepends=True):
                digest.take(line)
                with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    facts["bytes"] += len(orjson.dumps(orjson.loads(line)["data"]))
            facts["records"], facts["digest"] = digest.count, digest.hexdigest()

    def write(self, path: Path, *, more: Callable[[zipfile.ZipFile], None] | None = None) -> Path:
        """Put the archive together."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in self.files.items():
                archive.writestr(name, text)
            archive.writestr("manifest.json", orjson.dumps(self.manifest))
            if more:
                more(archive)
        return path


def line_of(**fields: Any) -> bytes:
    """A record's canonical line."""
    at = kit.rfc3339(kit.now())
    whole = {"id": "z", "version": 1, "created_at": at, "updated_at": at, "data": {}, **fields}
    return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
