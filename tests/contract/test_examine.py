"""What an engine tells of its server for ``doctor``."""

from __future__ import annotations

from orgstead.findings import Status
from orgstead.storage.port import OrgScope, Storage
from orgstead.storage.tables import memberships
from tests.contract.work import do, rows_of
from tests.engines import Database
from tests.rows import org_id, sample

MANY = 10**6


async def test_a_server_of_the_tests_is_fit_and_says_what_it_offers(storage: Storage) -> None:
    """Nothing fails on a server that the suite passes on; durability and placements are always told."""
    found = await storage.examine(processes=1)
    assert [finding for finding in found if finding.status is Status.FAIL] == []
    assert {"durability", "placements"} <= {finding.check for finding in found}
    assert all(finding.detail.endswith(".") for finding in found)
    assert all(finding.next for finding in found if finding.status is Status.FAIL)


async def test_an_examination_changes_nothing(storage: Storage) -> None:
    """It may be repeated, beside others at work."""
    org = org_id()
    row = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, row)
    first, second = await storage.examine(processes=2), await storage.examine(processes=2)
    assert [(finding.check, finding.status) for finding in first] == [(f.check, f.status) for f in second]
    assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def test_a_database_without_a_schema_can_be_examined(fresh: Database) -> None:
    """``doctor`` is asked when something is wrong."""
    async with fresh.opened(migrated=False) as storage:
        assert await storage.examine(processes=1)


async def test_more_processes_are_never_better(storage: Storage) -> None:
    """Where connections are counted at all, no server has them for a million processes."""
    one, many = await storage.examine(processes=1), await storage.examine(processes=MANY)
    status = {finding.check: finding.status for finding in many}
    assert {finding.check for finding in one} == set(status)
    assert status.get("connections", Status.FAIL) is Status.FAIL
