"""The OpenAPI document, the documentation page, and the answers that the document describes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from orgstead.api import application, docs_page, record_schemas, schemas
from orgstead.api.documented import TITLES
from orgstead.api.errors import STATUS
from orgstead.storage import tables
from tests.api.actors import PASSWORD, Service

DOCUMENT: dict[str, Any] = json.loads(json.dumps(application.openapi()))
OPERATIONS = [
    (method, path, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]
NAMES = [operation["operationId"] for _, _, operation in OPERATIONS]
operations = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)

MODELS: dict[str, type[BaseModel]] = {
    name: model
    for module in (schemas, record_schemas)
    for name, model in vars(module).items()
    if isinstance(model, type) and issubclass(model, BaseModel)
}

BRIEF = {
    "/org/create": "post",
    "/org/get": "get",
    "/org/update": "put",
    "/org/delete": "delete",
    "/admin/login": "post",
}


def test_the_routes_of_the_brief_are_there_under_their_title() -> None:
    for path, method in BRIEF.items():
        assert DOCUMENT["paths"][path][method]["tags"] == ["Organization service"]


def test_every_operation_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)+", name) for name in NAMES)


def test_every_route_is_in_the_document_or_is_documentation_itself() -> None:
    hidden = {route.path for route in application.routes() if not isinstance(route, APIRoute)}  # type: ignore[attr-defined]
    assert hidden == {"/openapi.json", "/docs", "/docs/{name}"}


@operations
def test_an_operation_says_what_may_go_wrong(method: str, path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    assert {"400", "500", "503"} <= responses.keys()
    if any(status in responses for status in ("401",)) and operation.get("security"):
        assert operation["security"][0] == {"bearer": []}
    for status, response in responses.items():
        assert "X-Request-Id" in response["headers"]
        if int(status) >= 400:
            (content,) = response["content"].items()
            assert content == ("application/problem+json", {"schema": {"$ref": "#/components/schemas/Problem"}})
    if "requestBody" in operation:
        assert {"413", "415", "422"} <= responses.keys()
    if operation.get("security"):
        assert "429" in responses, "every guard counts the request against the organization's rate"
    if "429" in responses:
        assert "Retry-After" in responses["429"]["headers"]


@operations
def test_an_operation_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["description"].endswith(".")
    assert operation["tags"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("organizations_suspend", "nobody can log in"),
        ("organizations_reactivate", "only the operator can reactivate it"),
        ("auth_logout", "also with its ``Idempotency-Key``"),
    ],
)
def test_what_cannot_be_taken_back_by_oneself_is_told_before(name: str, told: str) -> None:
    (description,) = [operation["description"] for _, _, operation in OPERATIONS if operation["operationId"] == name]
    assert told in " ".join(description.split())


def test_every_operation_has_a_title_of_its_own() -> None:
    titles = [operation["summary"] for _, _, operation in OPERATIONS]
    assert len(set(titles)) == len(titles)


@operations
def test_a_body_has_an_example_that_is_valid(method: str, path: str, operation: dict[str, Any]) -> None:
    if "requestBody" not in operation:
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    model: type[BaseModel] = MODELS[name]
    examples = DOCUMENT["components"]["schemas"][name]["examples"]
    assert examples
    for example in examples:
        model.model_validate(example)


@operations
def test_every_parameter_of_the_path_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    described = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
    assert described == re.findall(r"\{(\w+)\}", path)
    assert all(p["description"] for p in operation.get("parameters", []))


@operations
def test_every_post_takes_an_idempotency_key(method: str, path: str, operation: dict[str, Any]) -> None:
    headers = [p["name"] for p in operation.get("parameters", []) if p["in"] == "header"]
    assert ("Idempotency-Key" in headers) is (method == "post")


@operations
def test_what_is_read_one_at_a_time_has_a_tag(method: str, path: str, operation: dict[str, Any]) -> None:
    """And with it If-None-Match and 304; lists, and answers that are no resource, have none. Changes take both
    conditions."""
    single = {
        "organizations_get",
        "org_get",
        "api_keys_get",
        "me_get",
        "operations_get",
        "collections_get",
        "records_get",
    }
    headers = [p["name"] for p in operation.get("parameters", []) if p["in"] == "header"]
    reads, changes = (status in operation["responses"] for status in ("304", "412"))
    assert reads is (operation["operationId"] in single)
    assert [name for name in headers if name.startswith("If-")] == ["If-Match"] * changes + ["If-None-Match"] * (
        reads or changes
    )
    tagged = {status for status, response in operation["responses"].items() if "ETag" in response["headers"]}
    changing = {"organizations_create": "201", "org_update": "200", "organizations_update": "200"}
    changing |= dict.fromkeys([f"organizations_{verb}" for verb in _VERBS], "200")
    changing |= {"records_create": "201", "records_replace": "200", "records_update": "200"}
    if operation["operationId"] == "collections_define":
        expected = {"200", "201"}
    elif operation["operationId"] in single:
        expected = {"200", "304"}
    else:
        expected = {changing.get(operation["operationId"], "")} - {""}
    assert tagged == expected


_VERBS = ("rename", "change_plan", "suspend", "reactivate", "restore")


def test_every_model_of_a_request_refuses_what_it_does_not_know_and_converts_nothing() -> None:
    models = [model for model in MODELS.values() if issubclass(model, schemas.Input)]
    used = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in OPERATIONS
        if "requestBody" in operation
    }
    assert used <= {model.__name__ for model in models}
    for model in models:
        assert (model.model_config["extra"], model.model_config["strict"]) == ("forbid", True)


def test_every_route_has_a_response_model_or_answers_with_nothing() -> None:
    for route in application.routes():
        if isinstance(route, APIRoute):
            assert route.response_model is not None or route.status_code == 204, route.path


def test_every_status_that_an_error_may_have_is_described() -> None:
    assert set(STATUS.values()) - {405} == TITLES.keys()


def test_references_lead_somewhere() -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        node: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_document_names_no_server() -> None:
    assert [server["url"] for server in DOCUMENT["servers"]] == ["/"]
    assert DOCUMENT["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


@pytest.mark.anyio
async def test_answers_are_as_the_models_say(service: Service) -> None:
    owner = {"email": "ada@acme.example.com", "password": PASSWORD}
    made = await service.ask("POST", "/org/create", body={"organization_name": "Acme", **owner})
    schemas.CreatedOrganization.model_validate_json(made.content)
    granted = await service.ask("POST", "/admin/login", body=owner)
    tokens = schemas.Tokens.model_validate_json(granted.content)
    headers = {"authorization": f"Bearer {tokens.access_token}"}
    path = f"/v1/organizations/{tokens.organization_id}"
    read = await service.ask("GET", path, headers=headers)
    schemas.Organization.model_validate_json(read.content)
    listed = await service.ask("GET", "/v1/organizations", headers=headers)
    schemas.OrganizationList.model_validate_json(listed.content)
    me = await service.ask("GET", "/v1/me", headers=headers)
    schemas.Me.model_validate_json(me.content)
    problem = await service.ask("GET", path)
    schemas.Problem.model_validate_json(problem.content)
    (operation,) = (await service.rows(tables.operations))[:1]
    shown = await service.ask("GET", f"/v1/operations/{operation.id}", headers=headers)
    assert schemas.Operation.model_validate_json(shown.content).state == "succeeded"
    deleted = await service.ask("DELETE", path, headers=headers)
    schemas.Deletion.model_validate_json(deleted.content)


@pytest.mark.anyio
async def test_the_examples_of_the_brief_work_as_they_are_shown(service: Service) -> None:
    def example(model: type[BaseModel]) -> Any:
        return DOCUMENT["components"]["schemas"][model.__name__]["examples"][0]

    assert (await service.ask("POST", "/org/create", body=example(schemas.OrgCreate))).status_code == 201
    granted = await service.ask("POST", "/admin/login", body=example(schemas.AdminLogin))
    assert granted.status_code == 200
    headers = {"authorization": f"Bearer {granted.json()['access_token']}"}
    changed = await service.ask("PUT", "/org/update", body=example(schemas.OrgUpdate), headers=headers)
    assert changed.status_code == 200


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_page_loads_nothing_but_files_of_its_own(service: Service) -> None:
    page = await service.client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {link.rpartition("/")[2] for link in loaded if link != "/openapi.json"} == docs_page.ASSETS.keys()
    for link in loaded:
        assert link.startswith("/")
        answer = await service.client.get(link)
        assert answer.status_code == 200
        assert answer.content
    assert "<script>" not in page.text
    assert "style=" not in page.text


@pytest.mark.anyio
async def test_the_page_forbids_scripts_from_elsewhere_and_inline(service: Service) -> None:
    page = await service.client.get("/docs")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; ") if " " in part)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["README.md", "SHA256SUMS", "index.html", "..%2fopenapi.py", "%2e%2e/errors.py", ""])
async def test_no_other_file_of_the_package_can_be_had(service: Service, name: str) -> None:
    assert (await service.client.get(f"/docs/{name}")).status_code == 404


def test_the_files_of_swagger_ui_are_the_published_ones() -> None:
    folder = files("orgstead.api").joinpath("assets")
    listed = dict(line.split()[::-1] for line in folder.joinpath("SHA256SUMS").read_text("utf-8").splitlines())
    assert listed.keys() == {"swagger-ui.css", "swagger-ui-bundle.js"}
    for name, digest in listed.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest
    assert "Apache License" in folder.joinpath("LICENSE.swagger-ui.txt").read_text("utf-8")
