"""Hostile bodies, unknown members and wrong types, at every route that reads a body."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from orgstead.api import application
from tests.api import matrix
from tests.api.actors import Service
from tests.api.conftest import Services
from tests.api.matrix import ROUTES, Call, Key, Town, founded, name_of, send
from tests.data import hostile_json

pytestmark = pytest.mark.anyio

KEYS = matrix.with_body()
SEEN = "canary-of-the-input"
"""A word that is put into bodies, and must not come back."""

DOCUMENT: dict[str, Any] = application.openapi()


CARRYING_RECORDS = {
    ("POST", matrix.RECORDS),
    ("PUT", matrix.ONE_RECORD),
    ("PATCH", matrix.ONE_RECORD),
    ("POST", matrix.OWN + "/records:batch"),
}
"""Routes whose bodies may be as large as a record."""


def routes() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("key", KEYS, ids=map(name_of, KEYS))


@pytest.fixture(scope="module")
async def town(services: Services, anyio_backend: str) -> AsyncIterator[Town]:
    """A town in which nothing is ever accepted, so that it stays as it is."""
    async with services() as service:
        yield await founded(service)


async def post(town: Town, key: Key, call: Call, body: bytes | None = None, **headers: str) -> httpx2.Response:
    """The answer to a call of the owner's."""
    return await send(town, key, call, {**town.own.owner.headers, **headers}, body)


JSON = {"content-type": "application/json"}


def call_of(town: Town, key: Key) -> Call:
    """A call that would succeed."""
    return ROUTES[key].make(town, town.own, "owner")


def echo(body: bytes) -> Iterator[bytes]:
    """The beginning of a body, where it is long enough to be recognized in an answer."""
    if len(text := body.strip()) >= 6:
        yield text[:40]


# --- what the document says about a body ------------------------------------------------------------------------------


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, or what it refers to."""
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def body_schema(key: Key) -> dict[str, Any]:
    method, path = key
    operation = DOCUMENT["paths"][path][method.lower()]
    return resolved(operation["requestBody"]["content"]["application/json"]["schema"])


def fits(schema: dict[str, Any], body: bytes) -> bool:
    """Has the body the members that the schema wants, and no others?"""
    value = json.loads(body)
    return isinstance(value, dict) and set(schema.get("required", [])) <= value.keys() <= schema["properties"].keys()


def objects(schema: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of the body, and of the objects inside it that have members of their own."""
    if "properties" in schema:
        yield at
        for name, member in schema["properties"].items():
            yield from objects(resolved(member), (*at, name))


def offered(schema: dict[str, Any], place: tuple[str, ...]) -> set[str]:
    """The members that the object at the place may have."""
    for name in place:
        schema = resolved(schema["properties"][name])
    return set(schema["properties"])


