"""What a refusal says of a value: what would be acceptable, as the model has it, and nothing of the input."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.actors import Service, Standing, problem

pytestmark = pytest.mark.anyio


@pytest.fixture
async def acme(service: Service) -> Standing:
    return await service.organization("Acme")


def only(document: dict[str, Any]) -> dict[str, Any]:
    (fault,) = document["errors"]
    assert isinstance(fault, dict)
    return fault


@pytest.mark.parametrize(
    ("path", "pointer", "detail"),
    [
        ("/v1/organizations?limit=0", "/limit", "This must be at least 1."),
        ("/v1/organizations?limit=100000000", "/limit", "This must be at most 200."),
        ("/v1/organizations?limit=canary", "/limit", "This must be a whole number."),
        ("/v1/organizations?limit=", "/limit", "This must be a whole number."),
        ("/v1/organizations?order=canary", "/order", "This must be 'created_at' or '-created_at'."),
        ("{own}/events?start=canary", "/start", "This must be 'oldest' or 'now'."),
        (
            "/v1/organizations?canary=1",
            "",
            "There is something here that this request does not know; it knows limit, cursor, order.",
        ),
    ],
)
async def test_a_query_is_told_what_it_may_say(
    service: Service, acme: Standing, path: str, pointer: str, detail: str
) -> None:
    answer = await service.ask("GET", path.format(own=acme.path), acme.owner)
    fault = only(problem(answer, 422, "request.invalid"))
    assert (fault["pointer"], fault["detail"]) == (pointer, detail)
    assert "canary" not in answer.text


async def test_a_deletion_is_told_how_to_ask_for_a_purge(service: Service, acme: Standing) -> None:
    answer = await service.ask("DELETE", acme.path + "?purge=true", acme.owner)
    assert only(problem(answer, 422, "request.invalid"))["detail"] == "This must be 'now'."


@pytest.mark.parametrize(
    ("action", "body", "pointer", "detail"),
    [
        ("/collections/goods/records", {"data": {}, "canary": 1}, "", "it knows id, data."),
        ("/collections/goods", {"schema": {}, "canary": 1}, "", "it knows schema, indexes, unique."),
        (
            "/records:batch",
            {"operations": [{"op": "create", "collection": "goods", "data": {}, "canary": 1}]},
            "/operations/0",
            "it knows op, collection, id, data, if_version.",
        ),
        ("/records:batch", {"operations": [{"op": "canary"}]}, "/operations/0/op", "'create', 'replace'"),
        ("/records:batch", {"operations": "canary"}, "/operations", "This must be a list."),
        ("/collections/goods/records:batchGet", {"ids": []}, "/ids", "There must be at least 1."),
        ("/collections/goods/records:batchGet", {"ids": ["a"] * 201}, "/ids", "There must be at most 200."),
        ("/collections/goods/query", {"limit": 1000}, "/limit", "This must be at most 200."),
        ("/collections/goods/query", {"limit": "1"}, "/limit", "This must be a whole number."),
        ("/api_keys", {"name": "a", "role": "canary"}, "/role", "'viewer'"),
    ],
)
async def test_a_body_is_told_what_it_may_say(
    service: Service, acme: Standing, action: str, body: Any, pointer: str, detail: str
) -> None:
    method = "PUT" if action == "/collections/goods" else "POST"
    answer = await service.ask(method, acme.path + action, acme.owner, body)
    found = {fault["pointer"]: fault["detail"] for fault in problem(answer, 422, "request.invalid")["errors"]}
    assert detail in found[pointer], found
    assert "canary" not in answer.text
