"""A connection lost before COMMIT is nothing to the caller; one lost at COMMIT is told as it is, and never repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orgstead.errors import OutcomeUnknown
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Transaction
from orgstead.storage.postgres.engine import PostgresStorage
from tests.engines import new_database, selected
from tests.rows import org_id, sample
from tests.storage_postgres.interruption import Interruption, Moment, count_questions

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("postgres" not in selected(), reason="postgres is not among ORGSTEAD_TEST_ENGINES"),
]

ROWS = 3
MOST = 20


@pytest.fixture(scope="module")
async def storage(anyio_backend: str) -> AsyncIterator[PostgresStorage]:
    with pytest.MonkeyPatch.context() as patch:
        count_questions(patch)
        async with new_database("postgres") as database, database.opened() as opened:
            assert isinstance(opened, PostgresStorage)
            yield opened


async def ids(tx: Transaction) -> list[str]:
    return [row.id for row in await tx.page(tables.events, limit=100)]


@pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name.lower())
async def test_a_connection_lost_at_any_question_of_a_unit(storage: PostgresStorage, moment: Moment) -> None:
    met = set()
    for at in range(1, MOST):
        org, ran = org_id(), 0

        async def work(tx: Transaction, org: str) -> str:
            nonlocal ran
            ran += 1
            for _ in range(ROWS):
                await tx.add(tables.events, sample(tables.events, org))
            return "done"

        plan = Interruption(at, moment, loses=True)
        with plan.planned():
            try:
                assert await storage.run(OrgScope(org), work, org) == "done"
                unknown = False
            except OutcomeUnknown:
                unknown = True
        stored = len(await storage.read(OrgScope(org), ids))
        if not plan.hit:
            assert (ran, stored) == (1, ROWS)
            break
        lost_at = plan.asked[at - 1].partition(" ")[0]
        met.add(lost_at)
        assert unknown == (lost_at == "COMMIT")
        assert stored in ((0, ROWS) if unknown else (ROWS,))
        assert not (unknown and moment is not Moment.UNDER_WAY) or stored == (ROWS if moment is Moment.ANSWERED else 0)
        assert ran == (1 if unknown or lost_at in ("connect", "BEGIN") else 2)
    assert {"BEGIN", "INSERT", "COMMIT"} <= met


@pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name.lower())
async def test_a_connection_lost_at_any_question_of_a_reader_is_made_anew(
    storage: PostgresStorage, moment: Moment
) -> None:
    org = org_id()
    await storage.run(OrgScope(org), lambda tx: tx.add(tables.events, sample(tables.events, org)))
    for ask in (
        lambda: storage.read(OrgScope(org), ids),
        lambda: storage.scan(OrgScope(org), ids),
        lambda: storage._accesses(storage._here().units, [(org, "usr", "ses")]),
    ):
        for at in range(1, MOST):
            plan = Interruption(at, moment, loses=True)
            with plan.planned():
                assert await ask()
            if not plan.hit:
                break
        assert at > 1
