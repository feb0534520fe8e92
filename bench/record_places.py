"""Places with records: made-up ones, shaped like the real list of assignments, in one indexed collection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from bench import places
from bench.load import request
from bench.options import Options
from bench.places import Member, external_id, settings_in
from bench.real_records import block
from orgstead import record_collections, record_definitions, record_import_many
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.record_batches import terms_of
from orgstead.record_import import Line, Result
from orgstead.record_import_many import Addressed

COLLECTION = "assignments"
_DEFINITION = record_definitions.parse(indexes=[["registry", "block"]])
_BLOCKS = 2**24
_SEED = 20_261_125
"""Of the records of every place: those that are kept must be the same however often their making is taken up."""

_STREETS = ("Buchanan Loop", "PROTOTYPE DRIVE", "West Tasman Drive", "Hauptstrasse", "Science Park Road", "Nanjing Rd")
_TOWNS = (
    "Ferndale WA US 98248",
    "San Jose CA US 94568",
    "Berlin DE 10115",
    "Singapore SG 118222",
    "Shenzhen CN 518057",
)

Row = Mapping[str, str]


def rows(count: int, seed: int = _SEED) -> Iterator[Row]:
    """Lines like those of the real list, each of another assignment, in no order."""
    random = Random(seed)
    for number in random.sample(range(_BLOCKS), count):
        yield {
            "assignment": f"{number:06X}",
            "registry": random.choice(("MA-L", "MA-M", "MA-S")),
            "address": f"{random.randrange(1, 9999)} {random.choice(_STREETS)} {random.choice(_TOWNS)}",
        }


def data_of(row: Row) -> dict[str, Any]:
    """The data of the record of a line; its id is the assignment."""
    return {"registry": row["registry"], "address": row["address"], "block": block(row)}


def fresh(options: Options, name: str, *, organizations: int, records: int) -> Path:
    """A new place with so many organizations on ``free``, each with the same records, so many."""
    place = places.fresh(options, name)
    places.fill(place, organizations)
    asyncio.run(_fill(place, [external_id(number + 1) for number in range(organizations)], records))
    return place


def filled(options: Options, records: int) -> Path:
    """A place with one organization on ``pro`` and so many records; made once and kept, because that takes long.

    One whose making was interrupted is filled further: an import that is run again goes on.
    """

    def fill(place: Path) -> None:
        places.fill(place, 1, plan="pro")
        asyncio.run(_fill(place, [external_id(1)], records))

    return places.kept(options, f"{records}-records", fill)


def path_of(owner: Member, collection: str = COLLECTION) -> str:
    """The path of a collection in the owner's organization."""
    return f"/v1/organizations/{owner.org_id}/collections/{collection}"


def page_requests(owner: Member, count: int, random: Random) -> Sequence[bytes]:
    """Requests for the first page of records of one registry from some block on, in the order of an index.

    The block is in the lower half, so that even of a thousand records enough follow it.
    """
    return [request("POST", f"{path_of(owner)}/query", token=owner.token, body=_query(random)) for _ in range(count)]


def _query(random: Random) -> Mapping[str, Any]:
    registry = {"field": "registry", "eq": random.choice(("MA-L", "MA-M", "MA-S"))}
    begin = {"field": "block", "gte": random.randrange(_BLOCKS // 2)}
    return {"where": {"and": [registry, begin]}, "order": ["block"], "limit": 50}


async def _fill(folder: Path, organizations: Sequence[str], records: int) -> None:
    app = await App.open(settings_in(folder))
    try:
        for located in (await record_import_many.located(app, organizations)).values():
            terms = terms_of(app, located.organization.plan, OPERATOR)
            await record_collections.define(app, located.placement, COLLECTION, _DEFINITION, terms, OPERATOR)
        lines = _lines(organizations, records)
        async for told in record_import_many.import_records(app, COLLECTION, lines, OPERATOR):
            if any(one.outcome.result is Result.REFUSED for one in told):
                raise RuntimeError("The database could not be filled.")
    finally:
        await app.close()


def _lines(organizations: Sequence[str], records: int) -> Iterator[Addressed]:
    number = 0
    for row in rows(records):
        for organization in organizations:
            number += 1
            line = Line(number, data_of(row), row["assignment"], len(row["address"]))
            yield Addressed(organization, line)
