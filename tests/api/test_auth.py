"""/v1/auth and /v1/me over HTTP, and what counts as a credential."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orgstead.errors import ConfigurationError
from orgstead.model import Role
from tests.api.actors import PASSWORD, Service, problem
from tests.api.conftest import Services

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/v1/auth/login", "/admin/login"])
async def test_a_wrong_password_an_unknown_address_and_a_suspended_organization_are_one_answer(
    service: Service, path: str
) -> None:
    acme, suspended = await service.organization("Acme"), await service.suspended("Suspended")
    same = {"x-request-id": "one-and-the-same"}
    answers = [
        await service.ask("POST", path, body=body, headers=same)
        for body in (
            {"email": acme.owner.email, "password": "not the password"},
            {"email": "nobody@people.example.com", "password": PASSWORD},
            {"email": "no address", "password": PASSWORD},
            {"email": suspended.owner.email, "password": PASSWORD},
            {"email": acme.owner.email, "password": PASSWORD, "organization": "suspended"},
            {"email": acme.owner.email, "password": PASSWORD, "organization": "missing"},
        )
    ]
    problem(answers[0], 401, "auth.bad_credentials")
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1
    assert answers[0].headers["www-authenticate"].startswith("Bearer")


async def test_several_organizations_are_listed_to_choose_from(service: Service) -> None:
    acme = await service.organization("Acme")
    user = await service.stored_user("ada@people.example.com")
    for name in ("One", "Two"):
        organization = (await service.organization(name)).organization
        await service.join(organization, user, Role.MEMBER)
    login = {"email": user.email, "password": PASSWORD}
    answer = await service.ask("POST", "/v1/auth/login", body=login)
    choices = problem(answer, 409, "auth.organization_required")["organizations"]
    assert [(choice["slug"], choice["name"]) for choice in choices] == [("one", "One"), ("two", "Two")]
    for named in (choices[1]["id"], "two", "Two"):
        granted = await service.ask("POST", "/v1/auth/login", body={**login, "organization": named})
        assert granted.json()["organization_id"] == choices[1]["id"]
    foreign = await service.ask("POST", "/v1/auth/login", body={**login, "organization": acme.id})
    problem(foreign, 401, "auth.bad_credentials")


async def test_a_refresh_token_works_once_and_is_no_access_token(service: Service) -> None:
    acme = await service.organization("Acme")
    login = {"email": acme.owner.email, "password": PASSWORD}
    first = (await service.ask("POST", "/v1/auth/login", body=login)).json()
    service.watch.advance(seconds=60)
    second = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    headers = {"authorization": f"Bearer {second.json()['refresh_token']}"}
    problem(await service.ask("GET", "/v1/me", headers=headers), 401, "auth.token_invalid")
    used = {"authorization": f"Bearer {second.json()['access_token']}"}
    assert (await service.ask("GET", "/v1/me", headers=used)).status_code == 200
    service.watch.advance(seconds=60)
    reused = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": first["refresh_token"]})
    problem(reused, 401, "auth.token_invalid")
    problem(await service.ask("GET", "/v1/me", headers=used), 401, "auth.token_invalid")
    for garbage in ("", "x", first["access_token"], "rt_" + "0" * 26 + "_1_" + "0" * 64):
        answer = await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": garbage})
        problem(answer, 401, "auth.token_invalid")


async def test_a_logout_ends_this_session_at_once_and_no_other(service: Service) -> None:
    acme = await service.organization("Acme")
    ended = await service.ask("POST", "/v1/auth/logout", acme.owner)
    assert (ended.status_code, ended.content) == (204, b"")
    assert "content-type" not in ended.headers
    problem(await service.ask("GET", "/v1/me", acme.owner), 401, "auth.token_invalid")
    assert (await service.ask("GET", "/v1/me", acme.admin)).status_code == 200


async def test_members_of_a_suspended_organization_can_log_out(service: Service) -> None:
    acme = await service.suspended("Acme")
    assert (await service.ask("POST", "/v1/auth/logout", acme.viewer)).status_code == 204


async def test_a_password_is_changed_by_whoever_knows_it(service: Service) -> None:
    acme = await service.organization("Acme")
    path, new = "/v1/auth/password", "a very new password"
    wrong = {"current_password": "not the password", "new_password": new}
    problem(await service.ask("POST", path, acme.owner, wrong), 401, "auth.bad_credentials")
    weak = await service.ask("POST", path, acme.owner, {"current_password": PASSWORD, "new_password": "short"})
    assert problem(weak, 422, "password.unacceptable")["errors"][0]["pointer"] == "/new_password"
    changed = await service.ask("POST", path, acme.owner, {"current_password": PASSWORD, "new_password": new})
    assert changed.status_code == 204
    assert (await service.ask("GET", "/v1/me", acme.owner)).status_code == 200
    login = {"email": acme.owner.email, "password": new}
    assert (await service.ask("POST", "/v1/auth/login", body=login)).status_code == 200


@pytest.mark.parametrize("text", ["Zürich Müller AG", "zurich-muller-ag"])
async def test_the_name_of_the_organization_is_no_password(service: Service, text: str) -> None:
    acme = await service.organization("Zürich Müller AG")
    change = {"current_password": PASSWORD, "new_password": text}
    problem(await service.ask("POST", "/v1/auth/password", acme.owner, change), 422, "password.unacceptable")
    problem(await service.ask("PUT", "/org/update", acme.owner, {"password": text}), 422, "password.unacceptable")
    create = {"organization_name": "ZÜRICH müller AG", "email": "new@example.com", "password": text}
    problem(await service.ask("POST", "/org/create", body=create), 422, "password.unacceptable")


async def test_me_is_who_the_token_is_for(service: Service) -> None:
    acme = await service.organization("Acme")
    for role, person in acme.people.items():
        me = (await service.ask("GET", "/v1/me", person)).json()
        assert (me["id"], me["email"], me["organization_id"]) == (person.user_id, person.email, acme.id)
        assert (me["role"], me["session_id"]) == (role, person.session_id)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "auth.required"),
        ("", "auth.token_invalid"),
        ("Bearer", "auth.token_invalid"),
        ("Bearer ", "auth.token_invalid"),
        ("Bearer\t{token}", "auth.token_invalid"),
        ("Bearer  {token}", "auth.token_invalid"),
        ("Bearer {token} ", None),
        ("Bearer {token} x", "auth.token_invalid"),
        ("Bearer {token},{token}", "auth.token_invalid"),
        ("Basic {token}", "auth.token_invalid"),
        ("{token}", "auth.token_invalid"),
        ("Bearer {token}x", "auth.token_invalid"),
        ("Bearer é", "auth.token_invalid"),
    ],
)
async def test_only_one_bearer_token_is_a_credential(service: Service, value: str | None, code: str | None) -> None:
    acme = await service.organization("Acme")
    headers = {} if value is None else {b"authorization": value.format(token=acme.owner.token).encode()}
    answer = await service.client.get("/v1/me", headers=headers)
    if code is None:
        assert answer.status_code in (200, 401)
    else:
        problem(answer, 401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_two_authorization_headers_are_none(service: Service) -> None:
    acme = await service.organization("Acme")
    twice = [("authorization", f"Bearer {acme.owner.token}")] * 2
    answer = await service.client.get("/v1/me", headers=twice)
    assert answer.status_code in (400, 401)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_written_in_any_case(service: Service, scheme: str) -> None:
    acme = await service.organization("Acme")
    answer = await service.client.get("/v1/me", headers={"authorization": f"{scheme} {acme.owner.token}"})
    assert answer.status_code == 200


async def test_an_expired_token_is_refused(service: Service) -> None:
    acme = await service.organization("Acme")
    service.watch.advance(seconds=900 + 60)
    problem(await service.ask("GET", "/v1/me", acme.owner), 401, "auth.token_invalid")


async def test_the_keys_of_a_shared_secret_are_not_shown(service: Service) -> None:
    answer = await service.client.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})


async def test_a_token_does_not_outlive_its_organization_under_the_same_name(service: Service) -> None:
    acme = await service.organization("Acme")
    await service.ask("DELETE", f"{acme.path}?purge=now&confirm=acme", acme.owner)
    service.watch.advance(days=31)
    again = await service.organization("Acme")
    service.watch.advance(days=-31)
    assert again.slug == acme.slug
    for path in ("/v1/me", again.path, acme.path):
        problem(await service.ask("GET", path, acme.owner), 401, "auth.token_invalid")


async def test_a_service_does_not_start_with_a_signing_key_that_others_may_read(
    services: Services, tmp_path: Path
) -> None:
    path = tmp_path / "signing.pem"
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o644)
    with pytest.raises(ConfigurationError) as refused:
        async with services(jwt={"algorithm": "EdDSA", "key_file": path}):
            pass
    assert refused.value.next == f"chmod 600 {path}"
    path.chmod(0o600)
    async with services(jwt={"algorithm": "EdDSA", "key_file": path}) as service:
        (published,) = (await service.ask("GET", "/.well-known/jwks.json")).json()["keys"]
        assert (published["alg"], "d" in published) == ("EdDSA", False)
