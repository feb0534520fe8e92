"""Errors that the server is told to give: retried within the deadline, told as unavailable, or told to be unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from orgstead.errors import InvalidValue, OutcomeUnknown, StorageBusy, StorageError, StorageFull, StorageReadOnly
from orgstead.model import Membership
from orgstead.storage.mongodb import units
from orgstead.storage.mongodb.engine import MongoStorage
from orgstead.storage.port import OrgScope, Transaction
from orgstead.storage.tables import memberships, records
from tests.contract.work import do, rows_of
from tests.engines import Database
from tests.rows import org_id, sample
from tests.servers.mongodb import STAND_IN
from tests.storage_mongodb.work import Commands, dedicated, failing, opened

WRITE_CONFLICT = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
NO_SUCH_TRANSACTION = {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}
LOCKED = {"errorCode": 24, "errorLabels": ["TransientTransactionError"]}
CLOSED = {"closeConnection": True}
UNCERTAIN = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}


@pytest.fixture
def row() -> Membership:
    return sample(memberships, org_id())


async def add(storage: MongoStorage, row: Membership) -> list[int]:
    """Add the row; how often the work ran."""
    runs: list[int] = []

    async def work(tx: Transaction) -> None:
        runs.append(len(runs))
        await tx.add(memberships, sample(memberships, row.org_id))
        await tx.add(memberships, row)

    await storage.run(OrgScope(row.org_id), work)
    return runs


async def count(storage: MongoStorage, row: Membership) -> int:
    return len(await rows_of(storage, OrgScope(row.org_id), memberships))


@pytest.mark.parametrize("error", [WRITE_CONFLICT, LOCKED, CLOSED], ids=["conflict", "locked", "closed"])
async def test_what_left_nothing_behind_is_done_again(
    database: Database, storage: MongoStorage, row: Membership, error: dict[str, Any]
) -> None:
    """``TransientTransactionError``: the whole unit runs again, and its effect is there once."""
    async with failing(database.url, "insert", 2, **error):
        assert len(await add(storage, row)) == 3
    assert await count(storage, row) == 2


@pytest.mark.parametrize("error", [WRITE_CONFLICT, CLOSED], ids=["conflict", "closed"])
async def test_what_does_not_stop_failing_changed_nothing(
    database: Database,
    storage: MongoStorage,
    row: Membership,
    error: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise 8: after the deadline it is 503, by our own error, with nothing changed."""
    monkeypatch.setattr(units, "UNIT_SECONDS", 0.3)
    async with failing(database.url, "insert", 10_000, **error):
        with pytest.raises(StorageBusy if error is WRITE_CONFLICT else StorageError) as raised:
            await add(storage, row)
    assert not isinstance(raised.value, OutcomeUnknown)
    assert await count(storage, row) == 0


