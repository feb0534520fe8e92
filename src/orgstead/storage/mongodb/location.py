"""``mongodb://user:password@host/name?parameters``: where a database is, and what its parameters may say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from orgstead.errors import ConfigurationError

EXAMPLE = "mongodb://localhost/orgstead?replicaSet=rs0"
DIRECTORY = "orgstead"
"""The directory's name where the URL gives none."""

_NAME = re.compile(r"[a-z0-9_-]{1,50}")
_SERVERS_OWN = frozenset({"admin", "config", "local"})

_OURS = frozenset(
    {
        *("w", "wtimeoutms", "journal", "fsync", "retrywrites", "retryreads"),
        *("readconcernlevel", "readpreference", "readpreferencetags", "maxstalenessseconds"),
        *("tz_aware", "tzinfo", "uuidrepresentation", "datetime_conversion", "unicode_decode_error_handler"),
    }
)
"""Parameters that orgstead decides: nothing acknowledged is lost, nothing read that could be, or as another value."""

_SNAPSHOT_READS = "snapshotreads"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is and how it is opened. ``url`` carries neither credentials nor parameters.

    ``uri`` is what the driver gets. ``directory`` is the database of the directory (organizations, users,
    memberships …), ``data`` the one of the spaces. ``given`` are the names of the parameters in ``uri``, in lower case.
    ``snapshot_reads`` is False for servers that take the read concern "snapshot" outside of transactions without
    keeping to it: reads are transactions then, at one more round trip each.
    """

    url: str
    uri: str
    directory: str
    given: frozenset[str] = frozenset()
    snapshot_reads: bool = True

    @property
    def data(self) -> str:
        return f"{self.directory}_data"


def parse(url: str) -> Location:
    """The place that ``url`` names. Raises ``ConfigurationError`` where it names none, or weakens what is promised.

    Its parameters are the driver's, without those that orgstead sets itself, and ``snapshotReads=false``.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong("The hosts in the mongodb URL are not valid.") from None
    hosts = parts.netloc.rpartition("@")[2]
    name = unquote(parts.path.removeprefix("/")) or DIRECTORY
    if not hosts or parts.fragment:
        raise _wrong("A mongodb URL names at least one host: mongodb://host:port/database.")
    if not _NAME.fullmatch(name) or name in _SERVERS_OWN:
        raise _wrong("The database in a mongodb URL is named with a-z, 0-9, _ and -, and is none of the server's own.")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    given = frozenset(parameter.lower() for parameter, _ in parameters)
    if given & _OURS:
        raise ConfigurationError(
            "orgstead sets concerns, read preference, retries and how values are read itself.",
            next=f"remove {', '.join(sorted(given & _OURS))} from ORGSTEAD_DATABASE_URL",
        )
    snapshot_reads = True
    for parameter, value in parameters:
        if parameter.lower() == _SNAPSHOT_READS:
            if value not in ("true", "false"):
                raise _wrong("The parameter snapshotReads is true or false.")
            snapshot_reads = value == "true"
    query = urlencode([(parameter, value) for parameter, value in parameters if parameter.lower() != _SNAPSHOT_READS])
    return Location(
        url=f"{parts.scheme}://{hosts}/{name}",
        uri=f"{parts.scheme}://{parts.netloc}/{parts.path.removeprefix('/')}{'?' if query else ''}{query}",
        directory=name,
        given=given - {_SNAPSHOT_READS},
        snapshot_reads=snapshot_reads,
    )


def _wrong(detail: str) -> ConfigurationError:
    return ConfigurationError(detail, next=f"set ORGSTEAD_DATABASE_URL to a URL such as {EXAMPLE}")
