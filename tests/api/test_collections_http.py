"""Collections over HTTP: defining them, what a definition does to records, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from orgstead import operations, record_indexing
from orgstead.failpoints import arm
from tests.api.actors import Service, Standing, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{2}-"}}}


@pytest.fixture(params=["free", "enterprise"], ids=["pooled", "dedicated"])
async def acme(service: Service, request: pytest.FixtureRequest) -> Standing:
    return await service.organization("Acme", plan=request.param)


async def define(service: Service, standing: Standing, name: str, body: Any, **headers: str) -> httpx2.Response:
    return await service.ask("PUT", f"{standing.path}/collections/{name}", standing.admin, body, headers=headers)


async def read(service: Service, standing: Standing, name: str, **headers: str) -> httpx2.Response:
    return await service.ask("GET", f"{standing.path}/collections/{name}", standing.viewer, headers=headers)


async def add(service: Service, standing: Standing, name: str, data: Any) -> httpx2.Response:
    return await service.ask("POST", f"{standing.path}/collections/{name}/records", standing.member, {"data": data})


async def test_a_collection_from_its_definition_to_its_end(service: Service, acme: Standing) -> None:
    made = await define(
        service, acme, "goods", {"schema": SCHEMA, "indexes": [["city", "-price"]], "unique": [["sku"]]}
    )
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["schema"], shown["indexes"], shown["unique"]) == (SCHEMA, [["city", "-price"]], [["sku"]])
    assert (shown["name"], shown["state"], shown["updated_at"]) == ("goods", "ready", shown["created_at"])
    found = await read(service, acme, "goods")
    assert (found.json(), found.headers["etag"]) == (shown, made.headers["etag"])
    assert (await read(service, acme, "goods", **{"if-none-match": made.headers["etag"]})).status_code == 304
    again = await define(
        service, acme, "goods", {"schema": SCHEMA, "indexes": [["city", "-price"]], "unique": [["sku"]]}
    )
    assert (again.status_code, again.json(), again.headers["etag"]) == (200, shown, made.headers["etag"])
    less = await define(service, acme, "goods", {})
    assert less.status_code == 200
    assert (less.json()["schema"], less.json()["indexes"], less.json()["unique"]) == (None, [], [])
    assert less.headers["etag"] != made.headers["etag"]
    gone = await service.ask("DELETE", f"{acme.path}/collections/goods", acme.admin)
    assert (gone.status_code, gone.content) == (204, b"")
    problem(await read(service, acme, "goods"), 404, "resource.not_found")


async def test_the_schema_and_the_unique_fields_hold(service: Service, acme: Standing) -> None:
    await define(service, acme, "goods", {"schema": SCHEMA, "unique": [["sku"]]})
    assert (await add(service, acme, "goods", {"sku": "AB-1"})).status_code == 201
    document = problem(await add(service, acme, "goods", {"sku": "AB-1"}), 409, "record.unique_taken")
    assert [fault["pointer"] for fault in document["errors"]] == ["/data/sku"]
    document = problem(await add(service, acme, "goods", {"sku": "canary"}), 422, "record.invalid")
    assert [fault["pointer"] for fault in document["errors"]] == ["/data/sku"]
    assert "canary" not in str(document)
    answers = await asyncio.gather(*(add(service, acme, "goods", {"sku": "AB-2", "n": n}) for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19


async def test_a_definition_that_records_violate_is_refused_with_their_names(service: Service, acme: Standing) -> None:
    bad = (await add(service, acme, "goods", {"sku": 1})).json()["id"]
    before = (await read(service, acme, "goods")).json()
    document = problem(await define(service, acme, "goods", {"schema": SCHEMA}), 409, "collection.violated")
    assert [fault["pointer"] for fault in document["errors"]] == [f"/records/{bad}/data/sku"]
    assert (await read(service, acme, "goods")).json() == before


async def test_a_definition_that_takes_longer_is_an_operation(
    service: Service, acme: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request has its time, after which the operation goes on by itself."""
    monkeypatch.setattr(record_indexing, "SMALL", 0)
    monkeypatch.setattr(record_indexing, "BATCH", 1)
    monkeypatch.setattr(operations, "WAIT_SECONDS", 0.01)
    go = asyncio.Event()

    async def held_up() -> None:
        await go.wait()

    await add(service, acme, "goods", {"sku": "AB-1"})
    with arm("define.mid_build", held_up):
        begun = await define(service, acme, "goods", {"indexes": [["sku"]]})
        assert begun.status_code == 202, begun.text
        assert begun.headers["location"] == f"/v1/operations/{begun.json()['id']}"
        assert (await read(service, acme, "goods")).json()["state"] == "changing"
        problem(await define(service, acme, "goods", {"indexes": [["b"]]}), 409, "collection.changing")
    go.set()
    await asyncio.gather(*service.app._tasks)
    operation = await service.ask("GET", begun.headers["location"], acme.viewer)
    assert operation.json()["state"] == "succeeded"
    done = (await read(service, acme, "goods")).json()
    assert (done["indexes"], done["state"]) == ([["sku"]], "ready")


