"""Upkeep that reads everything: digests and figures."""

from __future__ import annotations

import hashlib
from typing import Any

from orgstead.errors import ConfigurationError
from orgstead.storage.mongodb import schema, spaces
from orgstead.storage.mongodb.client import SNAPSHOT, Server
from orgstead.storage.mongodb.documents import all_of
from orgstead.storage.mongodb.transaction import MongoTransaction
from orgstead.storage.port import Digest, Scope, Table

_BATCH = 250
"""Documents that are hashed before others get their turn on the event loop."""


async def digest(server: Server, scope: Scope, table: Table[Any]) -> Digest:
    """``Storage.digest``: the sum of the rows' SHA-256 modulo 2**256, so that no order is needed. Streams the rows."""
    tx = MongoTransaction(server, None, scope, writable=False)
    layout, collection = tx.place(table)
    values = tx.matching(layout, None) or {}
    count, total = 0, 0
    documents = collection.with_options(read_concern=SNAPSHOT).find(all_of(layout.equal(values)), batch_size=_BATCH)
    async for document in documents:
        count += 1
        plain = layout.codec.encode(layout.row(document))
        total += int.from_bytes(hashlib.sha256(layout.codec.canonical(plain)).digest())
    return Digest(count, f"{total % 2**256:064x}")


async def stats(server: Server) -> dict[str, int | float | str]:
    """``Storage.stats``: ``bytes`` is what both databases take on disk, indexes included."""
    schema_version = await schema.version_of(server)  # first, because it says best why a server cannot be asked
    sizes = [await database.command("dbStats") for database in (server.directory, server.data)]
    version = (await server.client.admin.command("buildInfo"))["version"]
    return {
        "server": f"MongoDB {version}",
        "schema_version": schema_version,
        "bytes": sum(int(size.get("storageSize", 0)) + int(size.get("indexSize", 0)) for size in sizes),
        "objects": sum(int(size["objects"]) for size in sizes),
        "collections": sum(int(size["collections"]) for size in sizes),
        "dedicated_spaces": await spaces.count_dedicated(server),
    }


def backup(server: Server) -> None:
    """``Storage.backup``: always raises ``ConfigurationError``; the server has its own tool, and it is not ours."""
    raise ConfigurationError(
        "A MongoDB database is backed up by MongoDB's own tools, which know its replica set and its oplog.",
        next=(
            "mongodump --oplog --gzip --archive=backup.gz --uri=<ORGSTEAD_DATABASE_URL without the database>; it holds"
            f" {server.directory.name} and {server.data.name}"
        ),
    )
