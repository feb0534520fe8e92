"""What a mongodb URL may say."""

from __future__ import annotations

import pytest

from orgstead.errors import ConfigurationError
from orgstead.storage import describe, open_storage
from orgstead.storage.mongodb.location import parse


@pytest.mark.parametrize(
    ("url", "shown", "uri"),
    [
        ("mongodb://localhost", "mongodb://localhost/orgstead", "mongodb://localhost/"),
        ("mongodb://localhost/", "mongodb://localhost/orgstead", "mongodb://localhost/"),
        (
            "mongodb://u:p%40s@a:1,b:2/prod?replicaSet=rs0&snapshotReads=false",
            "mongodb://a:1,b:2/prod",
            "mongodb://u:p%40s@a:1,b:2/prod?replicaSet=rs0",
        ),
        ("mongodb+srv://u:p@cluster.example/a-b_1", "mongodb+srv://cluster.example/a-b_1", None),
    ],
)
def test_a_place(url: str, shown: str, uri: str | None) -> None:
    place = parse(url)
    assert place.url == describe(url).url == shown
    assert place.uri == (uri or url)
    assert place.data == place.directory + "_data"
    assert place.snapshot_reads == ("snapshotReads=false" not in url)
    assert describe(url).concurrent


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://",
        "mongodb:///orgstead",
        "mongodb://localhost/Orgstead",
        "mongodb://localhost/a.b",
        "mongodb://localhost/a$b",
        "mongodb://localhost/admin",
        "mongodb://localhost/local",
        "mongodb://localhost/" + "x" * 51,
        "mongodb://localhost/a/b",
        "mongodb://localhost/a#b",
        "mongodb://localhost/a?snapshotReads=maybe",
        "mongodb://[::1:27017/a",
    ],
)
def test_no_place(url: str) -> None:
    """Names differ not by case only (P16), and none is the server's own."""
    with pytest.raises(ConfigurationError) as raised:
        parse(url)
    assert "ORGSTEAD_DATABASE_URL" in (raised.value.next or "")


@pytest.mark.parametrize(
    "weaker",
    [
        *("w=1", "W=0", "%77=0", "journal=false", "readConcernLevel=local", "readPreference=nearest"),
        *("readPreferenceTags=dc:ny", "maxStalenessSeconds=120", "tz_aware=false", "uuidRepresentation=pythonLegacy"),
        *("datetime_conversion=datetime_ms", "unicode_decode_error_handler=ignore"),
    ],
)
def test_no_url_weakens_what_is_promised(weaker: str) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        parse(f"mongodb://localhost/a?{weaker}")


@pytest.mark.parametrize(
    "parameter",
    [
        *("nonsense=1", "j=false", "timeoutMS=abc", "maxPoolSize=-1", "waitQueueTimeoutMS=-1", "authMechanism=NONE"),
        *("tls=true&tlsCAFile=/nowhere/ca.pem", "readPreference%20=secondary", "replicaSet=rs0&loadBalanced=true"),
    ],
)
async def test_a_parameter_that_would_be_left_out_is_refused(parameter: str) -> None:
    """The driver warns of such a parameter and goes on without it."""
    with pytest.raises(ConfigurationError) as raised:
        await open_storage(f"mongodb://localhost/a?{parameter}")
    assert "ORGSTEAD_DATABASE_URL" in (raised.value.next or "")
