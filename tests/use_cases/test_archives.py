"""Archives: an organization comes back as it was, anywhere; what is not whole and unaltered changes nothing."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import os
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from orgstead import (
    archive_export,
    archive_files,
    archive_loading,
    archive_steps,
    archives,
    failpoints,
    feed,
    operations,
    organizations,
    placements,
    record_collections,
    record_definitions,
    records,
    spaces,
)
from orgstead.app import App
from orgstead.archive_import import Result
from orgstead.archives import Manifest, TableFormat
from orgstead.errors import ArchiveInvalid, ArchiveUnavailable, Conflict, StatusConflict, UnknownPlan
from orgstead.importing import NO_PASSWORD
from orgstead.model import OperationState, OrganizationStatus, PlacementKind, Role
from orgstead.record_batches import Change, Op
from orgstead.record_errors import FeedExpired, QuotaExceeded
from orgstead.settings import Settings
from orgstead.storage import tables
from orgstead.storage.port import Digest
from tests import apps
from tests.engines import Database, new_database, selected
from tests.support import PROJECT, sample
from tests.use_cases.archived import HARD, Parts, digest, directory, exported, filled, imported, line_of
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio

KINDS = {"free": PlacementKind.POOLED, "enterprise": PlacementKind.DEDICATED}


@pytest.fixture
async def elsewhere(request: pytest.FixtureRequest) -> AsyncIterator[App]:
    """Another, empty database of the same engine."""
    engine = request.node.callspec.params["database"]
    async with new_database(engine) as database, apps.opened(database) as app:
        yield app
        await apps.assert_clean(app)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "acme.zip"


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", KINDS)
@pytest.mark.parametrize("to", KINDS)
async def test_an_organization_comes_back_as_it_was(
    app: App, elsewhere: App, archive: Path, plan: str, to: str
) -> None:
    shelf = await filled(app, plan=plan, external_id="x-1")
    manifest = await exported(app, shelf.placement.org_id, archive)
    assert (manifest.records, manifest.members, set(manifest.collections)) == (64, 4, {"goods", "empty", "notes"})
    found = await imported(elsewhere, archive, plan=to)
    assert found.result is Result.CREATED
    assert found.notes == (() if plan == to else (f"The plan was {plan}.",))

    before, after = await _located(app, shelf.placement.org_id), found.located
    assert after.placement.kind is KINDS[to]
    for same in ("id", "name", "slug", "external_id", "metadata", "status", "created_at", "updated_at"):
        assert getattr(after.organization, same) == getattr(before.organization, same), same
    assert await digest(elsewhere, after.placement) == await digest(app, shelf.placement)

    there = Shelf(elsewhere, after.placement, to)
    for name in ("goods", "empty", "notes"):
        assert await _definition(there, name) == await _definition(shelf, name)
    assert await there.entries("goods") == await shelf.entries("goods")
    assert await there.ask("goods", {"field": "city", "eq": "Köln"}) == ["r0", "r1"]
    used = {what: getattr(await there.usage(), what) for what in ("records", "bytes", "collections")}
    assert used == {what: getattr(await shelf.usage(), what) for what in ("records", "bytes", "collections")}
    assert await _members(elsewhere, after.organization.id) == await _members(app, before.organization.id)

    chain = await apps.rows(app, tables.audit_entries)
    *kept, last = sorted(await apps.rows(elsewhere, tables.audit_entries), key=lambda entry: entry.seq)
    assert kept == sorted(chain, key=lambda entry: entry.seq)
    assert (last.action, last.actor) == ("organization.imported", apps.TESTER.id)
    assert [event.type for event in await apps.rows(elsewhere, tables.events)] == ["organization.imported"]


async def test_an_archive_of_an_archive_has_the_same_records(app: App, elsewhere: App, tmp_path: Path) -> None:
    shelf = await filled(app)
    org_id = shelf.placement.org_id
    first = await exported(app, org_id, tmp_path / "a.zip")
    await imported(elsewhere, tmp_path / "a.zip", plan="enterprise")
    second = await exported(elsewhere, org_id, tmp_path / "b.zip")
    assert second.collections == first.collections
    assert second.files["collections.jsonl"] == first.files["collections.jsonl"]
    assert second.files["members.jsonl"] == first.files["members.jsonl"]


async def test_an_archive_is_imported_once(app: App, elsewhere: App, archive: Path) -> None:
    shelf = await filled(app)
    await exported(app, shelf.placement.org_id, archive)
    first = await imported(elsewhere, archive)
    before = await directory(elsewhere)
    again = await imported(elsewhere, archive)
    assert (again.result, again.located) == (Result.EXISTS, first.located)
    assert await directory(elsewhere) == before


async def test_beside_the_original_it_becomes_a_copy(app: App, archive: Path) -> None:
    shelf = await filled(app, external_id="x-1")
    org_id = shelf.placement.org_id
    manifest = await exported(app, org_id, archive)
    copy = await imported(app, archive)
    organization = copy.located.organization
    assert copy.result is Result.CREATED
    assert organization.id != org_id
    assert (organization.slug, organization.external_id) == ("acme-2", None)
    assert len(copy.notes) == 3
    assert await _members(app, organization.id) == await _members(app, org_id)
    assert len(await apps.rows(app, tables.users)) == 4, "members have one account"
    first, last = sorted(await apps.rows(app, tables.audit_entries, org_id=organization.id), key=lambda e: e.seq)
    assert (first.action, first.details["copy_of"]["organization"]) == ("organization.created", org_id)
    assert first.details["copy_of"]["audit"] == manifest.point.audit.model_dump()
    assert last.action == "organization.imported"
    again = await imported(app, archive)
    assert (again.result, again.located.organization.id) == (Result.EXISTS, organization.id)
    second = await exported(app, organization.id, archive.with_name("copy.zip"))
    assert second.collections == manifest.collections


async def test_what_was_purged_comes_back_under_another_id(app: App, archive: Path) -> None:
    """The receipt of the purge keeps the id; the owner's name is held for the owner."""
    shelf = await filled(app)
    before = await digest(app, shelf.placement)
    await exported(app, shelf.placement.org_id, archive)
    await apps.purged(app, shelf.placement.org_id)
    found = await imported(app, archive)
    assert found.located.organization.id != shelf.placement.org_id
    assert found.located.organization.slug == "acme"
    assert (await digest(app, found.located.placement)).count == before.count
    await apps.purged(app, found.located.organization.id)
    assert (await imported(app, archive)).result is Result.CREATED


