"""Lists, queries and aggregates over HTTP: what they answer, their cursors, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import pytest

from tests.api.actors import Service, Standing, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio

CITIES = ("Berlin", "Bonn", "Kiel")


@pytest.fixture(params=["free", "enterprise"], ids=["pooled", "dedicated"])
async def acme(service: Service, request: pytest.FixtureRequest) -> Standing:
    """An organization with thirty invoices, beside another with one that would meet every condition."""
    found = await service.organization("Acme", plan=request.param)
    other = await service.organization("Other")
    await _fill(service, found, 30)
    await _fill(service, other, 1)
    return found


async def _fill(service: Service, standing: Standing, count: int) -> None:
    operations = [
        {
            "op": "create",
            "collection": "invoices",
            "id": f"r{number:02}",
            "data": {"city": CITIES[number % 3], "total": number, "tags": ["odd" if number % 2 else "even"]},
        }
        for number in range(count)
    ]
    made = await service.ask("POST", standing.path + "/records:batch", standing.member, {"operations": operations})
    assert made.status_code == 200, made.text


async def ask(service: Service, standing: Standing, route: str, body: Any) -> httpx2.Response:
    return await service.ask("POST", f"{standing.path}/collections/invoices/{route}", standing.viewer, body)


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [record["id"] for record in answer.json()["data"]]


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["id", "-id"])
async def test_records_are_listed_by_id(service: Service, acme: Standing, order: str) -> None:
    seen: list[str] = []
    query = f"?order={order}&limit=7"
    cursor = ""
    while cursor is not None:
        url = f"{acme.path}/collections/invoices/records{query}" + (f"&cursor={cursor}" if cursor else "")
        answer = await service.ask("GET", url, acme.viewer)
        seen += ids(answer)
        cursor = answer.json()["next_cursor"]
    assert seen == sorted((f"r{n:02}" for n in range(30)), reverse=order == "-id")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=-1", "limit=NaN", "limit=", "offset=1", "order=total"]
)
async def test_a_bad_list_is_refused(service: Service, acme: Standing, query: str) -> None:
    answer = await service.ask("GET", f"{acme.path}/collections/invoices/records?{query}", acme.viewer)
    problem(answer, 422, "request.invalid")


async def test_records_are_counted(service: Service, acme: Standing) -> None:
    answer = await service.ask("GET", f"{acme.path}/collections/invoices/records:count", acme.viewer)
    assert answer.json() == {"object": "count", "count": 30}
    answer = await service.ask("GET", f"{acme.path}/collections/nothing/records:count", acme.viewer)
    problem(answer, 404, "resource.not_found")


# --- queries ----------------------------------------------------------------------------------------------------------


async def test_a_query_answers_what_meets_it_in_its_order(service: Service, acme: Standing) -> None:
    where = {"and": [{"field": "city", "eq": "Bonn"}, {"not": {"field": "total", "lt": 10}}]}
    answer = await ask(service, acme, "query", {"where": where, "order": ["-total"], "select": ["total"], "limit": 3})
    assert [record["data"] for record in answer.json()["data"]] == [{"total": 28}, {"total": 25}, {"total": 22}]
    assert answer.json()["next_cursor"]
    everything = await ask(service, acme, "query", {"limit": 200})
    assert len(ids(everything)) == 30
    assert everything.json()["next_cursor"] is None


async def test_pages_of_a_query_make_the_whole(service: Service, acme: Standing) -> None:
    query: dict[str, Any] = {"where": {"field": "tags", "contains": "odd"}, "order": ["city", "-total"], "limit": 4}
    whole = ids(await ask(service, acme, "query", {**query, "limit": 200}))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await ask(service, acme, "query", {**query, **cursor})
        seen += ids(answer)
        if answer.json()["next_cursor"] is None:
            break
        cursor = {"cursor": answer.json()["next_cursor"]}
    assert seen == whole
    assert len(seen) == 15


async def test_a_cursor_belongs_to_its_query(service: Service, acme: Standing) -> None:
    other = await service.organization("Third")
    await _fill(service, other, 20)
    query: dict[str, Any] = {"where": {"field": "total", "gte": 0}, "order": ["total"], "limit": 2}
    cursor = (await ask(service, acme, "query", query)).json()["next_cursor"]
    theirs = (await ask(service, other, "query", query)).json()["next_cursor"]
    listed = await service.ask("GET", f"{acme.path}/collections/invoices/records?limit=2", acme.viewer)
    elsewhere: list[dict[str, Any]] = [
        {**query, "cursor": theirs},
        {**query, "cursor": listed.json()["next_cursor"]},
        {**query, "order": ["-total"], "cursor": cursor},
        {**query, "order": ["total", "city"], "cursor": cursor},
        {**query, "order": [], "cursor": cursor},
        {**query, "where": {"field": "total", "gte": 1}, "cursor": cursor},
        {**query, "where": {"field": "total", "gte": 0.0}, "cursor": cursor},
        {"order": ["total"], "cursor": cursor},
        *({**query, "cursor": bad} for bad in ("", "x", cursor[:-1], cursor + "A", cursor[1:], cursor.swapcase())),
        *(
            {**query, "cursor": cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]}
            for at in (0, 3, 9)
        ),
    ]
    for body in elsewhere:
        problem(await ask(service, acme, "query", body), 400, "cursor.invalid")
    url = f"{acme.path}/collections/others/query"
    await service.ask("POST", f"{acme.path}/collections/others/records", acme.member, {"data": {}})
    problem(await service.ask("POST", url, acme.viewer, {**query, "cursor": cursor}), 400, "cursor.invalid")
    # The same query with another limit or selection is the same list.
    assert ids(await ask(service, acme, "query", {**query, "limit": 1, "select": ["city"], "cursor": cursor})) == [
        "r02"
    ]


async def test_what_is_inserted_while_paging_moves_nothing(service: Service, acme: Standing) -> None:
    query: dict[str, Any] = {"order": ["total"], "limit": 5}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    numbers = itertools.count()
    while True:
        answer = await ask(service, acme, "query", {**query, **cursor})
        seen += ids(answer)
        if answer.json()["next_cursor"] is None:
            break
        cursor = {"cursor": answer.json()["next_cursor"]}
        body = {"id": f"new{next(numbers)}", "data": {"total": -1}}
        await service.ask("POST", f"{acme.path}/collections/invoices/records", acme.member, body)
    assert seen == [f"r{n:02}" for n in range(30)]


OPERATORS = [
    "$where",
    "$function",
    "$expr",
    "$accumulator",
    "$jsonSchema",
    "$regex",
    "$ne",
    "$gt",
    "$or",
    "regex",
    "like",
]
BAD: list[tuple[dict[str, Any], str]] = [
    *(({"where": {operator: "x"}}, "/where") for operator in OPERATORS),
    *(({"where": {"field": "a", operator: "x"}}, "/where") for operator in OPERATORS),
    *(({"where": {"and": [{"not": {operator: {}}}]}}, "/where/and/0/not") for operator in OPERATORS),
    ({"where": {"$or": [{}, {"org_id": "B"}]}}, "/where"),
    ({"where": {"org_id": "B"}}, "/where"),
    ({"where": {"field": "a", "eq": {"$ne": None}}}, "/where/eq"),
    ({"where": {"field": "a", "eq": 1, "ne": 2}}, "/where"),
    ({"where": {"field": ["a"], "eq": 1}}, "/where/field"),
    ({"where": {"field": "a" * 10_000, "eq": 1}}, "/where/field"),
    ({"where": {"field": "a", "in": list(range(101))}}, "/where/in"),
    ({"where": {"field": "a", "prefix": 1}}, "/where/prefix"),
    ({"where": {"and": []}}, "/where/and"),
    ({"where": {"and": [{"field": "a", "eq": 1}] * 50}}, "/where/and/49"),
    ({"where": {"not": {"not": {"not": {"not": {"not": {"field": "a", "eq": 1}}}}}}}, "/where/not/not/not/not/not"),
    ({"order": ["a", "-a"]}, "/order/1"),
    ({"order": ["id", "a"]}, "/order/0"),
    ({"order": ["a'; DROP TABLE records; --", ""]}, "/order/1"),
    ({"order": [f"f{n}" for n in range(5)]}, "/order"),
    ({"order": [{"$natural": 1}]}, "/order/0"),
    ({"select": ["a..b"]}, "/select/0"),
    ({"limit": 0}, "/limit"),
    ({"limit": 201}, "/limit"),
    ({"limit": 10**9}, "/limit"),
    ({"limit": True}, "/limit"),
    ({"org_id": "B"}, ""),
    ({"offset": 1}, ""),
]


@pytest.mark.parametrize(("body", "pointer"), BAD, ids=[f"{n} {at}" for n, (_, at) in enumerate(BAD)])
async def test_a_bad_query_is_refused_at_its_place(
    service: Service, acme: Standing, body: dict[str, Any], pointer: str
) -> None:
    answer = await ask(service, acme, "query", body)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    if "where" in body:
        answer = await ask(service, acme, "aggregate", {"where": body["where"], "measures": {"n": {"count": True}}})
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_no_condition_reaches_beyond_the_organization(service: Service, acme: Standing) -> None:
    wide: list[dict[str, Any]] = [
        {"or": [{"field": "id", "exists": True}, {"field": "org_id", "eq": "x"}]},
        {"not": {"field": "org_id", "eq": acme.id}},
        {"field": "/_id", "exists": False},
        {"field": "city", "prefix": ""},
    ]
    for where in wide:
        found = await ask(service, acme, "query", {"where": where, "limit": 200})
        assert len(ids(found)) == 30
        counted = await ask(service, acme, "aggregate", {"where": where, "measures": {"n": {"count": True}}})
        assert counted.json()["data"] == [{"n": 30}]


async def test_an_unindexed_query_over_many_is_refused_with_advice(services: Services, anyio_backend: str) -> None:
    async with services(records={"max_examined": 100}) as service:
        acme = await service.organization("Acme")
        await _fill(service, acme, 150)
        query = {"where": {"field": "city", "eq": "nowhere"}, "order": ["-total"]}
        document = problem(await ask(service, acme, "query", query), 422, "query.unindexed")
        assert '["city","-total"]' in document["detail"]
        declared = {"indexes": [["city", "-total"]]}
        await service.ask("PUT", f"{acme.path}/collections/invoices", acme.admin, declared)
        assert ids(await ask(service, acme, "query", query)) == []


# --- aggregates -------------------------------------------------------------------------------------------------------


async def test_figures_by_group(service: Service, acme: Standing) -> None:
    body = {
        "where": {"field": "total", "lt": 9},
        "group_by": ["city"],
        "measures": {"n": {"count": True}, "sum": {"sum": "total"}, "top": {"max": "total"}, "mean": {"avg": "total"}},
    }
    answer = await ask(service, acme, "aggregate", body)
    assert answer.json() == {
        "object": "aggregate",
        "data": [
            {"city": "Berlin", "n": 3, "sum": 9, "top": 6, "mean": 3.0},
            {"city": "Bonn", "n": 3, "sum": 12, "top": 7, "mean": 4.0},
            {"city": "Kiel", "n": 3, "sum": 15, "top": 8, "mean": 5.0},
        ],
    }


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/measures"),
        ({"measures": {}}, "/measures"),
        ({"measures": {"n": {"$sum": "total"}}}, "/measures/n"),
        ({"measures": {"n": {"sum": 1}}}, "/measures/n/sum"),
        ({"measures": {"n": {"count": 1}}}, "/measures/n/count"),
        ({"measures": {"city": {"count": True}}, "group_by": ["city"]}, "/measures/city"),
        ({"measures": {"n": {"count": True}}, "group_by": ["city", "city"]}, "/group_by/1"),
        ({"measures": {"n": {"count": True}}, "group_by": ["a", "b", "c", "d", "e"]}, "/group_by"),
        ({"measures": {f"n{n}": {"count": True} for n in range(21)}}, "/measures"),
    ],
)
async def test_a_bad_aggregate_is_refused_at_its_place(
    service: Service, acme: Standing, body: dict[str, Any], pointer: str
) -> None:
    answer = await ask(service, acme, "aggregate", body)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_reading_by_post_takes_no_notice_of_a_key(service: Service, acme: Standing) -> None:
    url = f"{acme.path}/collections/invoices/aggregate"
    body = {"measures": {"n": {"count": True}}}
    first = await service.ask("POST", url, acme.viewer, body, key="k")
    await service.ask("DELETE", f"{acme.path}/collections/invoices/records/r00", acme.member)
    again = await service.ask("POST", url, acme.viewer, body, key="k")
    assert (first.json()["data"], again.json()["data"]) == ([{"n": 30}], [{"n": 29}])
    assert "idempotent-replayed" not in again.headers
