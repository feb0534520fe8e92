"""The real lists: every record in, the totals of the file by aggregates, all of it elsewhere with equal digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import real_records
from bench.real_records import COLLECTION, Lists, block
from orgstead import organizations, record_import_many
from orgstead.app import App
from orgstead.archive_import import Result
from orgstead.model import PlacementKind
from orgstead.record_import import Line
from tests import apps
from tests.engines import at_most, for_real, new_database
from tests.support import sample
from tests.use_cases.archived import digest, exported, imported

pytestmark = pytest.mark.anyio

OTHER = {PlacementKind.POOLED: "enterprise", PlacementKind.DEDICATED: "pro"}


def chosen(lists: Lists, engine: str, app: App) -> Lists:
    """A sample of the organizations, larger where there are no round trips; the one with most records is in it."""
    most = at_most(engine, 3000 if app.is_only_writer else 1000)
    largest = max(lists.organizations, key=lambda one: len(lists.records.get(one["external_id"], ())))
    rest = [one for one in lists.organizations if one is not largest]
    return lists.only([largest, *sample(f"organizations of the real lists on {engine}", rest, most)])


@pytest.mark.parametrize("engine", for_real())
async def test_the_real_records_are_imported_completely_and_come_back_elsewhere(
    engine: str, real_data: Path, tmp_path: Path
) -> None:
    async with (
        new_database(engine) as first,
        new_database(engine) as second,
        apps.opened(first) as app,
        apps.opened(second) as elsewhere,
    ):
        lists = chosen(real_records.read(real_data), engine, app)
        names = [one["external_id"] for one in lists.organizations]
        account = await real_records.import_both(app, lists)
        await real_records.compare(app, lists, account, names)
        assert account.differences == []
        assert account.kinds.keys() == set(PlacementKind)
        assert account.totals["count"] == lists.count
        assert account.totals["sum"] == sum(block(row) for rows in lists.records.values() for row in rows)
        again = await real_records.import_both(app, lists)
        assert again.records == {"exists": lists.count}

        # The largest, one of each kind, and some others: out, wiped, and in again on the other kind of placement.
        moved = [names[0], names[real_records.DEDICATED_EVERY], *sample("organizations moved", names[1:], 10)]
        for name in dict.fromkeys(moved):
            await _moved(app, elsewhere, name, tmp_path / f"{name}.zip")
        await real_records.compare(elsewhere, lists, account, list(dict.fromkeys(moved)))
        assert account.differences == []
        await apps.assert_clean(app)
        await apps.assert_clean(elsewhere)


async def _moved(app: App, elsewhere: App, name: str, archive: Path) -> None:
    """Export, wipe, import elsewhere on the other kind of placement: equal digests."""
    org_id = await app.storage.read(apps.SCOPE, organizations.resolve, name)
    before = await app.storage.read(apps.SCOPE, organizations.get, org_id)
    expected = await digest(app, before.placement)
    await exported(app, org_id, archive)
    await apps.purged(app, org_id)
    found = await imported(elsewhere, archive, plan=OTHER[before.placement.kind])
    assert found.result is Result.CREATED
    assert found.located.organization.external_id == name
    assert found.located.placement.kind is not before.placement.kind
    assert await digest(elsewhere, found.located.placement) == expected


@pytest.mark.parametrize("database", for_real(), indirect=True)
async def test_lines_of_many_organizations_are_each_accounted_for(app: App) -> None:
    """Whatever stands in the way of one, the others are written; each line is told in the order of the file."""
    acme = await apps.created(app, "Acme", external_id="x-1")
    bravo = await apps.created(app, "Bravo", "enterprise")
    line = Line
    lines = [
        record_import_many.Addressed("x-1", line(2, {"n": 1}, "a")),
        record_import_many.Addressed("bravo", line(3, {"n": 2}, "a")),
        record_import_many.Addressed("nobody", line(4, {"n": 3}, "a")),
        record_import_many.Addressed("acme", line(5, {"n": 4}, "b")),
        record_import_many.Addressed(bravo.organization.id, line(6, {"n": 5}, "a")),
        record_import_many.Addressed("x-1", line(7, {"n": 6}, "a")),
        record_import_many.Addressed("", line(8, None, unreadable="no line")),
        record_import_many.Addressed("a\0b", line(9, {"n": 7}, "c")),
        record_import_many.Addressed("x-1", line(10, {"n": 8}, "../c")),
        record_import_many.Addressed("\ud800" * 300, line(11, {"n": 9}, "d")),
    ]
    told = [t async for batch in record_import_many.import_records(app, COLLECTION, lines, apps.TESTER) for t in batch]
    assert [one.outcome.line for one in told] == list(range(2, 12))
    results = [one.outcome.result.value for one in told]
    assert results == ["created", "created", "refused", "created", "exists", "exists", *["refused"] * 4]
    assert [one.organization_id for one in told[:3]] == [acme.organization.id, bravo.organization.id, None]
    assert all(one.outcome.reason for one in told if one.outcome.result.value == "refused")


async def test_of_lines_that_name_one_organization_differently_the_earlier_is_written(app: App) -> None:
    """Whichever name were written first as a whole, a line of it would win that should not."""
    acme = await apps.created(app, "Acme", external_id="x-1")
    names = ("acme", "x-1", "x-1", acme.organization.id, acme.organization.id, "acme")
    lines = [record_import_many.Addressed(name, Line(n, {"n": n}, f"r{n // 2}")) for n, name in enumerate(names)]
    told = [t async for batch in record_import_many.import_records(app, COLLECTION, lines, apps.TESTER) for t in batch]
    assert [one.outcome.result.value for one in told] == ["created", "exists"] * 3
    assert [one.organization for one in told] == list(names), "as the lines name them"
    assert {one.organization_id for one in told} == {acme.organization.id}
