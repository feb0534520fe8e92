"""``Storage.examine``: what a MongoDB server says of itself to ``doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from orgstead.findings import Finding, fail, ok, warn
from orgstead.storage import examination
from orgstead.storage.mongodb.client import Server

BLEEDS: Mapping[tuple[int, ...], int] = {(4, 4): 30, (5, 0): 32, (6, 0): 27, (7, 0): 28, (8, 0): 17, (8, 2): 3}
"""Series -> the first release that does not show its memory to whoever can connect (CVE-2025-14847, "MongoBleed")."""

FIXED: Mapping[tuple[int, ...], int] = {(7, 0): 48, (8, 0): 37, (8, 3): 16, (9, 0): 7}
"""Series that are maintained -> the first release without the holes of November 2026 (CVE-2026-120822, 120824: missing
authorization, use after free)."""

FAIRLY_MANY = 10_000
"""Collections and indexes from which the memory and open files of a server that is not large are felt."""


HISTORY, USUAL_HISTORY = "minSnapshotHistoryWindowInSeconds", 300
"""The server's parameter that says for how many seconds a moment can be read, and its value unless set."""


async def examine(server: Server, *, processes: int) -> list[Finding]:
    """Ask as the service's own user; what this user may not ask is left out. ``processes`` share the server."""
    client = server.client
    databases = (server.directory.name, server.data.name)
    asked = datetime.now(UTC)
    hello = await client.admin.command("hello")
    answered = datetime.now(UTC)
    found = [
        _version(tuple((await client.admin.command("buildInfo"))["versionArray"][:3])),
        _deployment(hello),
        await _rights(client, databases),
        _durability(client),
        examination.clock(_aware(hello["localTime"]), asked, answered),
        *await _connections(client, processes),
        *await _history(client),
        await _namespaces(client, databases),
    ]
    return [*found, ok(examination.PLACEMENTS, "Pooled and dedicated.")]


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _version(version: tuple[int, ...]) -> Finding:
    check, name = examination.VERSION, ".".join(map(str, version))
    series = version[:2]
    if examination.is_before(version, BLEEDS) or series < min(BLEEDS):
        detail = f"MongoDB {name} shows its memory to anyone who can connect (CVE-2025-14847)."
        return fail(check, detail, "upgrade the server now, and change what was secret in it")
    if examination.is_before(version, FIXED):
        good = f"{series[0]}.{series[1]}.{FIXED[series[0], series[1]]}"
        return warn(check, f"MongoDB {name} has known holes (CVE-2026-120822).", f"upgrade it to {good}")
    if series not in FIXED and series < max(FIXED):
        maintained = ", ".join(f"{major}.{minor}" for major, minor in FIXED)
        return warn(check, f"MongoDB {name} is of a series that gets no more fixes.", f"upgrade it to {maintained}")
    return ok(check, f"MongoDB {name}.")


def _deployment(hello: Mapping[str, Any]) -> Finding:
    check = "replica set"
    if hello.get("msg") == "isdbgrid":
        return ok(check, "A sharded cluster.")
    if "setName" not in hello:
        return fail(
            check,
            "The server stands alone: it has no transactions.",
            "start mongod with --replSet NAME, then once: mongosh --eval 'rs.initiate()'",
        )
    if not hello.get("isWritablePrimary"):
        return fail(check, "There is no primary that takes writes.", "mongosh --eval 'rs.status()'")
    members = len(hello.get("hosts", ()))
    if members < 3:
        return warn(check, f"{members} of at least 3 nodes: no other takes over when one fails.", "add nodes (rs.add)")
    return ok(check, f"{hello['setName']}, {members} nodes.")


async def _rights(client: AsyncMongoClient[Any], databases: Sequence[str]) -> Finding:
    check = examination.RIGHTS
    info = (await client.admin.command("connectionStatus"))["authInfo"]
    if not info["authenticatedUsers"]:
        detail = "The service is not asked who it is: whoever reaches the server may do everything."
        return warn(check, detail, "start mongod with --auth, and put a user into ORGSTEAD_DATABASE_URL")
    powerful = sorted(
        role["role"] for role in info["authenticatedUserRoles"] if role["db"] == "admin" or role["role"] == "dbOwner"
    )
    if powerful:
        detail = f"The service's user has more rights than it needs: {', '.join(powerful)}."
        return warn(check, detail, f"give it readWrite on {' and '.join(databases)}, and nothing else")
    return ok(check, "The service's user has no rights beyond its databases.")


def _durability(client: AsyncMongoClient[Any]) -> Finding:
    check, concern = examination.DURABILITY, client.write_concern.document
    if concern.get("w") != "majority":
        return fail(check, "Writes do not wait for a majority of the nodes.", "remove w= from the database URL")
    return ok(check, "What is acknowledged is on a majority of the nodes, in their journals.")


async def _connections(client: AsyncMongoClient[Any], processes: int) -> list[Finding]:
    """Needs the right ``serverStatus`` (role ``clusterMonitor``), which a service's user should not have."""
    try:
        status = await client.admin.command("serverStatus")
    except OperationFailure:
        return []
    there = status.get("connections", {})
    at_most = client.options.pool_options.max_pool_size
    if not at_most or not there.get("available"):
        return []  # a server that has none left, and lets us in, does not count them
    allowed = there["current"] + there["available"]
    remedy = "lower maxPoolSize in ORGSTEAD_DATABASE_URL, or http.workers"
    return [examination.connections(processes * int(at_most), allowed, remedy)]


async def _history(client: AsyncMongoClient[Any]) -> list[Finding]:
    """How long a moment can be read, which bounds an export. Needs ``getParameter`` (role ``clusterMonitor``), and a
    server that has the parameter, which a router has not."""
    try:
        answer = await client.admin.command({"getParameter": 1, HISTORY: 1})
    except OperationFailure:
        return []
    return [] if HISTORY not in answer else [_judged_history(int(answer[HISTORY]))]


def _judged_history(seconds: int) -> Finding:
    check, detail = "history", f"A moment can be read for {seconds} s: the longest export of one organization."
    if seconds < USUAL_HISTORY:
        remedy = f"db.adminCommand({{setParameter: 1, {HISTORY}: {USUAL_HISTORY}}}) on every node"
        return warn(check, detail, remedy)
    return ok(check, detail)


async def _namespaces(client: AsyncMongoClient[Any], databases: Sequence[str]) -> Finding:
    """Collections and indexes take memory and an open file each, whether they are used or not."""
    check = "namespaces"
    stats = [await client[database].command("dbStats") for database in databases]
    count = sum(int(part["collections"]) + int(part["indexes"]) for part in stats)
    detail = f"{count} collections and indexes."
    if count >= FAIRLY_MANY:
        return warn(check, detail, "put new organizations on a pooled plan; raise the server's open-file limit")
    return ok(check, detail)