async def test_a_suspension_is_not_escaped_and_a_closed_organization_comes_back(
    app: App, elsewhere: App, tmp_path: Path
) -> None:
    for name, change in (("Held", _suspend), ("Left", _close)):
        shelf = await Shelf.made(app, name)
        await change(app, shelf.placement.org_id)
        await exported(app, shelf.placement.org_id, tmp_path / f"{name}.zip")
    held = (await imported(elsewhere, tmp_path / "Held.zip")).located.organization
    left = (await imported(elsewhere, tmp_path / "Left.zip")).located.organization
    assert (held.status, held.suspended_by) == (OrganizationStatus.SUSPENDED, "operator")
    assert (left.status, left.closed_at, left.purge_at) == (OrganizationStatus.ACTIVE, None, None)


async def test_an_archive_holds_no_secret(app: App, elsewhere: App, archive: Path) -> None:
    shelf = await filled(app)
    owner = (await apps.rows(app, tables.users))[0]
    await app.storage.run(apps.SCOPE, _give_password, owner.id)
    await exported(app, shelf.placement.org_id, archive, TableFormat.CSV)
    parts = Parts.of(archive)
    assert all(b"argon2-secret" not in text and b"password" not in text for text in parts.files.values())
    await imported(elsewhere, archive)
    assert {user.password_hash for user in await apps.rows(elsewhere, tables.users)} == {NO_PASSWORD}


async def test_members_get_the_account_of_their_address(app: App, elsewhere: App, archive: Path) -> None:
    """And an account whose id is taken by somebody else gets another id."""
    shelf = await filled(app)
    await exported(app, shelf.placement.org_id, archive)
    users = sorted(await apps.rows(app, tables.users), key=lambda user: user.id)
    known, stranger = users[0], users[1]
    await elsewhere.storage.run(apps.SCOPE, _add_user, known, "usr_known", known.email)
    await elsewhere.storage.run(apps.SCOPE, _add_user, stranger, stranger.id, "stranger@example.com")
    await imported(elsewhere, archive)
    by_email = {user.email: user for user in await apps.rows(elsewhere, tables.users)}
    assert len(by_email) == 5
    assert (by_email[known.email].id, by_email[known.email].password_hash) == ("usr_known", "kept")
    assert by_email[stranger.email].id != stranger.id
    assert by_email[users[2].email].id == users[2].id
    assert await _members(elsewhere, shelf.placement.org_id) == await _members(app, shelf.placement.org_id)


async def test_a_reader_of_the_feed_is_told_to_begin_anew(app: App, elsewhere: App, archive: Path) -> None:
    shelf = await filled(app)
    last = (await shelf.usage()).seq
    await exported(app, shelf.placement.org_id, archive)
    there = Shelf(elsewhere, (await imported(elsewhere, archive)).located.placement)
    for after in (0, last - 1, last):
        with pytest.raises(FeedExpired):
            await there.read(feed.read, after=after, limit=10)
    await there.create("notes", {"n": 1})
    assert [event.seq for event in await there.events((await there.usage()).seq - 1)] == [last + 2]


