"""``postgresql://role:password@host:port/database``: where a database is, with the parameters of its URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from orgstead.errors import ConfigurationError

EXAMPLE = "postgresql://orgstead_app:PASSWORD@localhost/orgstead"

_PASSED_ON = frozenset(
    (
        *("host", "port", "passfile", "krbsrvname", "gsslib", "target_session_attrs"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    )
)
"""The parameters of libpq that the driver understands."""

_NUMBERS = ("pool", "statements", "deadline_ms", "statement_timeout_ms")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is and how it is used.

    ``url`` carries neither credentials nor parameters, ``role`` is the user's name if the URL says it, and ``dsn`` is
    what the driver gets. ``pool`` is how many connections each event loop may have, ``deadline_ms`` how long a unit
    of work is tried again for, and a connection waited for. ``pooler`` says that another program (PgBouncer) gives us a
    connection for one transaction at a time. ``statements`` is how many prepared statements a connection keeps.
    """

    url: str
    role: str | None
    dsn: str = field(repr=False)
    pool: int = 10
    deadline_ms: int = 5000
    statement_timeout_ms: int = 30_000
    pooler: bool = False
    statements: int = 512

    @property
    def deadline(self) -> float:
        """``deadline_ms`` in seconds."""
        return self.deadline_ms / 1000


def parse(url: str) -> Location:
    """The place that ``url`` names.

    Parameters of our own: ``pooler=transaction``, ``pool``, ``statements``, ``deadline_ms`` and
    ``statement_timeout_ms``; those of libpq about TLS, hosts and password files are passed on. Raises
    ``ConfigurationError``.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise _unusable("The postgresql URL cannot be read.") from None
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database or "\0" in database or parts.fragment:
        raise _unusable("A postgresql URL ends with the name of one database.")
    credentials, _, place = parts.netloc.rpartition("@")
    ours: dict[str, int | bool] = {}
    passed_on: list[tuple[str, str]] = []
    for name, value in query:
        if name in _NUMBERS and value.isascii() and value.isdigit() and len(value) < 10:
            ours[name] = int(value)
        elif name == "pooler" and value == "transaction":
            ours.update(pooler=True, statements=ours.get("statements", 0))
        elif name in _PASSED_ON:
            passed_on.append((name, value))
        else:
            known = ", ".join(("pooler=transaction", *_NUMBERS))
            raise _unusable(
                f"A postgresql URL takes {known} (whole numbers) and libpq's parameters about TLS and hosts."
            )
    if ours.get("pool") == 0:
        raise _unusable("A pool has at least one connection.")
    return Location(
        url=f"postgresql://{place}{parts.path}",
        role=unquote(credentials.partition(":")[0]) or None,
        dsn=urlunsplit(parts._replace(query=urlencode(passed_on))),
        **ours,  # type: ignore[arg-type]  # each under its own name
    )


def _unusable(detail: str) -> ConfigurationError:
    return ConfigurationError(detail, next=f"set ORGSTEAD_DATABASE_URL to a URL such as {EXAMPLE}")
