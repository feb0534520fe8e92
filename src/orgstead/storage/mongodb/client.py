"""The driver's client, with everything that the promises rest on set explicitly."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from types import MappingProxyType
from typing import Any

import pymongo
from bson import CodecOptions, Int64
from bson.codec_options import TypeDecoder, TypeRegistry
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandListener
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from orgstead.storage.mongodb import failures
from orgstead.storage.mongodb.documents import Document
from orgstead.storage.mongodb.location import Location

Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]

MAJORITY = WriteConcern("majority", j=True)
"""Acknowledged means: in the journal of a majority, so that no failover undoes it."""

COMMITTED = ReadConcern("majority")
SNAPSHOT = ReadConcern("snapshot")
PRIMARY = ReadPreference.PRIMARY

OPERATION_SECONDS = 5.0
"""How long one command may take, with the selection of a server and the driver's own retry."""

_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "appname": "orgstead",
        "connecttimeoutms": 5000,
        "maxconnecting": 4,
        "maxidletimems": 300_000,
        "maxpoolsize": 100,
        "serverselectiontimeoutms": 5000,
        "timeoutms": int(OPERATION_SECONDS * 1000),
        "waitqueuetimeoutms": 2000,
    }
)
"""What the URL may set otherwise, by name in lower case."""


class _Integers(TypeDecoder):
    """64-bit integers come back as plain ones, at any depth: rows know no other type."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC, type_registry=TypeRegistry([_Integers()]))


@dataclass(frozen=True, slots=True)
class Server:
    """A client and the two databases that are used through it. Belongs to the event loop that it was made in."""

    client: AsyncMongoClient[Document]
    directory: Database
    data: Database
    snapshot_reads: bool


def connect(place: Location, *, listeners: Sequence[CommandListener] = ()) -> Server:
    """A client of the servers at ``place``; nothing is sent yet. ``listeners`` hear of every command.

    Raises ``ConfigurationError`` for a bad URL.
    """
    options = {name: value for name, value in _DEFAULTS.items() if name not in place.given}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a parameter that is not understood would be left out
            client = _client(place, options, listeners)
    except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
        raise failures.unusable(error) from error
    return Server(client, _database(client, place.directory), _database(client, place.data), place.snapshot_reads)


@asynccontextmanager
async def patient(client: AsyncMongoClient[Document], seconds: float) -> AsyncIterator[None]:
    """Let the commands of the block take ``seconds`` together instead of the usual time each.

    A server that takes writes is waited for only as long as usual: within the block the driver would wait as long.
    """
    await client.is_primary
    with pymongo.timeout(seconds):
        yield


def _client(
    place: Location, options: Mapping[str, Any], listeners: Sequence[CommandListener]
) -> AsyncMongoClient[Document]:
    return AsyncMongoClient(
        place.uri,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        readPreference="primary",
        retryWrites=True,
        retryReads=True,
        tz_aware=True,
        uuidRepresentation="standard",
        event_listeners=listeners,
        **options,
    )


def _database(client: AsyncMongoClient[Document], name: str) -> Database:
    return client.get_database(
        name, codec_options=CODEC, read_preference=PRIMARY, write_concern=MAJORITY, read_concern=COMMITTED
    )