async def test_tables_for_spreadsheets_have_all_columns_and_run_nothing(app: App, archive: Path) -> None:
    shelf = await filled(app)
    await shelf.fill("notes", [{"=cmd()": 1, "id": "@x", "t": "\ttab"}, {"t": "-1"}, {"t": -1}], prefix="=x"[1:])
    await exported(app, shelf.placement.org_id, archive, TableFormat.CSV)
    parts = Parts.of(archive)
    rows = list(csv.DictReader(io.StringIO(parts.files["csv/goods.csv"].decode(), newline="")))
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(len(HARD))]
    assert rows[2]["city"] == "'=1+1"
    assert rows[4]["city"] == HARD[4]["city"]
    assert orjson.loads(rows[2]["nested"]) == HARD[2]["nested"]
    notes = list(csv.DictReader(io.StringIO(parts.files["csv/notes.csv"].decode(), newline="")))
    assert {"id", "n", "text", "'=cmd()", "data.id", "t"} == set(notes[0])
    by_id = {row["id"]: row for row in notes}
    assert [by_id[f"x{n}"]["t"] for n in range(3)] == ["'\ttab", "'-1", "-1"]
    assert by_id["x0"]["data.id"] == "'@x"


# --- one moment -------------------------------------------------------------------------------------------------------


async def test_an_archive_is_of_one_moment_while_others_write(app: App, archive: Path) -> None:
    """Money goes from one record to another all the time; in the archive none is missing."""
    shelf = await Shelf.made(app)
    await shelf.fill("accounts", [{"balance": 100} for _ in range(40)])
    stop = asyncio.Event()

    async def transfer() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await shelf.run(_transfer, number, shelf.terms)

    writers = [asyncio.create_task(transfer()) for _ in range(2)]
    try:
        for _ in range(5):
            manifest = await exported(app, shelf.placement.org_id, archive)
            parts = Parts.of(archive)
            assert sum(line["data"]["balance"] for line in parts.lines("records/accounts.jsonl")) == 4000
            versions = sum(line["version"] for line in parts.lines("records/accounts.jsonl"))
            assert manifest.point.events == versions + 1, "every change that was numbered is in it, and no other"
    finally:
        stop.set()
        await asyncio.gather(*writers)


