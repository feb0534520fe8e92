"""Records over HTTP: by id, by version, in batches, with keys; and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import orjson
import pytest

from orgstead import placements
from orgstead.model import MAX_JSON_DEPTH, IdempotentResponse, PlacementKind
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction
from tests.api.actors import Person, Service, Standing, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio

DATA = {"customer": "Nordwind", "total": 119.5}


@pytest.fixture(params=["free", "enterprise"], ids=["pooled", "dedicated"])
async def acme(service: Service, request: pytest.FixtureRequest) -> Standing:
    """An organization with a space of either kind."""
    found = await service.organization("Acme", plan=request.param)
    assert found.placement.kind is (PlacementKind.POOLED if request.param == "free" else PlacementKind.DEDICATED)
    return found


@pytest.fixture
async def other(service: Service) -> Standing:
    return await service.organization("Other")


def path(standing: Standing, *more: str, collection: str = "invoices") -> str:
    return "/".join((standing.path, "collections", collection, "records", *more))


class Clerk:
    """Somebody who works with records of one organization."""

    def __init__(self, service: Service, standing: Standing, person: Person | None = None) -> None:
        self.service, self.standing, self.person = service, standing, person or standing.member

    async def create(self, data: Any = DATA, id: str | None = None, **options: Any) -> httpx2.Response:
        body = {"data": data} if id is None else {"id": id, "data": data}
        return await self.service.ask("POST", path(self.standing), self.person, body, **options)

    async def ask(self, method: str, id: str, body: Any = None, **headers: str) -> httpx2.Response:
        return await self.service.ask(method, path(self.standing, id), self.person, body, headers=headers)

    async def batch(self, *operations: dict[str, Any], **options: Any) -> httpx2.Response:
        named = [{"collection": "invoices", **operation} for operation in operations]
        return await self.service.ask(
            "POST", self.standing.path + "/records:batch", self.person, {"operations": named}, **options
        )

    async def usage(self) -> dict[str, Any]:
        answer = await self.service.ask("GET", self.standing.path + "/usage", self.person)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def clerk(service: Service, acme: Standing) -> Clerk:
    return Clerk(service, acme)


# --- one record -------------------------------------------------------------------------------------------------------


async def test_a_record_from_its_creation_to_its_end(clerk: Clerk) -> None:
    made = await clerk.create(id="inv-1")
    assert made.status_code == 201
    assert made.headers["location"] == path(clerk.standing, "inv-1")
    shown = made.json()
    assert (shown["object"], shown["id"], shown["collection"], shown["data"]) == ("record", "inv-1", "invoices", DATA)
    assert (shown["version"], shown["created_at"]) == (1, "2026-11-23T10:00:00.000Z")
    read = await clerk.ask("GET", "inv-1")
    assert (read.json(), read.headers["etag"]) == (shown, made.headers["etag"])
    replaced = await clerk.ask("PUT", "inv-1", {"data": {"total": 1, "paid": {"at": None, "by": "Ada"}}})
    assert (replaced.json()["data"], replaced.json()["version"]) == ({"total": 1, "paid": {"at": None, "by": "Ada"}}, 2)
    patched = await clerk.ask("PATCH", "inv-1", {"data": {"total": None, "paid": {"by": "Bea"}}})
    assert (patched.json()["data"], patched.json()["version"]) == ({"paid": {"at": None, "by": "Bea"}}, 3)
    assert len({made.headers["etag"], replaced.headers["etag"], patched.headers["etag"]}) == 3
    gone = await clerk.ask("DELETE", "inv-1")
    assert (gone.status_code, gone.content) == (204, b"")
    for method, body in (("GET", None), ("PUT", {"data": {}}), ("PATCH", {"data": {}}), ("DELETE", None)):
        problem(await clerk.ask(method, "inv-1", body), 404, "resource.not_found")


async def test_an_id_is_made_where_none_is_given(clerk: Clerk) -> None:
    made = await clerk.create()
    assert made.json()["id"].startswith("rec_")
    problem(await clerk.create(id=made.json()["id"]), 409, "record.exists")


ODD: dict[str, Any] = {
    "": "empty key",
    "_id": "x",
    "org_id": "org_of_nobody",
    "__proto__": {"role": "owner"},
    "constructor": 1,
    "$set": {"$where": "1"},
    "a.b": {"0": []},
    "int": 9_223_372_036_854_775_807,
    "small": -9_223_372_036_854_775_808,
    "float": 0.1,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "one": 1.0,
    "text": "\U0001f600 \u0061\u030a \u2028",
    "null": None,
    "bool": [True, False],
    "deep": [[[[[[{"x": [1, 1.0, "1"]}]]]]]],
}


async def test_values_come_back_exactly(clerk: Clerk) -> None:
    made = await clerk.create(ODD, "odd")
    assert made.status_code == 201, made.text
    for answer in (made, await clerk.ask("GET", "odd")):
        data = answer.json()["data"]
        assert orjson.dumps(data) == orjson.dumps(ODD), answer.text
        assert [type(data[name]) for name in ODD] == [type(value) for value in ODD.values()]


async def test_a_member_of_the_data_names_no_organization(service: Service, clerk: Clerk, other: Standing) -> None:
    """``org_id`` and ``_id`` in the data are data."""
    made = await clerk.create({"org_id": other.id, "_id": other.id}, "mine")
    assert made.status_code == 201
    problem(await service.ask("GET", path(other, "mine"), other.owner), 404, "resource.not_found")
    problem(await service.ask("GET", path(other, "mine"), clerk.person), 404, "resource.not_found")
    assert (await clerk.ask("GET", "mine")).json()["data"] == {"org_id": other.id, "_id": other.id}


# --- ids --------------------------------------------------------------------------------------------------------------

BAD_IDS = ["", " ", "a b", "a/b", "ä", "a\n", ".", "..", "x" * 129, "x" * 10_000, "__proto__'--", "%00", "$ne"]


@pytest.mark.parametrize("id", BAD_IDS, ids=lambda text: repr(text[:12]))
async def test_an_id_that_cannot_be_is_refused_at_its_place(clerk: Clerk, id: str) -> None:
    document = problem(await clerk.create(id=id), 422, "record.id_invalid")
    assert [fault["pointer"] for fault in document["errors"]] == ["/id"]
    answer = await clerk.batch({"op": "create", "id": "good", "data": {}}, {"op": "create", "id": id, "data": {}})
    document = problem(answer, 422, "record.id_invalid")
    assert [fault["pointer"] for fault in document["errors"]] == ["/operations/1/id"]
    assert (await clerk.usage())["records"]["used"] == 0


@pytest.mark.parametrize("id", ["_id", "__proto__", "org_id", "constructor", "~", "-", "A.b_c~d-e", "x" * 128])
async def test_an_odd_id_is_an_id(clerk: Clerk, id: str) -> None:
    assert (await clerk.create(id=id)).status_code == 201
    assert (await clerk.ask("GET", id)).json()["id"] == id


@pytest.mark.parametrize("id", ["x" * 129, "a%20b", "%2e%2e", "a%2fb", "%c3%28", "%ed%a0%80", "a:b", "rec_1%0a"])
async def test_an_id_in_the_path_that_cannot_be_is_missing(clerk: Clerk, id: str) -> None:
    for method, body in (("GET", None), ("PUT", {"data": {}}), ("PATCH", {"data": {}}), ("DELETE", None)):
        problem(await clerk.ask(method, id, body), 404, "resource.not_found")


async def test_an_id_of_10_kb_in_the_path_is_too_long_a_path(clerk: Clerk) -> None:
    problem(await clerk.ask("GET", "x" * 10_000), 414, "request.uri_too_long")


@pytest.mark.parametrize("name", ["A", "1a", "a-b", "a.b", "_id", "__proto__", "x" * 64, "%c3%a4", "a%2e%2e"])
async def test_a_collection_that_cannot_be_is_refused_or_missing(service: Service, clerk: Clerk, name: str) -> None:
    person, standing = clerk.person, clerk.standing
    answer = await service.ask("POST", path(standing, collection=name), person, {"data": {}})
    problem(answer, 422, "collection.definition_invalid")
    problem(await service.ask("GET", path(standing, "x", collection=name), person), 404, "resource.not_found")
    assert (await clerk.usage())["collections"]["used"] == 0


# --- versions ---------------------------------------------------------------------------------------------------------


async def test_a_tag_spares_the_answer(clerk: Clerk) -> None:
    tag = (await clerk.create(id="a")).headers["etag"]
    same = await clerk.ask("GET", "a", **{"if-none-match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await clerk.ask("PATCH", "a", {"data": {"total": 2}})
    assert (await clerk.ask("GET", "a", **{"if-none-match": tag})).status_code == 200


CHANGES: list[tuple[str, Any]] = [("PUT", {"data": {"n": 1}}), ("PATCH", {"data": {"n": 1}}), ("DELETE", None)]


@pytest.mark.parametrize(("method", "body"), CHANGES)
async def test_a_change_of_another_version_is_refused(clerk: Clerk, method: str, body: Any) -> None:
    old = (await clerk.create(id="a")).headers["etag"]
    new = (await clerk.ask("PATCH", "a", {"data": {"total": 2}})).headers["etag"]
    before = (await clerk.ask("GET", "a")).json()
    for tag in (old, "W/" + new, "2", '"', '""', "nonsense", f'{old}, "x"', ""):
        problem(await clerk.ask(method, "a", body, **{"if-match": tag}), 412, "precondition.failed")
    for tag in ("*", new, "W/" + new, f'"x", {new}', "nonsense", ""):
        for others in ({}, {"if-match": new}):
            answer = await clerk.ask(method, "a", body, **others, **{"if-none-match": tag})
            problem(answer, 412, "precondition.failed")
    assert (await clerk.ask("GET", "a")).json() == before
    assert (await clerk.ask(method, "a", body, **{"if-match": f"{old}, {new}"})).status_code in (200, 204)


@pytest.mark.parametrize(("method", "body"), CHANGES)
async def test_a_record_made_anew_is_another(service: Service, clerk: Clerk, method: str, body: Any) -> None:
    """Its version begins at 1 again, but nobody who read the former one may change it."""
    old = (await clerk.create(id="a")).headers["etag"]
    await clerk.ask("DELETE", "a")
    service.watch.advance(seconds=1)
    new = await clerk.create({"other": True}, "a")
    assert new.json()["version"] == 1
    problem(await clerk.ask(method, "a", body, **{"if-match": old}), 412, "precondition.failed")
    assert (await clerk.ask("GET", "a", **{"if-none-match": old})).json()["data"] == {"other": True}


async def test_a_version_may_be_required(services: Services, anyio_backend: str) -> None:
    async with services(records={"require_if_match": True}) as service:
        clerk = Clerk(service, await service.organization("Strict"))
        tag = (await clerk.create(id="a")).headers["etag"]
        for method, body in CHANGES:
            problem(await clerk.ask(method, "a", body), 428, "precondition.required")
            problem(await clerk.ask(method, "a", body, **{"if-none-match": '"x"'}), 428, "precondition.required")
            problem(await clerk.ask(method, "a", body, **{"if-match": ""}), 412, "precondition.failed")
        answer = await clerk.batch(
            {"op": "create", "id": "b", "data": {}}, {"op": "patch", "id": "a", "data": {"n": 1}}
        )
        document = problem(answer, 428, "precondition.required")
        assert [fault["pointer"] for fault in document["errors"]] == ["/operations/1/if_version"]
        problem(await clerk.ask("GET", "b"), 404, "resource.not_found")
        assert (await clerk.batch({"op": "patch", "id": "a", "data": {}, "if_version": 1})).status_code == 200
        problem(await clerk.ask("DELETE", "a", **{"if-match": tag}), 412, "precondition.failed")
        assert (await clerk.ask("DELETE", "a", **{"if-match": "*"})).status_code == 204


async def test_of_many_who_change_one_version_one_does(clerk: Clerk) -> None:
    tag = (await clerk.create({"n": 0}, "a")).headers["etag"]
    answers = await asyncio.gather(
        *(clerk.ask("PUT", "a", {"data": {"n": n}}, **{"if-match": tag}) for n in range(1, 21))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [412] * 19
    (winner,) = (answer for answer in answers if answer.status_code == 200)
    assert (await clerk.ask("GET", "a")).json() == winner.json()


# --- many -------------------------------------------------------------------------------------------------------------


async def test_a_batch_makes_all_changes(clerk: Clerk) -> None:
    for one in ("a", "b", "c"):
        await clerk.create({"n": 1}, one)
    answer = await clerk.batch(
        {"op": "replace", "id": "a", "data": {"n": 2}, "if_version": 1},
        {"op": "patch", "id": "b", "data": {"m": 3}},
        {"op": "delete", "id": "c"},
        {"op": "create", "data": {"n": 4}},
        {"op": "create", "collection": "notes", "id": "n", "data": {}},
    )
    assert answer.status_code == 200, answer.text
    done = answer.json()["data"]
    assert [(one["id"], one["version"], one["deleted"]) for one in done[:3]] == [
        ("a", 2, False),
        ("b", 2, False),
        ("c", None, True),
    ]
    assert (done[3]["collection"], done[4]["collection"], done[4]["version"]) == ("invoices", "notes", 1)
    assert (await clerk.ask("GET", "b")).json()["data"] == {"n": 1, "m": 3}
    assert (await clerk.ask("GET", done[3]["id"])).json()["data"] == {"n": 4}
    problem(await clerk.ask("GET", "c"), 404, "resource.not_found")


BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({"op": "create", "id": "there", "data": {}}, 409, "record.exists", "/operations/2"),
    ({"op": "replace", "id": "missing", "data": {}}, 404, "resource.not_found", "/operations/2"),
    ({"op": "patch", "id": "there", "data": {}, "if_version": 9}, 412, "precondition.failed", "/operations/2"),
    ({"op": "delete", "id": "missing"}, 404, "resource.not_found", "/operations/2"),
    ({"op": "delete"}, 422, "request.invalid", "/operations/2/id"),
    ({"op": "delete", "id": "there", "data": {}}, 422, "request.invalid", "/operations/2/data"),
    ({"op": "create"}, 422, "request.invalid", "/operations/2/data"),
    ({"op": "create", "data": {}, "if_version": 1}, 422, "request.invalid", "/operations/2/if_version"),
    (
        {"op": "patch", "id": "there", "data": {}, "if_version": True},
        422,
        "request.invalid",
        "/operations/2/if_version",
    ),
    ({"op": "upsert", "id": "there", "data": {}}, 422, "request.invalid", "/operations/2/op"),
    ({"op": "create", "data": []}, 422, "request.invalid", "/operations/2/data"),
    ({"op": "create", "data": {}, "org_id": "x"}, 422, "request.invalid", "/operations/2"),
    (
        {"op": "create", "collection": "Bad", "data": {}},
        422,
        "collection.definition_invalid",
        "/operations/2/collection",
    ),
    ({"op": "create", "id": "new", "data": {}}, 422, "request.invalid", "/operations/2/id"),
]


@pytest.mark.parametrize(("bad", "status", "code", "pointer"), BAD, ids=[f"{code} {at}" for _, _, code, at in BAD])
async def test_a_batch_with_one_bad_operation_changes_nothing(
    clerk: Clerk, bad: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    there = (await clerk.create({"n": 1}, "there")).json()
    await clerk.create({"n": 1}, "second")
    before = await clerk.usage()
    answer = await clerk.batch(
        {"op": "create", "id": "new", "data": {"big": "x" * 100}}, {"op": "delete", "id": "second"}, bad
    )
    document = problem(answer, status, code)
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]
    assert (await clerk.ask("GET", "there")).json() == there
    assert (await clerk.ask("GET", "second")).status_code == 200
    problem(await clerk.ask("GET", "new"), 404, "resource.not_found")
    assert await clerk.usage() == before


async def test_a_batch_is_neither_empty_nor_endless(clerk: Clerk) -> None:
    assert (await clerk.batch()).status_code == 422
    ids = [f"r{n}" for n in range(501)]
    one_too_many = await clerk.batch(*({"op": "create", "id": one, "data": {}} for one in ids))
    assert problem(one_too_many, 422, "request.invalid")["errors"][0]["pointer"] == "/operations"
    assert (await clerk.batch(*({"op": "create", "id": one, "data": {}} for one in ids[:500]))).status_code == 200
    assert (await clerk.usage())["records"]["used"] == 500


async def test_records_are_read_by_their_ids(service: Service, clerk: Clerk, other: Standing) -> None:
    for one in ("a", "b"):
        await clerk.create({"is": one}, one)
    await Clerk(service, other).create({"is": "foreign"}, "theirs")
    url = path(clerk.standing) + ":batchGet"
    answer = await service.ask("POST", url, clerk.standing.viewer, {"ids": ["b", "theirs", "a", "b", "", "x" * 10_000]})
    assert answer.status_code == 200, answer.text
    assert [record["id"] for record in answer.json()["data"]] == ["b", "a"]
    assert answer.json()["missing"] == ["theirs", "", "x" * 10_000]
    for ids in ([], ["x"] * 201, [1], None, "a"):
        problem(await service.ask("POST", url, clerk.person, {"ids": ids}), 422, "request.invalid")


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_a_record_has_a_largest_size(services: Services, anyio_backend: str) -> None:
    async with services(records={"max_bytes": 2_097_152}) as service:
        clerk = Clerk(service, await service.organization("Large"))
        largest = {"text": "x" * (2_097_152 - len('{"text":""}'))}
        assert (await clerk.create(largest, "a")).status_code == 201
        assert (await clerk.ask("PUT", "a", {"data": largest})).status_code == 200
        document = problem(await clerk.create({"text": largest["text"] + "x"}, "b"), 413, "record.too_large")
        assert "2097152" in document["detail"]
        problem(await clerk.ask("PATCH", "a", {"data": {"more": 1}}), 413, "record.too_large")
        problem(await clerk.create({"text": "x" * 2_300_000}), 413, "request.body_too_large")
        problem(
            await service.ask("POST", "/v1/auth/login", body={"email": "x" * 1_100_000, "password": "x"}),
            413,
            "request.body_too_large",
        )


async def test_a_record_may_have_many_members(clerk: Clerk) -> None:
    many = {"list": list(range(50_000))}
    assert (await clerk.create(many, "a")).status_code == 201
    assert (await clerk.ask("GET", "a")).json()["data"] == many
    problem(await clerk.create({"list": [0] * 200_000}), 400, "request.malformed")


def nested(depth: int) -> dict[str, Any]:
    """An object that many levels deep."""
    return {"in": nested(depth - 1) if depth > 1 else "bottom"}


async def test_the_data_of_a_record_is_as_deep_whichever_way_it_comes(clerk: Clerk) -> None:
    """What one route takes another may be asked to write again."""
    deepest, deeper = nested(MAX_JSON_DEPTH), nested(MAX_JSON_DEPTH + 1)
    assert (await clerk.create(deepest, "a")).status_code == 201
    assert (await clerk.batch({"op": "create", "id": "b", "data": deepest})).status_code == 200
    for method in ("PUT", "PATCH"):
        for name in "ab":
            assert (await clerk.ask(method, name, {"data": deepest})).status_code == 200
        problem(await clerk.ask(method, "a", {"data": deeper}), 400, "request.malformed")
    problem(await clerk.create(deeper, "c"), 400, "request.malformed")
    problem(await clerk.batch({"op": "create", "id": "c", "data": deeper}), 400, "request.malformed")
    assert (await clerk.ask("GET", "a")).json()["data"] == (await clerk.ask("GET", "b")).json()["data"] == deepest
    assert (await clerk.usage())["records"]["used"] == 2


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_creation_is_repeated_by_its_key(clerk: Clerk) -> None:
    first = await clerk.create(ODD, key="k1")
    again = await clerk.create(ODD, key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert again.headers["location"] == first.headers["location"]
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert (await clerk.usage())["records"]["used"] == 1
    problem(await clerk.create({"other": 1}, key="k1"), 422, "idempotency.key_reused")
    colleague = Clerk(clerk.service, clerk.standing, clerk.standing.admin)
    assert "idempotent-replayed" not in (await colleague.create(ODD, key="k1")).headers
    assert (await clerk.usage())["records"]["used"] == 2


async def test_the_answer_to_a_key_keeps_no_second_copy_of_the_data(clerk: Clerk) -> None:
    assert (await clerk.create({"text": "unmistakable " * 1000}, key="k")).status_code == 201
    (kept,) = await clerk.service.app.storage.read(_space(clerk.standing), _answers)
    assert len(kept.body) < 400
    assert "unmistakable" not in kept.body


async def test_what_fails_leaves_its_key_free(clerk: Clerk) -> None:
    await clerk.create(id="a")
    problem(await clerk.create(id="a", key="k"), 409, "record.exists")
    await clerk.ask("DELETE", "a")
    assert (await clerk.create(id="a", key="k")).status_code == 201


async def test_a_batch_is_repeated_by_its_key(clerk: Clerk) -> None:
    operations = [{"op": "create", "data": {"n": n}} for n in range(3)]
    first, again = await clerk.batch(*operations, key="k"), await clerk.batch(*operations, key="k")
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert (await clerk.usage())["records"]["used"] == 3


async def test_of_many_with_one_key_one_creates(clerk: Clerk) -> None:
    answers = await asyncio.gather(*(clerk.create(key="k") for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert (await clerk.usage())["records"]["used"] == 1


async def test_an_answer_is_due_after_a_suspension_and_nothing_new(service: Service, clerk: Clerk) -> None:
    first = await clerk.create(key="k")
    assert (await service.ask("POST", clerk.standing.path + "/suspend", clerk.standing.owner)).status_code == 200
    assert (await clerk.create(key="k")).content == first.content
    problem(await clerk.create(key="new"), 423, "organization.suspended")
    problem(await clerk.batch({"op": "create", "data": {}}, key="new"), 423, "organization.suspended")
    url = clerk.standing.path + "/collections/invoices/"
    for route in ("query", "aggregate", "records:batchGet"):
        body = {"query": {}, "aggregate": {"measures": {"n": {"count": True}}}}.get(route, {"ids": ["a"]})
        problem(await service.ask("POST", url + route, clerk.person, body, key="k"), 423, "organization.suspended")


def _space(standing: Standing) -> Space:
    return placements.space_of(standing.placement)


async def _answers(tx: Transaction) -> list[IdempotentResponse]:
    return await tx.page(tables.space_responses, limit=10)


# --- quotas -----------------------------------------------------------------------------------------------------------


async def test_parallel_writers_never_exceed_a_quota(services: Services, anyio_backend: str) -> None:
    async with services(plans={"free": {"requests_per_second": None, "max_records": 37}}) as service:
        clerk = Clerk(service, await service.organization("Small"))
        answers = await asyncio.gather(*(clerk.create({"n": n}) for n in range(100)))
        made = [answer for answer in answers if answer.status_code == 201]
        assert len(made) == 37
        for answer in answers:
            if answer not in made:
                document = problem(answer, 403, "quota.exceeded")
                assert document["quota"] == {"what": "records", "used": 37, "limit": 37}
                assert "37 records" in document["detail"]
        assert (await clerk.usage())["records"] == {"used": 37, "limit": 37}
        crossing = [{"op": "create", "data": {}}, {"op": "create", "data": {}}]
        await clerk.ask("DELETE", made[0].json()["id"])
        problem(await clerk.batch(*crossing), 403, "quota.exceeded")
        assert (await clerk.usage())["records"]["used"] == 36
        assert (await clerk.batch(crossing[0])).status_code == 200
