"""``orgstead api-key``: what an operator sees of an organization's keys, and how one that leaked is ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from orgstead import api_keys, kit, members, organizations
from orgstead.api_keys import Minted, NewApiKey
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.config import load
from orgstead.model import Role, User
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, SystemScope, Transaction
from tests.cli.conftest import Run

SCOPE = SystemScope("test")


async def _owned(tx: Transaction, org_id: str, app: App) -> str:
    """The organization gets an owner."""
    at = app.clock()
    user = User(id=kit.new_id("usr"), email="a@b", email_key="a@b", password_hash="", created_at=at, updated_at=at)
    await tx.add(tables.users, user)
    await members.add(tx, app.settings, org_id, user.id, Role.OWNER, OPERATOR, at)
    return user.id


async def _minted(org: str, *names: str) -> list[Minted]:
    app = await App.open(load().settings)
    try:
        org_id = await app.storage.read(SCOPE, organizations.resolve, org)
        owner = await app.storage.run(SCOPE, _owned, org_id, app)
        made = []
        for name in names:
            new = NewApiKey(name=name, role=Role.VIEWER, expires_at=None, user_id=owner)
            scope, at = OrgScope(org_id), app.clock()
            made.append(await app.storage.run(scope, api_keys.create, app.settings, org_id, new, OPERATOR, at))
        return made
    finally:
        await app.close()


@pytest.fixture
def keys(cli: Run, folder: Path) -> list[Minted]:
    """Three keys of an organization; another has none."""
    assert cli("db", "upgrade").code == 0
    for name in ("Acme", "Other"):
        assert cli("org", "create", name).code == 0
    return asyncio.run(_minted("acme", "export", "nightly", "old"))


def test_keys_are_listed_without_what_they_open_with(cli: Run, keys: list[Minted]) -> None:
    listed = cli("api-key", "list", "--org", "acme", "--json")
    assert [(row["id"], row["name"], row["role"]) for row in json.loads(listed.out)] == [
        (minted.key.id, minted.key.name, "viewer") for minted in keys
    ]
    table = cli("api-key", "list", "--org", "acme")
    for minted in keys:
        for said in (listed.out, table.out):
            assert minted.key.id in said
            assert minted.text not in said
            assert minted.key.secret_hash not in said
    assert len(json.loads(cli("api-key", "list", "--org", "acme", "--limit", "2", "--json").out)) == 2
    assert json.loads(cli("api-key", "list", "--org", "other", "--json").out) == []


def test_a_key_that_leaked_is_ended(cli: Run, keys: list[Minted]) -> None:
    leaked = keys[1].key.id
    unsure = cli("api-key", "delete", leaked, "--org", "acme")
    assert (unsure.code, "--yes" in unsure.err) == (2, True)
    ended = cli("api-key", "delete", leaked, "--org", "acme", "--yes", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) | {"id": leaked, "name": "nightly", "deleted": True} == json.loads(ended.out)
    left = json.loads(cli("api-key", "list", "--org", "acme", "--json").out)
    assert [row["name"] for row in left] == ["export", "old"]
    rows = {row["what"]: row for row in json.loads(cli("usage", "acme", "--json").out)}
    assert rows["api_keys"] == {"what": "api_keys", "used": 2, "limit": 10}
    assert cli("fsck", "--json").code == 0


@pytest.mark.parametrize("which", ["key_01kcy7w2e4g8m3n5p7q9r1s3t5", "nightly", ""])
def test_a_key_that_is_not_there_says_how_to_find_it(cli: Run, keys: list[Minted], which: str) -> None:
    for org in ("acme", "other"):
        missing = cli("api-key", "delete", which, "--org", org, "--yes")
        assert missing.code != 0
        assert "orgstead api-key list --org org_" in missing.err
    foreign = cli("api-key", "delete", keys[0].key.id, "--org", "other", "--yes")
    assert "no API key of this id" in foreign.err
    nowhere = cli("api-key", "list", "--org", "nowhere")
    assert "orgstead org list" in nowhere.err
