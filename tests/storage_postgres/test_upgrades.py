"""Databases of earlier versions: what their schema had, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orgstead.errors import SchemaOutdated
from orgstead.model import API_KEY_ID
from orgstead.storage import tables
from orgstead.storage.port import OrgScope
from orgstead.storage.postgres.engine import PostgresStorage
from tests.contract.work import SYSTEM, do
from tests.engines import Database
from tests.rows import org_id, sample, token
from tests.storage_postgres.work import connected, opened

pytestmark = pytest.mark.anyio

_FIRST_ACCESS = """
    DROP TABLE orgstead.api_keys;
    ALTER TABLE orgstead.organizations DROP COLUMN api_keys;
    SET app.system = 'on';
    DELETE FROM orgstead.schema_migrations WHERE version > 1;
    DROP FUNCTION orgstead.access(text[], text[], text[]);
    CREATE FUNCTION orgstead.access(orgs text[], people text[], logins text[])
      RETURNS TABLE (number bigint, o_id text) LANGUAGE sql AS 'SELECT 1::bigint, orgs[1]';
"""
"""A database as version 1 left it: without API keys, its hot read of another type."""


@pytest.fixture
async def storage(database: Database) -> AsyncIterator[PostgresStorage]:
    async with connected(database.migration_url) as owner:
        await owner.execute(_FIRST_ACCESS)
    async with opened(database) as storage:
        yield storage


async def test_a_database_of_version_1_gets_api_keys(storage: PostgresStorage) -> None:
    """Together with the hot read that knows them, and with the rights of the service's role."""
    with pytest.raises(SchemaOutdated):
        await storage.check()
    await storage.migrate()
    await storage.check()
    org = org_id()
    organization = sample(tables.organizations, org, api_keys=0)
    key = sample(tables.api_keys, org, id=token(API_KEY_ID + "x"))
    await do(storage, SYSTEM, "add", tables.organizations, organization)
    await do(storage, OrgScope(org), "add", tables.api_keys, key)
    found = await storage.access(org, "nobody", key.id)
    assert (found.organization, found.api_key) == (organization, key)
    assert await do(storage, OrgScope("other"), "find", tables.api_keys, org_id=org, id=key.id) is None
