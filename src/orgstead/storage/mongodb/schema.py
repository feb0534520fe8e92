"""The schema of a database: which version it has, and bringing it to this one.

Collections and indexes are made here, ahead of their first use, and never inside a transaction. Every step may be
repeated and raced; a version is recorded when all of its steps are done.
"""

from __future__ import annotations

from typing import Any

from bson import Int64
from pymongo import IndexModel
from pymongo.errors import OperationFailure, PyMongoError

from orgstead.errors import ConfigurationError
from orgstead.kit import Clock
from orgstead.storage import migrations
from orgstead.storage.mongodb import failures
from orgstead.storage.mongodb.client import Collection, Database, Server
from orgstead.storage.mongodb.documents import Document, Layout, layout_of
from orgstead.storage.port import Home

HISTORY = "schema_migrations"
OLDEST = (6, 0)
"""The first MongoDB that orgstead is made for."""


async def require_transactions(server: Server, *, writable: bool) -> None:
    """Raise ``ConfigurationError`` unless the server is of a replica set or a sharded cluster, and new enough.

    ``StorageReadOnly`` where it is to be ``writable`` and takes no writes: a secondary that the URL leads to directly.
    """
    try:
        hello = await server.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise failures.standalone()
        version = str((await server.client.admin.command("buildInfo"))["version"])
    except PyMongoError as error:
        raise failures.at_start(error) from error
    if writable and not hello.get("isWritablePrimary"):
        raise failures.secondary()
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise ConfigurationError(
            f"The server is MongoDB {version}, which is too old.",
            next=f"use MongoDB {'.'.join(map(str, OLDEST))} or newer",
        )


async def version_of(server: Server) -> int:
    """The newest migration that was applied, 0 for a new database. Raises ``ConfigurationError`` for a foreign one."""
    try:
        newest = await server.directory[HISTORY].find_one(sort=[("_id", -1)])
        if newest is not None:
            return int(newest["_id"])
        names = await server.directory.list_collection_names()
    except PyMongoError as error:
        raise failures.at_start(error) from error
    if names and HISTORY not in names:
        raise ConfigurationError(
            "The database is of another program.", next="name another database in ORGSTEAD_DATABASE_URL"
        )
    return 0


async def check(server: Server, *, writable: bool) -> None:
    """Raise ``SchemaOutdated`` or ``SchemaTooNew`` unless the database has this version's schema."""
    if await pending(server, writable=writable):
        raise failures.outdated()


async def pending(server: Server, *, writable: bool) -> tuple[migrations.Migration, ...]:
    """What ``migrate`` would apply. Raises ``SchemaTooNew``, and ``ConfigurationError`` for a server or a database that
    is of no use."""
    await require_transactions(server, writable=writable)
    return migrations.pending(await version_of(server))


async def migrate(server: Server, clock: Clock) -> int:
    """Apply the migrations that are missing; returns the schema's version."""
    missing = await pending(server, writable=True)
    try:
        await create(server.directory, HISTORY)
        for migration in missing:
            for table in migration.creates:
                database = server.data if table.home is Home.SPACE else server.directory
                await create(database, table.name, layout_of(table))
            for column in migration.adds:
                lacking, given = {column.name: {"$exists": False}}, {column.name: Int64(column.default)}
                await server.directory[column.table.name].update_many(lacking, {"$set": given})
            applied = {"title": migration.title, "applied_at": clock()}
            await server.directory[HISTORY].update_one(
                {"_id": Int64(migration.version)}, {"$setOnInsert": applied}, upsert=True
            )
    except PyMongoError as error:
        raise failures.at_start(error) from error
    return migrations.SCHEMA_VERSION


async def create(database: Database, name: str, *layouts: Layout[Any]) -> Collection:
    """Make a collection with the indexes of what lies in it; does nothing where it is there."""
    indexes: list[Document] = [index for layout in layouts for index in layout.indexes()]
    collection = database[name]
    if indexes:
        await collection.create_indexes([_model(index) for index in indexes])
        return collection
    try:
        await database.command("create", name)
    except OperationFailure as error:
        if not failures.has_code(error, failures.NAMESPACE_EXISTS):
            raise
    return collection


def _model(index: Document) -> IndexModel:
    return IndexModel(list(index["key"].items()), **{name: value for name, value in index.items() if name != "key"})