async def test_a_change_of_the_organization_meanwhile_begins_the_export_anew(
    app: App, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = await filled(app)
    org_id = shelf.placement.org_id
    scan = spaces.scan
    names = iter(["Changed once", *(f"Changed {n}" for n in range(9))])
    often = [1]

    async def changing(*args: Any) -> Any:
        found = await scan(*args)
        if often[0]:
            often[0] -= 1
            change = organizations.update
            await app.storage.run(apps.SCOPE, change, org_id, name=next(names), actor=apps.TESTER, at=app.clock())
        return found

    monkeypatch.setattr(spaces, "scan", changing)
    await exported(app, org_id, archive, *TableFormat)
    parts = Parts.of(archive)
    assert sum(name.endswith((".csv", ".parquet")) for name in parts.files) == 6
    assert orjson.loads(parts.files["organization.json"])["name"] == "Changed once"
    assert parts.lines("audit.jsonl")[-1]["details"] == {"name": "Changed once"}
    often[0] = 9
    with pytest.raises(Conflict):
        await exported(app, org_id, archive)


@pytest.mark.parametrize("after", [0, 1, 40, 64])
async def test_a_snapshot_that_is_begun_again_begins_the_archive_again(
    app: App, elsewhere: App, archive: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """As an engine may do with any transaction, wherever it is."""
    shelf = await filled(app)
    scan = spaces.scan
    monkeypatch.setattr(archive_export, "CHUNK", 7)

    class Conflicted(Exception):
        pass

    async def twice(app: App, placement: Any, work: Any, begin: Any, csv: bool, advance: Any) -> Any:
        seen = []

        def conflict(count: int) -> None:
            seen.append(count)
            if sum(seen) >= after:
                raise Conflicted

        with pytest.raises(Conflicted):
            await scan(app, placement, work, begin, csv, conflict)
        return await scan(app, placement, work, begin, csv, advance)

    monkeypatch.setattr(spaces, "scan", twice)
    await exported(app, shelf.placement.org_id, archive)
    monkeypatch.undo()
    found = await imported(elsewhere, archive)
    assert await digest(elsewhere, found.located.placement) == await digest(app, shelf.placement)


async def test_an_organization_that_is_being_purged_is_not_exported(damaged: App, archive: Path) -> None:
    shelf = await Shelf.made(damaged)
    row = (await apps.rows(damaged, tables.organizations))[0]
    await damaged.storage.run(apps.SCOPE, _replace, replace(row, status=OrganizationStatus.PURGING))
    with pytest.raises(StatusConflict):
        await exported(damaged, shelf.placement.org_id, archive)


# --- what is not allowed here -----------------------------------------------------------------------------------------


async def test_what_the_plan_does_not_allow_changes_nothing(app: App, database: Database, archive: Path) -> None:
    shelf = await filled(app)
    await exported(app, shelf.placement.org_id, archive)
    await apps.purged(app, shelf.placement.org_id)
    before = await directory(app)
    with pytest.raises(UnknownPlan):
        await imported(app, archive, plan="nonsense")
    size = Manifest.model_validate(Parts.of(archive).manifest).size
    for limit, said in (
        ({"max_records": 63}, "63 records, and the archive has 64"),
        ({"max_collections": 1}, "1 collection, and the archive has 3"),
        ({"max_bytes": 500}, f"500 bytes, and the archive has {size}"),
        ({"max_members": 3}, "3 members, and the archive has 4"),
    ):
        plans = {"small": {"placement": "pooled", **limit}}
        small = App(app.settings.model_copy(update={"plans": _plans(plans)}), app.storage, clock=app.clock)
        with pytest.raises(QuotaExceeded) as raised:
            await imported(small, archive, plan="small")
        assert raised.value.detail == f"The plan small allows {said}; choose another plan."
        (name,) = limit
        assert f"--plan, or raise plans.small.{name} in " in (raised.value.next or "")
    assert await directory(app) == before
    plans = {"exact": {"placement": "pooled", "max_records": 64, "max_collections": 3, "max_members": 4}}
    exact = App(app.settings.model_copy(update={"plans": _plans(plans)}), app.storage, clock=app.clock)
    assert (await imported(exact, archive, plan="exact")).result is Result.CREATED


Edit = Callable[[Parts], object]


def _append(name: str, text: bytes) -> Edit:
    def edit(parts: Parts) -> None:
        parts.files[name] += text

    return edit


def _swap(name: str, old: bytes, new: bytes) -> Edit:
    def edit(parts: Parts) -> None:
        assert old in parts.files[name]
        parts.files[name] = parts.files[name].replace(old, new, 1)

    return edit


def _organization(**changes: Any) -> Edit:
    def edit(parts: Parts) -> None:
        whole = orjson.loads(parts.files["organization.json"])
        parts.files["organization.json"] = orjson.dumps({**whole, **changes})

    return edit


def _manifest(**changes: Any) -> Edit:
    return lambda parts: parts.manifest.update(changes)


def _again(name: str, place: int = 0) -> Edit:
    def edit(parts: Parts) -> None:
        lines = parts.files[name].splitlines(keepends=True)
        parts.files[name] = b"".join([*lines, lines[place]])

    return edit


def _cut(name: str, count: int = 1) -> Edit:
    def edit(parts: Parts) -> None:
        parts.files[name] = b"".join(parts.files[name].splitlines(keepends=True)[:-count])

    return edit


def _turned(name: str) -> Edit:
    def edit(parts: Parts) -> None:
        parts.files[name] = b"".join(parts.files[name].splitlines(keepends=True)[::-1])

    return edit


NO_STATES = [
    ("provisioning", None),
    ("purging", None),
    ("suspended", None),
    ("suspended", "somebody"),
    ("active", "owner"),
    ("closed", "somebody"),
]
"""``status`` and ``suspended_by`` that nothing that is exported has."""

NOTES = "records/notes.jsonl"
DEEP = b'{"a":' * 33 + b"1" + b"}" * 33
FORGED: dict[str, Edit] = {
    "a record twice": _again(NOTES, -1),
    "records out of order": _turned(NOTES),
    "a record with an id none has": _append(NOTES, line_of(id="../x")),
    "a record with a long id": _append(NOTES, line_of(id="z" * 10_240)),
    "a record with an empty id": _append(NOTES, line_of(id="")),
    "a record that is no object": _append(NOTES, line_of(data=[1])),
    "a record with a version of 0": _append(NOTES, line_of(version=0)),
    "a record with a version of true": _append(NOTES, line_of(version=True)),
    "a record of no time": _append(NOTES, line_of(created_at="2026-02-31T00:00:00.000Z")),
    "a record with a member more": _append(NOTES, line_of(more=1)),
    "a record of another organization": _append(NOTES, line_of(org_id="org_other")),
    "a record with a number beyond 64 bits": _append(
        NOTES, line_of().replace(b'"data":{}', b'"data":{"n":18446744073709551616000}')
    ),
    "a record with a member twice": _append(NOTES, line_of().replace(b'"data":{}', b'"data":{"a":1,"a":2}')),
    "a record with spaces": _append(NOTES, line_of().replace(b'"data":{}', b'"data": {}')),
    "a record that is deep": _append(NOTES, line_of().replace(b'"data":{}', b'"data":' + DEEP)),
    "a record with NUL": _append(NOTES, line_of(data={"a": "\0"})),
    "no JSON": _append(NOTES, b"{\n"),
    "very deep JSON": _append(NOTES, b"[" * 100_000 + b"\n"),
    "an empty line": _append(NOTES, b"\n"),
    "no end of the line": _append(NOTES, line_of()[:-1]),
    "bytes that are no text": _append(NOTES, b"\xff\xfe\n"),
    "a record against the schema": _append("records/goods.jsonl", line_of(data={"price": "much"})),
    "a unique value twice": _append("records/goods.jsonl", line_of(data={"sku": "changed"})),
    "a value that cannot be indexed": _append("records/goods.jsonl", line_of(data={"sku": ["list"]})),
    "an audit entry altered": _swap("audit.jsonl", b"organization.created", b"organization.crafted"),
    "an audit entry removed": _cut("audit.jsonl"),
    "audit entries turned": _turned("audit.jsonl"),
    "an audit entry of no time": _swap("audit.jsonl", b'"at":"2', b'"at":"x2'),
    "an audit entry with a member more": _swap("audit.jsonl", b'{"seq":1,', b'{"seq":1,"more":1,'),
    "no audit": lambda parts: parts.files.update({"audit.jsonl": b""}),
    "a member twice": _again("members.jsonl"),
    "a member too few": _cut("members.jsonl"),
    "no owner": _swap("members.jsonl", b'"owner"', b'"admin"'),
    "an unknown role": _swap("members.jsonl", b'"owner"', b'"god"'),
    "a member without address": _swap("members.jsonl", b"@example.com", b""),
    "a member with a password": _swap("members.jsonl", b'{"user_id"', b'{"password_hash":"x","user_id"'),
    "an account's id that none has": _swap("members.jsonl", b'"user_id":"usr_', b'"user_id":"../'),
    "a collection that is not there": _append(
        "collections.jsonl",
        b'{"name":"more","schema":null,"indexes":[],"unique":[],"created_at":"2026-01-01T00:00:00.000Z",'
        b'"updated_at":"2026-01-01T00:00:00.000Z"}\n',
    ),
    "a collection twice": _again("collections.jsonl"),
    "a collection too few": _cut("collections.jsonl"),
    "a collection of a bad name": _swap("collections.jsonl", b'"name":"empty"', b'"name":"../em"'),
    "a schema with a remote reference": _swap(
        "collections.jsonl", b'"schema":null', b'"schema":{"$ref":"http://example.com/x"}'
    ),
    "an organization of another id": _organization(id="org_01hzzzzzzzzzzzzzzzzzzzzzzz"),
    "an organization without name": _organization(name=""),
    "an organization with a hidden character": _organization(name="Ac\u202eme"),
    "an organization with a bad slug": _organization(slug="../../etc"),
    "an organization with a status none has": _organization(status="godmode"),
    **{
        f"an organization that is {status} {suspended_by}": _organization(status=status, suspended_by=suspended_by)
        for status, suspended_by in NO_STATES
    },
    "an organization with large metadata": _organization(metadata={"x": "y" * 20_000}),
    "an organization with a bad external id": _organization(external_id="a\nb"),
    "an organization with a member more": _organization(epoch=99),
    "an organization of no time": _organization(created_at="yesterday"),
    "an organization that is a list": lambda parts: parts.files.update({"organization.json": b"[]"}),
    "another format": _manifest(format="zip.of.somebody"),
    "a later version": _manifest(version=2),
    "a version of true": _manifest(version=True),
    "a manifest with a member more": _manifest(more=1),
    "an id that none has": _manifest(organization_id="../org"),
    "a negative count": _manifest(members=-1),
    "members miscounted": _manifest(members=5),
    "a file that does not belong": lambda parts: parts.files.update({"evil.sh": b"rm -rf /"}),
    "a path that leads elsewhere": lambda parts: parts.files.update({"../../evil.jsonl": b""}),
    "an absolute path": lambda parts: parts.files.update({"/etc/passwd": b""}),
    "a path of backslashes": lambda parts: parts.files.update({"records\\x.jsonl": b""}),
    "records of no collection": lambda parts: parts.files.update({"records/other.jsonl": b""}),
    "no members file": lambda parts: parts.files.pop("members.jsonl"),
    "no records file": lambda parts: parts.files.pop(NOTES),
}
"""What a forger can do who makes all sums right again."""

SHOWN_WHILE_LOADING = {
    "a unique value twice",
    "a value that cannot be indexed",
    "a record that is deep",
    "a record with NUL",
}
"""What only the attempt shows: it is undone, and leaves the row of a failed operation."""


@pytest.mark.parametrize("engine", selected())
async def test_forged_archives_change_nothing(engine: str, tmp_path: Path) -> None:
    async with new_database(engine) as first, new_database(engine) as second:
        async with apps.opened(first) as app:
            shelf = await filled(app)
            await exported(app, shelf.placement.org_id, tmp_path / "good.zip")
        async with apps.opened(second) as app:
            before = await directory(app)
            for name, edit in FORGED.items():
                parts = Parts.of(tmp_path / "good.zip")
                edit(parts)
                parts.relink()
                try:
                    await imported(app, parts.write(tmp_path / "forged.zip"))
                except ArchiveInvalid:
                    pass
                else:
                    pytest.fail(f"{name}: was imported")
                found = await directory(app)
                if name in SHOWN_WHILE_LOADING:
                    assert {o.state for o in await apps.rows(app, tables.operations)} == {OperationState.FAILED}
                    before["operations"] = found["operations"]
                assert found == before, name
            await apps.assert_clean(app)
            assert (await imported(app, tmp_path / "good.zip")).result is Result.CREATED


@pytest.mark.parametrize(("status", "suspended_by"), NO_STATES)
async def test_a_state_that_nothing_exported_has_is_named(
    app: App, archive: Path, status: str, suspended_by: str | None
) -> None:
    shelf = await filled(app)
    await exported(app, shelf.placement.org_id, archive)
    await apps.purged(app, shelf.placement.org_id)
    parts = Parts.of(archive)
    _organization(status=status, suspended_by=suspended_by)(parts)
    parts.relink()
    before = await directory(app)
    with pytest.raises(ArchiveInvalid) as raised:
        await imported(app, parts.write(archive))
    assert raised.value.detail.startswith("organization.json: `")
    assert f"`status` {status}" in raised.value.detail or f"`status` is {status}" in raised.value.detail
    assert "somebody" not in raised.value.detail
    assert await directory(app) == before


@pytest.mark.parametrize("engine", selected())
async def test_damaged_archives_change_nothing(engine: str, tmp_path: Path, seed: int) -> None:
    """Cut anywhere, or with any byte altered: in no archive that is still imported is anything different."""
    async with new_database(engine) as first, new_database(engine) as second:
        async with apps.opened(first) as app:
            shelf = await filled(app)
            await exported(app, shelf.placement.org_id, tmp_path / "good.zip", *TableFormat)
        good = (tmp_path / "good.zip").read_bytes()
        chance = random.Random(seed)
        cuts = [0, 1, 3, 4, 21, len(good) // 2, len(good) - 1, len(good) - 22, len(good) - 23]
        damaged = {f"cut at {at}": good[:at] for at in cuts}
        for place in sample("bytes of an archive that are altered", range(len(good)), 150):
            other = chance.randrange(1, 256)
            damaged[f"byte {place}"] = good[:place] + bytes([good[place] ^ other]) + good[place + 1 :]
        damaged["followed by something"] = good + b"x" * 70_000
        directory_at = int.from_bytes(good[-6:-2], "little")  # files are sought before the beginning where it says more
        damaged["directory further on"] = good[:-6] + (directory_at + 1_000_000).to_bytes(4, "little") + good[-2:]
        damaged["filled with zeros"] = good[:200] + bytes(len(good) - 200)
        reader = archive_files.ArchiveReader(io.BytesIO(good))
        async with apps.opened(second) as app:
            before = await directory(app)
            harmless = 0
            for name, content in damaged.items():
                path = tmp_path / "damaged.zip"
                path.write_bytes(content)
                try:
                    with archive_steps.opened(path) as found:
                        archive_loading.check(found, 1 << 20, lambda _count: None)
                except ArchiveInvalid:
                    with pytest.raises(ArchiveInvalid):
                        await imported(app, path)
                else:
                    # Times and attributes of the ZIP file mean nothing here; everything else is the same.
                    assert found.manifest == reader.manifest, name
                    harmless += 1
            assert harmless < len(damaged) / 3
            assert await directory(app) == before


class Failing(io.BytesIO):
    """An archive on a disk that fails after so many reads."""

    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content)
        self.good = good

    def read(self, size: int | None = -1, /) -> bytes:
        self.good -= 1
        if self.good < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


async def test_a_disk_that_fails_is_no_damaged_archive(damaged: App) -> None:
    shelf = await filled(damaged)
    target = io.BytesIO()
    await archive_export.export(damaged, shelf.placement.org_id, target)
    content = target.getvalue()
    whole = Failing(content, 1_000_000)
    archive_loading.check(archive_files.ArchiveReader(whole), 1 << 20, archive_steps.ignore)
    reads = 1_000_000 - whole.good
    assert reads > 10, "it is read in many pieces: the directory, and each of the files"
    for good in range(reads):
        with pytest.raises(ArchiveUnavailable, match=os.strerror(errno.EIO)):
            archive_loading.check(archive_files.ArchiveReader(Failing(content, good)), 1 << 20, archive_steps.ignore)


@pytest.mark.parametrize("engine", selected())
async def test_bombs_are_not_unpacked(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with new_database(engine) as first, new_database(engine) as second:
        async with apps.opened(first) as app:
            shelf = await filled(app)
            await exported(app, shelf.placement.org_id, tmp_path / "good.zip")
        async with apps.opened(second) as app:
            before = await directory(app)
            bomb = b"\0" * 40_000_000 + b"\n"

            honest = Parts.of(tmp_path / "good.zip")
            honest.files[NOTES] = bomb
            honest.relink()
            monkeypatch.setattr(archive_files, "FREE_BYTES", 1_000_000)
            with pytest.raises(ArchiveInvalid, match="unpack to") as caught:
                await imported(app, honest.write(tmp_path / "bomb.zip"))
            assert caught.value.next is not None
            with pytest.raises(ArchiveInvalid, match="too long"):
                await imported(app, tmp_path / "bomb.zip", large=True)

            lying = Parts.of(tmp_path / "good.zip")
            facts = lying.manifest["files"]
            lying.files[NOTES] = bomb
            with pytest.raises(ArchiveInvalid, match="size"):
                await imported(app, lying.write(tmp_path / "bomb.zip"), large=True)

            content = (tmp_path / "bomb.zip").read_bytes()
            real, said = len(bomb).to_bytes(4, "little"), facts[NOTES]["bytes"].to_bytes(4, "little")
            (tmp_path / "bomb.zip").write_bytes(content.replace(real, said))
            with pytest.raises(ArchiveInvalid):
                await imported(app, tmp_path / "bomb.zip", large=True)

            large = Parts.of(tmp_path / "good.zip")
            large.manifest["more"] = "x" * (archives.MAX_MANIFEST + 1)
            with pytest.raises(ArchiveInvalid, match="more than it may"):
                await imported(app, large.write(tmp_path / "bomb.zip"), large=True)
            assert await directory(app) == before


def _twice(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(NOTES, b"")


def _encrypted(archive: zipfile.ZipFile) -> None:
    archive.getinfo(NOTES).flag_bits |= 1


def _packed(archive: zipfile.ZipFile) -> None:
    archive.getinfo(NOTES).compress_type = zipfile.ZIP_BZIP2


def _overlapping(archive: zipfile.ZipFile) -> None:
    for name in archive.namelist():
        archive.getinfo(name).compress_size += 2**20


@pytest.mark.parametrize("more", [_twice, _encrypted, _packed, _overlapping])
async def test_unusual_zip_files_are_refused(damaged: App, tmp_path: Path, more: Any) -> None:
    shelf = await filled(damaged)
    await exported(damaged, shelf.placement.org_id, tmp_path / "good.zip")
    with pytest.raises(ArchiveInvalid):
        await imported(damaged, Parts.of(tmp_path / "good.zip").write(tmp_path / "odd.zip", more=more))


async def test_foreign_files_are_refused(app: App, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.zip"
    for content in (b"", b"PK\x03\x04", b"external_id,name\n", b"\x1f\x8b" + bytes(100)):
        foreign.write_bytes(content)
        with pytest.raises(ArchiveInvalid):
            await imported(app, foreign)
    for files in ({}, {"word/document.xml": "<x/>"}, {"manifest.json": "{}"}, {"manifest.json": "[]"}):
        with zipfile.ZipFile(foreign, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        with pytest.raises(ArchiveInvalid):
            await imported(app, foreign)


# --- interrupted ------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from orgstead import archive_import, archive_loading
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.config import load
archive_loading.BATCH = 20
archive_loading.ENTRIES = 2
async def main():
    app = await App.open(load(environ=os.environ).settings)
    await archive_import.import_archive(app, Path(sys.argv[1]), OPERATOR, plan=sys.argv[2])
asyncio.run(main())
"""
POINTS = (
    "import.after_intent=kill",
    "import.after_space=kill",
    "import.mid_load=kill@1",
    "import.mid_load=kill@3",
    "import.after_load=kill",
    "import.after_activate=kill",
)


def test_every_failpoint_of_an_import_is_tried() -> None:
    assert {point.partition("=")[0] for point in POINTS} == {
        name for name in failpoints.NAMES if name.startswith("import.")
    }


def killed_at(point: str, database: Database, archive: Path, plan: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(archive), plan],
        env={**os.environ, **database.variables, "ORGSTEAD_FAILPOINTS": point},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


async def archived(engine: str, path: Path) -> Digest:
    async with new_database(engine) as database, apps.opened(database) as app:
        shelf = await filled(app)
        await exported(app, shelf.placement.org_id, path)
        return await digest(app, shelf.placement)


KILLS = [(engine, plan, point) for engine in selected() for plan in KINDS for point in POINTS]


@pytest.mark.parametrize(("engine", "plan", "point"), sample("kills of an import", KILLS, 6))
async def test_an_import_that_is_killed_is_completed_by_running_it_again(
    engine: str, plan: str, point: str, archive: Path
) -> None:
    expected = await archived(engine, archive)
    async with new_database(engine) as database:
        async with apps.opened(database):
            pass  # migrated
        killed_at(point, database, archive, plan)
        watch = apps.Clock()
        async with apps.opened(database, clock=watch) as app:
            if point != "import.after_activate=kill":
                (organization,) = await apps.rows(app, tables.organizations)
                assert organization.status is OrganizationStatus.PROVISIONING
                assert [f.id for f in await apps.findings(app)] in ([], ["I1"]), "the audit chain is whole at any time"
            watch.pass_(2 * operations.LEASE)
            moved = archive.with_name("moved.zip")
            os.replace(archive, moved)
            found = await imported(app, moved, plan=plan)
            assert found.result is (Result.EXISTS if point == "import.after_activate=kill" else Result.RESUMED)
            assert await digest(app, found.located.placement) == expected
            assert len(await _members(app, found.located.organization.id)) == 4
            await apps.assert_clean(app)


@pytest.mark.parametrize("engine", selected())
async def test_an_import_whose_archive_is_gone_is_undone_in_the_end(
    engine: str, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archived(engine, archive)
    async with new_database(engine) as database:
        async with apps.opened(database) as app:
            before = await directory(app)
        killed_at("import.mid_load=kill@3", database, archive, "enterprise")
        os.unlink(archive)
        monkeypatch.setattr(operations, "MAX_ATTEMPTS", 1)
        async with apps.opened(database) as app:
            await apps.recover(app)
            (operation,) = await apps.rows(app, tables.operations)
            assert (operation.state, operation.error) == (OperationState.FAILED, "archive.unavailable")
            after = await directory(app)
            assert {name for name in after if after[name] != before[name]} <= {"operations", "cells"}
            await apps.assert_clean(app)


async def test_another_archive_in_its_place_is_not_imported(damaged: App, tmp_path: Path) -> None:
    """Half of one organization and half of another would be worse than none."""
    shelf = await filled(damaged)
    await exported(damaged, shelf.placement.org_id, tmp_path / "a.zip")
    await shelf.create("notes", {"late": True})
    await exported(damaged, shelf.placement.org_id, tmp_path / "b.zip")

    async def swap() -> None:
        (tmp_path / "b.zip").replace(tmp_path / "a.zip")

    before = await directory(damaged)
    with failpoints.arm("import.after_space", swap), pytest.raises(ArchiveInvalid):
        await imported(damaged, tmp_path / "a.zip")
    found = await directory(damaged)
    assert {name for name in found if found[name] != before[name]} == {"operations"}


async def test_two_at_once_make_one_organization(app: App, elsewhere: App, archive: Path) -> None:
    shelf = await filled(app)
    await exported(app, shelf.placement.org_id, archive)
    other = apps.second_process(elsewhere)
    ended = await asyncio.gather(imported(elsewhere, archive), imported(other, archive), return_exceptions=True)
    assert any(getattr(one, "result", None) in (Result.CREATED, Result.RESUMED) for one in ended), ended
    again = await imported(elsewhere, archive)
    assert again.result is Result.EXISTS
    assert len(await apps.rows(elsewhere, tables.organizations)) == 1
    assert await digest(elsewhere, again.located.placement) == await digest(app, shelf.placement)


# --- how --------------------------------------------------------------------------------------------------------------


async def _located(app: App, org_id: str) -> organizations.Located:
    return await app.storage.read(apps.SCOPE, organizations.get, org_id)


async def _members(app: App, org_id: str) -> set[tuple[str, Role, Any]]:
    users = {user.id: user.email for user in await apps.rows(app, tables.users)}
    found = await apps.rows(app, tables.memberships, org_id=org_id)
    return {(users[m.user_id], m.role, m.created_at) for m in found}


async def _definition(shelf: Shelf, name: str) -> Any:
    return record_definitions.shown(await shelf.read(record_collections.get, name))


async def _suspend(app: App, org_id: str) -> None:
    by = organizations.OPERATOR
    await app.storage.run(apps.SCOPE, organizations.suspend, org_id, by, actor=apps.TESTER, at=app.clock())


async def _close(app: App, org_id: str) -> None:
    grace = timedelta(days=3)
    await app.storage.run(apps.SCOPE, organizations.close, org_id, grace, actor=apps.TESTER, at=app.clock())


async def _give_password(tx: Any, user_id: str) -> None:
    user = await tx.get(tables.users, user_id)
    await tx.replace(tables.users, replace(user, password_hash="argon2-secret"))


async def _add_user(tx: Any, like: Any, user_id: str, email: str) -> None:
    await tx.add(tables.users, replace(like, id=user_id, email=email, email_key=email, password_hash="kept", version=1))


async def _replace(tx: Any, organization: Any) -> None:
    await tx.replace(tables.organizations, organization)


async def _transfer(tx: Any, space: Any, number: int, terms: Any) -> None:
    payer, payee = f"r{number % 40}", f"r{(number * 7 + 1) % 40}"
    if payer == payee:
        return
    await placements.hold(tx, space)  # what is read here is what the change begins from
    found = {record.id: record for record in await records.get_many(tx, space, "accounts", [payer, payee])}
    changes = [
        Change(Op.REPLACE, "accounts", payer, {"balance": found[payer].data["balance"] - 1}),
        Change(Op.REPLACE, "accounts", payee, {"balance": found[payee].data["balance"] + 1}),
    ]
    await records.batch(tx, space, changes, terms)


def _plans(plans: dict[str, Any]) -> Any:
    return Settings(plans=plans).plans