@pytest.mark.parametrize("error", [CLOSED, UNCERTAIN], ids=["closed", "write concern"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_commit_is_asked_about_until_its_outcome_is_known(
    database: Database, storage: MongoStorage, row: Membership, error: dict[str, Any], times: int
) -> None:
    """``UnknownTransactionCommitResult``: the commit is repeated, the work is not."""
    async with failing(database.url, "commitTransaction", times, **error):
        assert len(await add(storage, row)) == 1
    assert await count(storage, row) == 2


@pytest.mark.parametrize("error", [CLOSED, UNCERTAIN], ids=["closed", "write concern"])
async def test_an_outcome_that_stays_unknown_is_said_to_be_unknown(
    database: Database,
    storage: MongoStorage,
    row: Membership,
    error: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise 8: never "it failed", for it may have been done."""
    monkeypatch.setattr(units, "COMMIT_SECONDS", 0.3)
    async with failing(database.url, "commitTransaction", 10_000, **error):
        with pytest.raises(OutcomeUnknown):
            await add(storage, row)
    assert await count(storage, row) in (0, 2)


async def test_a_commit_that_finds_no_transaction_runs_the_unit_again(
    database: Database, storage: MongoStorage, row: Membership
) -> None:
    async with failing(database.url, "commitTransaction", 1, **NO_SUCH_TRANSACTION):
        assert len(await add(storage, row)) == 2
    assert await count(storage, row) == 2


async def test_a_conflict_that_the_work_hides_is_retried_all_the_same(
    database: Database, storage: MongoStorage, row: Membership
) -> None:
    """Promise 3 meets promise 2: what a verb ran into decides, whatever the work made of its error."""
    runs: list[int] = []

    async def hides(tx: Transaction) -> str:
        runs.append(1)
        try:
            await tx.add(memberships, row)
        except StorageError:
            return "hidden"
        return "added"

    async with failing(database.url, "insert", 1, **WRITE_CONFLICT):
        assert await storage.run(OrgScope(row.org_id), hides) == "added"
    assert len(runs) == 2
    assert await count(storage, row) == 1


REFUSED = [(14031, StorageFull), (13, StorageReadOnly), (8000, StorageError), (1, StorageError)]


@pytest.mark.parametrize(("code", "ours"), REFUSED)
async def test_no_text_of_the_server_gets_through(
    database: Database, storage: MongoStorage, row: Membership, code: int, ours: type[StorageError]
) -> None:
    """R43: our errors, their text in the cause only."""
    async with failing(database.url, "insert", 1, errorCode=code):
        with pytest.raises(ours) as raised:
            await add(storage, row)
    assert isinstance(raised.value.__cause__, PyMongoError)
    assert "failpoint" not in raised.value.detail
    assert await count(storage, row) == 0


async def test_reads_survive_a_lost_connection(
    database: Database, storage: MongoStorage, row: Membership, commands: Commands
) -> None:
    await add(storage, row)
    async with failing(database.url, "find", 1, **CLOSED):
        assert await count(storage, row) == 2
    async with failing(database.url, "aggregate", 1, **CLOSED):
        assert (await storage.access(row.org_id, row.user_id, "none")).membership == row


TOO_OLD = {"errorCode": 239}


async def test_a_moment_that_is_gone_is_told_with_what_to_do(
    database: Database, storage: MongoStorage, row: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan that takes longer than the server keeps a moment is not "busy": waiting does not help."""
    monkeypatch.setattr(units, "UNIT_SECONDS", 0.3)
    async with failing(database.url, "find", 10_000, **TOO_OLD):
        with pytest.raises(StorageError) as raised:
            await storage.scan(OrgScope(row.org_id), page)
    assert not isinstance(raised.value, StorageBusy)
    assert "minSnapshotHistoryWindowInSeconds" in (raised.value.next or "")


async def test_a_moment_that_was_gone_is_read_anew(database: Database, storage: MongoStorage, row: Membership) -> None:
    await add(storage, row)
    async with failing(database.url, "find", 1, **TOO_OLD):
        assert len(await storage.scan(OrgScope(row.org_id), page)) == 2


async def page(tx: Transaction) -> list[Membership]:
    return await tx.page(memberships, limit=10)


@pytest.mark.parametrize("verb", ["page", "aggregate", "find_many", "find"])
async def test_a_scan_may_take_longer_than_a_read(
    database: Database, row: Membership, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command of a scan may be about everything there is."""
    monkeypatch.setattr(units, "UNIT_SECONDS", 0.3)
    key = (row.org_id, row.user_id)
    asked: dict[str, Any] = {
        "page": lambda tx: tx.page(memberships, limit=10),
        "aggregate": lambda tx: tx.aggregate(memberships),
        "find_many": lambda tx: tx.find_many(memberships, [key]),
        "find": lambda tx: tx.find(memberships, org_id=row.org_id, user_id=row.user_id),
    }
    url = database.url.replace(STAND_IN, "snapshotReads=false")
    url += ("&" if "?" in url else "?") + "timeoutMS=500"
    slow = {"blockConnection": True, "blockTimeMS": 1000}
    command = "aggregate" if verb == "aggregate" else "find"
    async with opened(url) as storage:
        await storage.check()  # connected
        async with failing(database.url, command, 1, **slow):
            assert await storage.scan(OrgScope(row.org_id), asked[verb]) is not NotImplemented
        async with failing(database.url, command, 100, **slow):
            with pytest.raises(StorageError):
                await storage.read(OrgScope(row.org_id), asked[verb])


async def test_a_row_that_is_too_large_is_told_as_that(storage: MongoStorage) -> None:
    """A document has at most 16 MB: the row is refused by a word about its size, and changes nothing."""
    space = dedicated()
    await storage.create_space(space)
    row = replace(sample(records, space.org_id), data={"text": "x" * 20_000_000})
    with pytest.raises(InvalidValue, match="16 MB"):
        await do(storage, space, "add", records, row)
    assert await rows_of(storage, space, records) == []
