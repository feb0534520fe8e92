"""``postgresql://role:password@host:port/database``: where a database is, with the parameters of its URL."""

from __future__ import annotations

import os
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

_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl")

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
    def tls(self) -> bool:
        """Whether the URL takes no server without TLS."""
        return dict(parse_qsl(urlsplit(self.dsn).query)).get("sslmode") in ("require", "verify-ca", "verify-full")

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
    if "@" in url and "@" not in parts.netloc:
        raise _unusable("A password in a postgresql URL has / ? # and % written as %2F %3F %23 and %25.")
    if not database or "/" in database or "\0" in database or parts.fragment:
        raise _unusable("A postgresql URL ends with the name of one database.")
    credentials, _, place = parts.netloc.rpartition("@")
    ports = [port for name, value in query if name == "port" for port in value.split(",")]
    ports += [host.rpartition("]")[2].partition(":")[2] for host in place.split(",")]
    if not all(map(_is_port, ports)):
        raise _unusable("A port in the postgresql URL is not a number from 1 to 65535.")
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
    if 0 in (ours.get(name) for name in ("pool", "deadline_ms", "statement_timeout_ms")):
        raise _unusable("A pool has at least one connection, and a limit in milliseconds at least one of them.")
    return Location(
        url=f"postgresql://{place}{parts.path}",
        role=unquote(credentials.partition(":")[0]) or None,
        dsn=urlunsplit(parts._replace(query=urlencode(passed_on))),
        **ours,  # type: ignore[arg-type]  # each under its own name
    )


def require_files(place: Location, setting: str) -> None:
    """Raise ``ConfigurationError`` for a file that the URL in ``setting`` names and that cannot be read.

    The driver's own error would be the one of a server that is not there.
    """
    for name, value in parse_qsl(urlsplit(place.dsn).query):
        if name in _FILES and not os.access(value, os.R_OK):
            raise ConfigurationError(
                f"The file {value}, which {name} names, is not there or may not be read.",
                next=f"correct {name} in {setting}, or give the account that runs orgstead the right to read it",
            )


def _is_port(text: str) -> bool:
    """Is the text a port, or left out?"""
    return not text or (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65_536)


def _unusable(detail: str) -> ConfigurationError:
    return ConfigurationError(detail, next=f"set ORGSTEAD_DATABASE_URL to a URL such as {EXAMPLE}")
