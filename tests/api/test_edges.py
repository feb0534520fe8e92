"""What HTTP expects of every route: methods, HEAD, unknown paths, faults of our own; and the management port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import httpx2
import pytest

from orgstead.api import application
from orgstead.errors import StorageBusy
from orgstead.storage import tables
from tests.api.actors import PASSWORD, Service, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio


METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"}

UNKNOWN = """
/ /v1 /v1/ /org /v1/organizations/ /org/create/
/metrics /healthz /redoc /docs/ /v1/organizations/x/y /%2e%2e/etc //v1/me
"""


@pytest.mark.parametrize("path", UNKNOWN.split())
async def test_an_unknown_path_is_a_problem_and_no_redirect(service: Service, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        problem(await service.client.request(method, path), 404, "resource.not_found")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/org/create", "POST"),
        ("/org/get", "GET, HEAD"),
        ("/v1/organizations", "GET, HEAD, POST"),
        ("/v1/organizations/org_x", "DELETE, GET, HEAD, PATCH"),
        ("/v1/organizations/org_x/rename", "POST"),
        ("/docs", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_told_which_it_has(service: Service, path: str, allow: str) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"} - set(
        allow.split(", ")
    ):
        answer = await service.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        if method != "HEAD":
            problem(answer, 405, "request.method_not_allowed")


async def test_head_is_get_without_the_body(service: Service) -> None:
    acme = await service.organization("Acme")
    same = {"x-request-id": "one-and-the-same"}
    for path, person in ((acme.path, acme.owner), ("/v1/me", acme.viewer), ("/v1/me", None), ("/docs", None)):
        get = await service.ask("GET", path, person, headers=same)
        head = await service.ask("HEAD", path, person, headers=same)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers == get.headers


async def test_no_byte_of_a_body_is_sent_to_head(service: Service) -> None:
    """Looked at below the client, which would drop the body by itself."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "path": "/docs", "query_string": b"", "headers": [(b"host", b"test")]}
    await application.build(service.app)({**scope, "client": None, "root_path": ""}, receive, send)
    assert sent[0]["status"] == 200
    assert b"".join(message["body"] for message in sent[1:]) == b""


async def test_no_header_overrides_the_method_or_the_organization(service: Service) -> None:
    acme, other = await service.organization("Acme"), await service.organization("Other")
    tricks = {"x-http-method-override": "DELETE", "x-org-id": other.id, "cookie": f"org={other.id}"}
    answer = await service.ask("GET", acme.path, acme.owner, headers=tricks)
    assert (answer.status_code, answer.json()["id"]) == (200, acme.id)
    answer = await service.ask("POST", acme.path + "/plan?_method=DELETE", acme.owner, {"plan": "pro"}, headers=tricks)
    assert (answer.status_code, answer.json()["status"]) == (200, "active")


async def test_a_fault_of_ours_is_a_problem_that_says_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await service.organization("Acme")

    async def broken(*_: Any) -> None:
        raise RuntimeError("canary of the cause")

    monkeypatch.setattr(service.app.storage, "access", broken)
    answer = await service.ask("GET", acme.path, acme.owner)
    problem(answer, 500, "service.internal")
    assert "canary" not in answer.text


