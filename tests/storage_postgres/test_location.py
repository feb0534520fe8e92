"""The URL of a database: what it may say, and what is never repeated of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orgstead.errors import ConfigurationError
from orgstead.storage import describe, open_storage
from orgstead.storage.postgres import location

pytestmark = pytest.mark.anyio


def test_what_a_url_says() -> None:
    place = location.parse("postgresql://some%40one:s%2Fcret@db.example:5433/my%2Ddb?sslmode=verify-full&pool=3")
    assert (place.role, place.pool, place.pooler, place.statements) == ("some@one", 3, False, 512)
    assert place.dsn == "postgresql://some%40one:s%2Fcret@db.example:5433/my%2Ddb?sslmode=verify-full"
    assert place.url == "postgresql://db.example:5433/my%2Ddb"
    assert "cret" not in repr(place)
    assert describe("postgresql://a:b@c/d?pool=1").url == "postgresql://c/d"


def test_behind_a_pooler_statements_are_not_prepared_unless_it_can() -> None:
    assert location.parse("postgresql://a@b/c?pooler=transaction").statements == 0
    assert location.parse("postgresql://a@b/c?pooler=transaction&statements=64").statements == 64
    assert location.parse("postgresql://a@b/c?statements=64&pooler=transaction").statements == 64


def test_several_hosts_and_sockets() -> None:
    assert (
        location.parse("postgresql://a@one,two:5433/c?target_session_attrs=primary").url
        == "postgresql://one,two:5433/c"
    )
    socket = location.parse("postgresql:///c?host=/run/postgresql")
    assert (socket.url, socket.role) == ("postgresql:///c", None)
    for place in ("[::1]", "[::1]:5432", "[::1]:5432,[fe80::1]:65535", "%2Frun%2Fpostgresql", "host:"):
        assert location.parse(f"postgresql://a@{place}/c").url == f"postgresql://{place}/c"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a@b",
        "postgresql://a@b/",
        "postgresql://a@b/c/d",
        "postgresql://a@b/c#d",
        "postgresql://a@b/c?pool=0",
        "postgresql://a@b/c?pool=-1",
        "postgresql://a@b/c?pool=many",
        "postgresql://a@b/c?pooler=session",
        "postgresql://a@b/c?statement_timeout=1",
        "postgresql://a@b/c?user=d",
        "postgresql://a@b/c?options=-c%20app.system%3Don",
        "postgresql://[a@b/c",
        "postgresql://a:pass/word@b/c",
        "postgresql://a:pass#word@b/c",
        "postgresql://a:pass?word@b/c",
        "postgresql://a@b:0/c",
        "postgresql://a@b:65536/c",
        "postgresql://a@b:port/c",
        "postgresql://a@::1/c",
        "postgresql://a@one:5432,two:x/c",
        "postgresql://a@one,two/c?port=5432,x",
        "postgresql://a@b/c?deadline_ms=0",
        "postgresql://a@b/c?statement_timeout_ms=0",
    ],
)
def test_what_no_url_may_say(url: str) -> None:
    """A parameter that the driver would make a setting of the connection, ``app.system`` say, is refused."""
    with pytest.raises(ConfigurationError) as raised:
        location.parse(url)
    assert raised.value.next


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
async def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    """And with it the setting that names it, whichever of the two URLs that is."""
    sound, missing = "postgresql://a:secret@b/c", f"postgresql://a:secret@b/c?{name}={tmp_path}/none.pem"
    for urls, setting in (((missing, None), "ORGSTEAD_DATABASE_URL"), ((sound, missing), "ORGSTEAD_MIGRATION_URL")):
        with pytest.raises(ConfigurationError, match=f"none.pem, which {name} names") as caught:
            await open_storage(urls[0], migration_url=urls[1])
        assert setting in (caught.value.next or "")
        assert "secret" not in f"{caught.value.detail}{caught.value.next}"
    (tmp_path / "none.pem").touch()
    storage = await open_storage(missing)
    await storage.close()
