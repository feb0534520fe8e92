"""What the engines' examinations have in common: versions, clocks and connections, judged the same way everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from orgstead.findings import Finding, fail, ok, warn

VERSION, RIGHTS, ISOLATION, DURABILITY = "server version", "rights", "isolation", "durability"
CLOCK, CONNECTIONS, PLACEMENTS, TRANSPORT = "server clock", "connections", "placements", "transport"
"""Names of checks."""

CLOCK_TOLERANCE = timedelta(seconds=5)
"""The server's clock is used by nothing of ours, but its logs and ours are read side by side."""

FULL = 0.8
"""The part of a server's connections beyond which other clients get into trouble."""


def clock(server: datetime, asked: datetime, answered: datetime) -> Finding:
    """The server's time, which it gave between ``asked`` and ``answered`` by our clock."""
    if asked - CLOCK_TOLERANCE <= server <= answered + CLOCK_TOLERANCE:
        return ok(CLOCK, "The clocks of this machine and of the server agree.")
    apart = max(asked - server, server - answered).total_seconds()
    return warn(CLOCK, f"The clocks of this machine and of the server are {apart:.0f} s apart.", "timedatectl status")


def connections(wanted: int, allowed: int, remedy: str) -> Finding:
    """Whether the server lets in as many connections as all processes of the service may open."""
    detail = f"The service may open {wanted} of the server's {allowed} connections."
    if wanted > allowed:
        return fail(CONNECTIONS, detail, remedy)
    return warn(CONNECTIONS, detail, remedy) if wanted > FULL * allowed else ok(CONNECTIONS, detail)


def is_before(version: tuple[int, ...], fixed: Mapping[tuple[int, ...], int]) -> bool:
    """Whether the version is of a series whose hole was closed later; ``fixed`` maps a series to its first good one."""
    return any(
        version[: len(series)] == series and version[len(series) :] < (patch,) for series, patch in fixed.items()
    )