@pytest.mark.parametrize("small", [500, 0], ids=["at once", "by an operation"])
async def test_a_refused_definition_leaves_the_tag(
    service: Service, acme: Standing, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(record_indexing, "SMALL", small)
    monkeypatch.setattr(operations, "WAIT_SECONDS", 100)
    old = (await define(service, acme, "goods", {"indexes": [["city"]]})).headers["etag"]
    for sku in (1, 1, 2):
        await add(service, acme, "goods", {"sku": sku})
    before = await read(service, acme, "goods")
    for bad in ({"schema": SCHEMA}, {"unique": [["sku"]]}):
        problem(await define(service, acme, "goods", bad), 409, "collection.violated")
    after = await read(service, acme, "goods")
    assert (after.content, after.headers["etag"], before.headers["etag"]) == (before.content, old, old)
    assert (await read(service, acme, "goods", **{"if-none-match": old})).status_code == 304
    changed = await define(service, acme, "goods", {"indexes": [["sku"]]}, **{"if-match": old})
    assert (changed.status_code, changed.json()["indexes"]) == (200, [["sku"]])
    # With nothing changed behind the answer, which a sweep of old entries must not look like.
    assert (await read(service, acme, "goods")).headers["etag"] == changed.headers["etag"] != old


async def test_while_a_definition_changes_its_tag_is_another_and_the_old_one_no_reason_to_refuse(
    service: Service, acme: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client has read may be in force again when the change has been refused."""
    monkeypatch.setattr(record_indexing, "SMALL", 0)
    monkeypatch.setattr(operations, "WAIT_SECONDS", 0.01)
    go = asyncio.Event()

    async def held_up() -> None:
        await go.wait()

    old = (await define(service, acme, "goods", {})).headers["etag"]
    await add(service, acme, "goods", {"sku": 1})
    with arm("define.after_announce", held_up):
        assert (await define(service, acme, "goods", {"schema": SCHEMA})).status_code == 202
        during = await read(service, acme, "goods", **{"if-none-match": old})
        assert (during.status_code, during.json()["state"]) == (200, "changing")
        for method, body in (("PUT", {"indexes": [["a"]]}), ("DELETE", None)):
            path = f"{acme.path}/collections/goods"
            answer = await service.ask(method, path, acme.admin, body, headers={"if-match": old})
            problem(answer, 409, "collection.changing")
    go.set()
    await asyncio.gather(*service.app._tasks)
    now = await read(service, acme, "goods", **{"if-none-match": during.headers["etag"]})
    assert (now.status_code, now.json()["state"], now.headers["etag"]) == (200, "ready", old)


@pytest.mark.parametrize("small", [500, 0], ids=["at once", "by an operation"])
async def test_of_many_who_change_what_they_have_read_one_does(
    service: Service, acme: Standing, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(record_indexing, "SMALL", small)
    monkeypatch.setattr(operations, "WAIT_SECONDS", 100)
    tag = (await define(service, acme, "goods", {})).headers["etag"]
    await add(service, acme, "goods", {"n": 1})
    answers = await asyncio.gather(
        *(define(service, acme, "goods", {"indexes": [[f"field{n}"]]}, **{"if-match": tag}) for n in range(8))
    )
    (won,) = (answer for answer in answers if answer.status_code == 200)
    assert {answer.status_code for answer in answers} - {200} <= {409, 412}
    assert (await read(service, acme, "goods")).json() == won.json()
    problem(await define(service, acme, "goods", {}, **{"if-match": tag}), 412, "precondition.failed")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_change_of_another_version_is_refused(service: Service, acme: Standing, method: str) -> None:
    path = f"{acme.path}/collections/goods"
    body: dict[str, str] | None = {} if method == "PUT" else None
    if method == "PUT":
        answer = await service.ask(method, path, acme.admin, body, headers={"if-match": '"1.0"'})
        problem(answer, 412, "precondition.failed")
        problem(await read(service, acme, "goods"), 404, "resource.not_found")
    old = (await define(service, acme, "goods", {"indexes": [["a"]]})).headers["etag"]
    new = (await define(service, acme, "goods", {"indexes": [["b"]]})).headers["etag"]
    for name, tag in (("if-match", old), ("if-match", ""), ("if-none-match", "*"), ("if-none-match", new)):
        answer = await service.ask(method, path, acme.admin, body, headers={name: tag})
        problem(answer, 412, "precondition.failed")
    assert (await read(service, acme, "goods")).headers["etag"] == new
    answer = await service.ask(method, path, acme.admin, body, headers={"if-match": new})
    assert answer.status_code in (200, 204)


async def test_of_many_who_make_a_collection_that_must_be_new_one_does(service: Service, acme: Standing) -> None:
    path, new = f"{acme.path}/collections/goods", {"if-none-match": "*"}
    bodies = [{"indexes": [[f"field{n}"]]} for n in range(10)]
    answers = await asyncio.gather(*(service.ask("PUT", path, acme.admin, body, headers=new) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 9
    (made,) = (answer for answer in answers if answer.status_code == 201)
    assert (await read(service, acme, "goods")).json() == made.json()


async def test_only_an_empty_collection_can_be_deleted(service: Service, acme: Standing) -> None:
    made = (await add(service, acme, "goods", {})).json()
    path = f"{acme.path}/collections/goods"
    problem(await service.ask("DELETE", path, acme.admin), 409, "collection.not_empty")
    await service.ask("DELETE", f"{path}/records/{made['id']}", acme.member)
    assert (await service.ask("DELETE", path, acme.admin)).status_code == 204
    problem(await service.ask("DELETE", path, acme.admin), 404, "resource.not_found")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"schema": {"$schema": 5}}, "/schema/$schema"),
    ({"schema": {"type": "nothing"}}, "/schema"),
    ({"schema": {"$ref": "https://example.com/schema"}}, "/schema"),
    ({"indexes": [[]]}, "/indexes/0"),
    ({"indexes": [["a", "a"]]}, "/indexes/0"),
    ({"indexes": [["a"] * 5]}, "/indexes/0"),
    ({"indexes": [["a"], ["id"]]}, "/indexes/1/0"),
    ({"indexes": [["a..b"]]}, "/indexes/0/0"),
    ({"unique": [["tags[]"]]}, "/unique/0"),
    ({"unique": [["x" * 10_000]]}, "/unique/0/0"),
    ({"indexes": [[f"f{n}"] for n in range(17)]}, "/indexes"),
    ({"indexes": ["a"]}, "/indexes/0"),
    ({"indexes": [[1]]}, "/indexes/0/0"),
]


@pytest.mark.parametrize(("body", "pointer"), BAD, ids=[f"{n} {at}" for n, (_, at) in enumerate(BAD)])
async def test_a_bad_definition_is_refused_at_its_place(
    service: Service, acme: Standing, body: dict[str, Any], pointer: str
) -> None:
    answer = await define(service, acme, "goods", body)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"][: len(pointer)] for fault in answer.json()["errors"]] == [pointer]
    problem(await read(service, acme, "goods"), 404, "resource.not_found")


@pytest.mark.parametrize("name", ["A", "a-b", "_id", "__proto__", "x" * 64, "1", "%20", "a%2fb"])
async def test_a_bad_name_is_refused(service: Service, acme: Standing, name: str) -> None:
    answer = await define(service, acme, name, {})
    assert answer.status_code in (404, 422), answer.text
    problem(await read(service, acme, name), 404, "resource.not_found")
    assert (await service.ask("DELETE", f"{acme.path}/collections/{name}", acme.admin)).status_code == 404


async def test_collections_are_listed_by_name(service: Service, acme: Standing) -> None:
    other = await service.organization("Other")
    names = ["alpha", "beta", "gamma", "delta", "epsilon"]
    for name in names:
        await define(service, acme, name, {})
    await define(service, other, "theirs", {})
    seen: list[str] = []
    query: str | None = "?limit=2"
    while query is not None:
        found = (await service.ask("GET", f"{acme.path}/collections{query}", acme.viewer)).json()
        seen += [one["name"] for one in found["data"]]
        cursor = found["next_cursor"]
        query = f"?limit=2&cursor={cursor}" if cursor else None
        if cursor:
            answer = await service.ask("GET", f"{other.path}/collections?cursor={cursor}", other.owner)
            problem(answer, 400, "cursor.invalid")
    assert seen == sorted(names)


async def test_a_plan_allows_so_many_collections(services: Services, anyio_backend: str) -> None:
    plans = {"free": {"requests_per_second": None, "max_collections": 3}}
    async with services(plans=plans) as service:
        acme = await service.organization("Acme")
        answers = await asyncio.gather(*(define(service, acme, f"c{n}", {}) for n in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 17
        document = problem(await add(service, acme, "another", {}), 403, "quota.exceeded")
        assert document["quota"] == {"what": "collections", "used": 3, "limit": 3}