def with_value(body: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The body with another value at the place."""
    changed = copy.deepcopy(body)
    node = changed
    for name in place[:-1]:
        node = node[name]
    node[place[-1]] = value
    return changed


def members(schema: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place, type) of every member of the body, at any depth."""
    for name, member in schema.get("properties", {}).items():
        found = resolved(member)
        yield (*at, name), found["type"]
        yield from members(found, (*at, name))


# --- the corpus -------------------------------------------------------------------------------------------------------


@routes()
async def test_hostile_bodies_are_refused_before_the_route(town: Town, key: Key) -> None:
    """Each with the status that its cause has, whatever the route; nothing happens, and nothing comes back."""
    call = call_of(town, key)
    before = await matrix.state(town)
    for case in (*hostile_json.CASES, *hostile_json.LARGE_CASES):
        headers = {name.lower(): value for name, value in case.headers}
        if case.content_type is not None:
            headers["content-type"] = case.content_type
        answer = await post(town, key, call, case.body, **headers)
        carries_records = key in CARRYING_RECORDS and case.name in hostile_json.WITH_RECORDS
        statuses = {400, 422} if carries_records else case.statuses
        assert answer.status_code in statuses, f"{case.name}: {answer.status_code} {answer.text}"
        assert not any(part in answer.content for part in echo(case.body)), case.name
    assert await matrix.state(town) == before


@routes()
async def test_odd_bodies_that_do_not_fit_are_refused_by_the_schema(town: Town, key: Key) -> None:
    call = call_of(town, key)
    before = await matrix.state(town)
    odd = [(name, body) for name, body in hostile_json.MERELY_ODD if not fits(body_schema(key), body)]
    assert len(odd) >= 15
    for name, body in odd:
        answer = await post(town, key, call, body, **JSON)
        assert answer.status_code == 422, f"{name}: {answer.status_code} {answer.text}"
        assert not any(part in answer.content for part in echo(body)), name
    assert await matrix.state(town) == before


@routes()
async def test_odd_bodies_that_fit_are_decently_answered(service: Service, key: Key) -> None:
    town = await founded(service)
    for _, body in hostile_json.MERELY_ODD:
        if fits(body_schema(key), body):
            await post(town, key, call_of(town, key), body, **JSON)


@routes()
async def test_a_body_that_is_missing_is_refused(town: Town, key: Key) -> None:
    call = replace(call_of(town, key), body=None)
    answer = await post(town, key, call)
    assert answer.status_code == 422


# --- members ----------------------------------------------------------------------------------------------------------

NOT_OFFERED = """
id object role status is_operator operator epoch version created_at updated_at quota external_id suspended_by closed_at
purge_at placement cell kind space operation_id user_id org_id org_role email_key password_hash generation __proto__
constructor __class__ _id $set $where
"""


@routes()
async def test_members_that_are_not_offered_are_refused(town: Town, key: Key) -> None:
    """Mass assignment: one unknown member refuses the whole body, at its root and inside its objects."""
    before = await matrix.state(town)
    schema = body_schema(key)
    for place in objects(schema):
        for name in set(NOT_OFFERED.split()) - offered(schema, place):
            body = with_value(schema["examples"][0], (*place, name), SEEN)
            answer = await post(town, key, replace(call_of(town, key), body=body))
            assert answer.status_code == 422, f"{name}: {answer.text}"
            found = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
            assert found == [("".join(f"/{part}" for part in place), "value.unknown")]
            assert SEEN not in answer.text
    assert await matrix.state(town) == before


# --- types ------------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Any, ...]] = {
    "string": (None, True, 0, 1.5, [], [SEEN], {}, {"$ne": None}, {"$gt": ""}, {"$regex": "^a"}),
    "object": (None, True, 0, 1.5, SEEN, "{}", [], [{}]),
    "integer": (None, True, 1.5, SEEN, "1", [], {}),
    "boolean": (None, 0, 1, SEEN, "true", [], {}),
    "array": (None, True, 0, SEEN, {}),
}
"""Values that are not of a type of JSON Schema."""


def wrong_bodies(key: Key) -> Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """(place, wrong value, body) for every member: the example of the document with one value replaced."""
    schema = body_schema(key)
    example = schema["examples"][0]
    for place, type_ in members(schema):
        for value in WRONG[type_]:
            yield place, value, with_value(example, place, value)


@routes()
async def test_a_value_of_another_type_is_refused_at_its_place(town: Town, key: Key) -> None:
    before = await matrix.state(town)
    tried = set()
    for place, value, body in wrong_bodies(key):
        answer = await post(town, key, replace(call_of(town, key), body=body))
        assert answer.status_code == 422, f"{place} = {value!r}: {answer.text}"
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/" + "/".join(place)], value
        assert SEEN not in answer.text
        tried.add(place)
    assert tried
    assert await matrix.state(town) == before


@routes()
async def test_a_member_that_is_required_is_missed_at_its_place(town: Town, key: Key) -> None:
    schema = body_schema(key)
    for name in schema.get("required", []):
        body = {key: value for key, value in schema["examples"][0].items() if key != name}
        answer = await post(town, key, replace(call_of(town, key), body=body))
        assert answer.status_code == 422
        assert [(f["pointer"], f["code"]) for f in answer.json()["errors"]] == [("/" + name, "value.missing")]
