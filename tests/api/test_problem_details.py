"""Errors as HTTP says them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orgstead import errors
from orgstead.api.errors import MAX_BYTES, STATUS, Rendered, render, status_of
from orgstead.errors import OrgsteadError, Problem, catalogue

ID = "req_0123456789"


def made(cls: type[OrgsteadError]) -> OrgsteadError:
    if cls is errors.OrganizationRequired:
        return errors.OrganizationRequired([("org_1", "acme", "Acme")])
    if cls is errors.AlreadyExists:
        return errors.AlreadyExists("slugs.key")
    return cls()


def document(rendered: Rendered) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(rendered.body)
    return read


def test_the_table_names_every_error_and_nothing_else() -> None:
    assert set(STATUS) == set(catalogue())


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in catalogue()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", list(catalogue()), ids=lambda cls: cls.code)
def test_every_error_is_a_complete_problem(cls: type[OrgsteadError]) -> None:
    rendered = render(made(cls), ID, allow=["GET"])
    shown = document(rendered)
    headers = dict(rendered.headers)
    expected = errors.NotFound if cls is errors.OutOfScope else cls
    assert rendered.status == shown["status"] == STATUS[cls]
    assert (shown["code"], shown["title"]) == (expected.code, expected.title)
    assert shown["type"] == f"urn:orgstead:error:{expected.code}"
    assert shown["request_id"] == ID
    assert shown["detail"]
    assert shown["errors"] == []
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(rendered.body)).encode()
    assert (b"www-authenticate" in headers) == (rendered.status == 401)
    assert (b"retry-after" in headers) == (rendered.status in (429, 503))
    assert (b"allow" in headers) == (rendered.status == 405)


def test_what_exists_elsewhere_looks_like_what_does_not_exist() -> None:
    assert render(errors.OutOfScope("It is Beta's."), ID) == render(errors.NotFound(), ID)


def test_a_token_that_is_wrong_is_told_from_none_at_all() -> None:
    assert dict(render(errors.InvalidToken(), ID).headers)[b"www-authenticate"].endswith(b'error="invalid_token"')
    assert dict(render(errors.Unauthenticated(), ID).headers)[b"www-authenticate"] == b'Bearer realm="orgstead"'


@pytest.mark.parametrize(("seconds", "shown"), [(None, b"1"), (0.0, b"1"), (0.2, b"1"), (1.2, b"2"), (60, b"60")])
def test_retry_after_is_in_whole_seconds_and_never_now(seconds: float | None, shown: bytes) -> None:
    assert dict(render(errors.RateLimited(retry_after=seconds), ID).headers)[b"retry-after"] == shown


def test_allow_lists_the_methods() -> None:
    assert dict(render(errors.MethodNotAllowed(), ID, allow={"PUT", "GET"}).headers)[b"allow"] == b"GET, PUT"


def test_each_fault_has_its_place() -> None:
    fault = Problem("/owner/email", "email.invalid", "It has no @.")
    shown = document(render(errors.InvalidInput(problems=[fault]), ID))
    assert shown["errors"] == [{"pointer": "/owner/email", "code": "email.invalid", "detail": "It has no @."}]


def test_many_faults_are_cut_to_fit() -> None:
    faults = [Problem(f"/items/{n}", "value.invalid", "It cannot be stored.") for n in range(5000)]
    rendered = render(errors.InvalidInput(problems=faults), ID)
    shown = document(rendered)["errors"]
    assert len(rendered.body) <= MAX_BYTES
    assert len(shown) > 10
    assert shown[0]["pointer"] == "/items/0"


def test_the_organizations_to_choose_from_are_listed_and_cut_to_fit() -> None:
    few = render(errors.OrganizationRequired([("org_1", "acme", "Acme"), ("org_2", "beta", "Béta")]), ID)
    assert document(few)["organizations"] == [
        {"id": "org_1", "slug": "acme", "name": "Acme"},
        {"id": "org_2", "slug": "beta", "name": "Béta"},
    ]
    many = render(errors.OrganizationRequired([(f"org_{n}", f"acme-{n}", "É" * 200) for n in range(500)]), ID)
    assert len(many.body) <= MAX_BYTES
    assert document(many)["organizations"]


def test_a_class_outside_the_table_answers_like_its_parent() -> None:
    class Odd(errors.NameTaken):
        pass

    class Alien(OrgsteadError):
        pass

    assert status_of(Odd()) == 409
    assert status_of(Alien()) == 500