async def test_a_database_that_is_down_is_a_503_with_when_to_retry(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await service.organization("Acme")

    async def down(*_: Any) -> None:
        raise StorageBusy

    monkeypatch.setattr(service.app.storage, "access", down)
    answer = await service.ask("GET", acme.path, acme.owner)
    problem(answer, 503, "storage.busy")
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_operation_is_seen_by_its_own_organization_only(service: Service) -> None:
    acme, other = await service.organization("Acme", "enterprise"), await service.organization("Other")
    (operation,) = await service.rows(tables.operations, org_id=acme.id)
    path = f"/v1/operations/{operation.id}"
    shown = (await service.ask("GET", path, acme.viewer)).json()
    assert (shown["kind"], shown["state"], shown["organization_id"]) == ("organization.create", "succeeded", acme.id)
    assert "payload" not in shown
    same = {"x-request-id": "one-and-the-same"}
    foreign = await service.ask("GET", path, other.owner, headers=same)
    problem(foreign, 404, "resource.not_found")
    for missing in ("op_01arz3ndektsv4rrffq69g5fav", "x", "op_" + "x" * 5000, "%F0%9F%98%80"):
        assert (
            await service.ask("GET", f"/v1/operations/{missing}", other.owner, headers=same)
        ).content == foreign.content


async def test_one_new_address_that_signs_up_many_times_at_once_is_one_account(service: Service) -> None:
    owner = {"email": "ada@acme.example.com", "password": PASSWORD}
    answers = await asyncio.gather(
        *(service.ask("POST", "/v1/organizations", body={"name": f"Acme {n}", "owner": owner}) for n in range(8))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len(await service.rows(tables.users)) == 1
    assert len(await service.rows(tables.organizations)) == 8


async def test_the_actor_of_an_audit_entry_is_the_caller_with_request_and_address(service: Service) -> None:
    acme = await service.organization("Acme")
    await service.ask("PATCH", acme.path, acme.admin, {"name": "Nova"}, headers={"x-request-id": "req-of-the-test"})
    (entry,) = [e for e in await service.rows(tables.audit_entries) if e.action == "organization.updated"]
    assert (entry.actor, entry.request_id, entry.address) == (acme.admin.user_id, "req-of-the-test", "192.0.2.1")


# --- the management port --------------------------------------------------------------------------------------------


async def test_the_management_port_tells_alive_from_ready(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    management = application.serving(service.app).management
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=management), base_url="http://127.0.0.1"
    ) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json() == {"status": "ready"}

        async def down(*_: Any, **__: Any) -> None:
            raise StorageBusy

        async def slow(*_: Any, **__: Any) -> None:
            raise TimeoutError

        for verb, broken, code in (
            ("check", down, "storage.busy"),
            ("read", down, "storage.busy"),
            ("read", slow, "storage.slow"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(service.app.storage, verb, broken)
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["code"]) == (503, code)
                assert int(answer.headers["retry-after"]) >= 1
                assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz/", "/v1/me", "/docs"])
async def test_what_the_management_port_has_not_is_a_problem_too(service: Service, path: str) -> None:
    management = application.serving(service.app).management
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=management), base_url="http://127.0.0.1"
    ) as client:
        for answer, status, code in (
            (await client.get(path), 404, "resource.not_found"),
            (await client.post("/metrics"), 405, "request.method_not_allowed"),
        ):
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert answer.json()["code"] == code
            assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["localhost:8411"], 200),
        (["LOCALHOST."], 200),
        (["monitor.internal"], 200),
        (["orgs.example.com"], 200),
        (["127.0.0.1:8411"], 200),
        (["10.1.2.3:8411"], 200),
        (["[::1]:8411"], 200),
        (["[fd00::17]"], 200),
        ([], 200),
        (["rebound.attacker.example"], 400),
        (["127.0.0.1.attacker.example"], 400),
        (["0x7f.1"], 400),
        (["localhost", "attacker.example"], 400),
        ([""], 400),
        (["[::1"], 400),
    ],
)
async def test_the_management_port_answers_to_addresses_and_to_names_of_its_own(
    services: Services, hosts: list[str], status: int
) -> None:
    """A page of another site can give its own name this machine's address, and read what answers to that name."""
    changes = {"http": {"allowed_hosts": ["orgs.example.com"]}, "management": {"host": "monitor.internal"}}
    async with services(**changes) as service:
        management = application.serving(service.app).management
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/metrics",
            "query_string": b"",
            "headers": [(b"host", host.encode()) for host in hosts],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await management(scope, receive, send)
    assert sent[0]["status"] == status
    shown = b"".join(message.get("body", b"") for message in sent)
    assert (b"process_cpu_seconds" in shown) is (status == 200)
    assert status == 200 or json.loads(shown)["code"] == "request.host_unknown"


async def test_metrics_count_by_route_and_never_by_organization(service: Service) -> None:
    acme = await service.organization("Acme")
    public, management = application.serving(service.app)
    async with (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=public), base_url="http://test") as client,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=management), base_url="http://127.0.0.1") as watcher,
    ):
        for method in ("GET", "HEAD"):
            assert (await client.request(method, acme.path, headers=acme.owner.headers)).status_code == 200
        await client.get("/nowhere")
        for page in ("/docs", "/docs/page.css", "/openapi.json"):
            assert (await client.get(page)).status_code == 200
        shown = (await watcher.get("/metrics")).text
    for method in ("GET", "HEAD"):
        labels = f'{{method="{method}",route="/v1/organizations/{{organization_id}}",status="2xx"}}'
        assert f"orgstead_http_requests_total{labels} 1.0" in shown
    assert 'route="unmatched",status="4xx"' in shown
    for page in ("/docs", "/docs/{name}", "/openapi.json"):
        assert f'orgstead_http_requests_total{{method="GET",route="{page}",status="2xx"}} 1.0' in shown
    assert acme.id not in shown
    assert "nowhere" not in shown
