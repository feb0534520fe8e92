"""Names of organizations as people and attackers send them, by every route that takes one (security.md A)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from orgstead.storage import tables
from tests.api import matrix
from tests.api.actors import PASSWORD, Service, Standing, problem
from tests.api.conftest import Services
from tests.api.matrix import Call, Town, assert_decent, founded
from tests.apps import assert_clean, space_names

pytestmark = pytest.mark.anyio

ROUTES: dict[str, tuple[str, str]] = {
    "POST /org/create": ("organization_name", "/org/create"),
    "POST /v1/organizations": ("name", "/v1/organizations"),
    "POST rename": ("name", matrix.OWN + "/rename"),
    "PATCH": ("name", matrix.OWN),
    "PUT /org/update": ("organization_name", "/org/update"),
}
"""Every route that takes a name: the member that it is in, and the path."""


async def named(service: Service, standing: Standing, route: str, name: Any, number: int = 0) -> httpx2.Response:
    """The answer to giving the organization, or a new one, this name."""
    member, path = ROUTES[route]
    body: dict[str, Any] = {member: name}
    if route == "POST /org/create":
        body |= {"email": f"someone{number}@people.example.com", "password": PASSWORD}
    method = "PATCH" if route == "PATCH" else "PUT" if "PUT" in route else "POST"
    answer = await service.client.request(
        method,
        path.format(organization_id=standing.id),
        headers={**standing.owner.headers, "content-type": "application/json"},
        # ASCII: what is no Unicode text is sent, too.
        content=json.dumps(body),
    )
    assert_decent(answer)
    return answer


@pytest.fixture(scope="module")
async def town(services: Services, anyio_backend: str) -> AsyncIterator[Town]:
    """A town in which nothing is ever accepted, so that it stays as it is."""
    async with services() as service:
        yield await founded(service)


# --- refused ----------------------------------------------------------------------------------------------------------

NO_NAMES: dict[str, tuple[str, ...]] = {
    "A4 invisible": tuple(f"Acme{char}Corp" for char in "\u200b\u00ad\u2060\ufe0f\u200d\u034f\u3164\u2800\U000e0041"),
    "A4 direction": ("Acme\u202egro", "Acme\u2066gro", "Acme\u200f"),
    "A5 mixed alphabets": ("\u0410cme", "Acm\u0435 Corp", "Go\u03bfgle", "\u054fesla"),
    "A11 nothing to read": ("!!!", "🎉🎉", "%2e%2e%2f", "\u0301"),
    "A16 spaces": ("", " ", "\u00a0\u3000", "\t", "\n"),
    "A19 ways": ("..", "/", "/../"),
    "A20 too long": ("a" * 129, "a" * 256, "e\u0301" * 129, "日" * 100, "a" + "\u0301" * 200, "a" * 100_000),
    "controls": ("Acme\r\nSet-Cookie: a=b", "a\tb", "a\x1bb", "a\x7fb", "a\u2028b", "a\ue000b", "a\uffffb"),
}
UNREADABLE = ("a\x00b", "\ud800", "a\udfffb")
"""A13, A14: what the strict reader does not let in."""

RESERVED = """
api www login null undefined me new admin docs system metrics healthz v1 org oplog.rs system.users $cmd API WwW ａｐｉ
"""
OF_OTHER_TYPES: tuple[Any, ...] = (1, 1.5, True, None, ["Acme"], {"$gt": ""}, {"$regex": "^a"}, {})


@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_no_name_is_refused_and_changes_nothing(town: Town, route: str) -> None:
    before = await matrix.state(town)
    member = ROUTES[route][0]
    for why, names in NO_NAMES.items():
        for name in names:
            answer = await named(town.service, town.own, route, name)
            document = problem(answer, 422, "organization.name_invalid")
            assert [fault["pointer"] for fault in document["errors"]] == [f"/{member}"], why
            assert len(name) < 6 or name[:20] not in answer.text
    for name in UNREADABLE:
        problem(await named(town.service, town.own, route, name), 400, "request.malformed")
    for value in OF_OTHER_TYPES:
        problem(await named(town.service, town.own, route, value), 422, "request.invalid")
    assert await matrix.state(town) == before


@pytest.mark.parametrize("route", sorted(ROUTES.keys() - {"PATCH"}))
async def test_what_is_reserved_names_no_organization(town: Town, route: str) -> None:
    """A17, A19. A display name alone (PATCH) may be any: nothing is found by it but by its own people."""
    before = await matrix.state(town)
    for name in RESERVED.split():
        document = problem(await named(town.service, town.own, route, name), 422, "organization.name_reserved")
        assert [fault["pointer"] for fault in document["errors"]] == [f"/{ROUTES[route][0]}"], name
    assert await matrix.state(town) == before


# --- one name, many spellings -----------------------------------------------------------------------------------------

SPELLINGS: dict[str, tuple[str, ...]] = {
    "acme-corp": (
        "Acme Corp",
        "acme corp",
        "acme-corp",
        "acme_corp",
        "acme.corp",
        "acme  corp",
        "Ａｃｍｅ Ｃｏｒｐ",
        " Acme\u00a0Corp ",
    ),
    "kiwi": ("kiwi", "\u212aiwi", "KIWI"),
    "fin-labs": ("fin labs", "ﬁn labs"),
    "strasse": ("Straße", "STRASSE", "STRAẞE"),
    "cafe-noir": ("Café Noir", "Cafe\u0301 Noir", "CAFE NOIR"),
    "viii-club": ("Ⅷ Club", "VIII Club"),
}


async def test_every_spelling_of_a_taken_name_is_taken(service: Service) -> None:
    """A1, A2, A7, A8, A10, A16, A25: by creating and by renaming; the first one stays as it is."""
    other = await service.organization("Other")
    for number, (slug, spellings) in enumerate(SPELLINGS.items()):
        first = await named(service, other, "POST /org/create", spellings[0], number)
        assert first.status_code == 201, first.text
        assert first.json()["organization"]["slug"] == slug
        before = await service.rows(tables.organizations)
        for spelling in spellings:
            for route in ROUTES.keys() - {"PATCH"}:
                answer = await named(service, other, route, spelling, number + 100)
                problem(answer, 409, "organization.name_taken")
        assert await service.rows(tables.organizations) == before
    assert await space_names(service.app) == {f"org_{slug}" for slug in SPELLINGS}
    await assert_clean(service.app)


async def test_an_organization_may_respell_its_own_name(service: Service) -> None:
    """A26"""
    acme = await service.organization("Acme Corp", plan="enterprise")
    for spelling in ("ACME CORP", "acme_corp", "Acme Corp"):
        answer = await named(service, acme, "POST rename", spelling)
        assert (answer.status_code, answer.json()["name"], answer.json()["slug"]) == (200, spelling, "acme-corp")
    assert [claim.slug for claim in await service.rows(tables.slugs)] == ["acme-corp"]
    assert await space_names(service.app) == {"org_acme-corp"}
    await assert_clean(service.app)


# --- kept as they are -------------------------------------------------------------------------------------------------

VERBATIM = (
    '"; DROP TABLE orgs;--',
    "' OR '1'='1",
    "{{7*7}} ${7*7} #{7*7}",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(1)",
    "@SUM(1)",
    "${jndi:ldap://x}",
    "a$b.c",
    "100% Pure",
    "Ada; Set-Cookie: a=b",
    "%s%s%n {0} {name}",
    "../../etc/",
    "日本電気",
    "株式会社ＡＢＣ",
    "шоколад",
    "Ωmega",
    "Việt Nam",
    "Rock 🎸 Gear 👍🏽",
    "a" * 128,
    "日" * 85,
)

SAFE = re.compile(r"org_[a-z0-9](-?[a-z0-9])+")


@pytest.mark.parametrize("route", ["POST /org/create", "POST rename"])
async def test_other_text_is_a_name_and_only_that(service: Service, route: str) -> None:
    """A17, A22, G17: stored and shown as it came, in JSON only; what it names physically is of few letters."""
    acme = await service.organization("Acme", plan="enterprise")
    spaces = set()
    for number, name in enumerate(VERBATIM):
        answer = await named(service, acme, route, name, number)
        assert answer.status_code in (200, 201), f"{name}: {answer.text}"
        shown = answer.json().get("organization", answer.json())
        located = await service.located(shown["id"])
        assert shown["name"] == located.organization.name
        assert shown["name"] == name or "Ａ" in name
        assert SAFE.fullmatch(shown["collection_name"])
        assert len(shown["collection_name"]) <= 60
        assert all(value.isascii() and value.isprintable() for value in answer.headers.values())
        spaces.add(shown["collection_name"])
    assert len(spaces) == len(VERBATIM), "no two of them meet"
    await assert_clean(service.app)


# --- looked up --------------------------------------------------------------------------------------------------------

LOOKED_UP = (
    "",
    " ",
    "ACME%20CORP",
    "acme\x00",
    "acme%00",
    "acme.",
    "acme/",
    "..",
    "%252e",
    "a" * 5000,
    "ﬁ" * 3000,
    "😀",
    "$ne",
    "' OR '1'='1",
    "org_",
    "null",
    "*",
    "acme corp\r\nx: y",
)


@pytest.mark.parametrize("wanted", LOOKED_UP, ids=lambda text: ascii(text)[:20])
async def test_looking_up_anything_is_never_a_fault(town: Town, wanted: str) -> None:
    """A28: by name and by id."""
    headers = town.own.owner.headers
    by_name = await town.service.client.get("/org/get", params={"organization_name": wanted}, headers=headers)
    assert_decent(by_name)
    assert by_name.status_code in (400, 404, 414)
    if wanted and "/" not in wanted and wanted != "..":
        call = Call(path={"organization_id": quote(wanted, safe="")})
        by_id = await matrix.send(town, ("GET", matrix.OWN), call, headers)
        assert by_id.status_code in (400, 404, 414)


@pytest.mark.parametrize("wanted", ["{slug}", "{name}", "{upper}", " {name} ", "{slug_upper}"])
async def test_an_organization_is_found_however_its_name_is_written(town: Town, wanted: str) -> None:
    name, slug = town.own.organization.name, town.own.slug
    text = wanted.format(slug=slug, name=name, upper=name.upper(), slug_upper=slug.upper())
    answer = await town.service.client.get(
        "/org/get", params={"organization_name": text}, headers=town.own.owner.headers
    )
    assert (answer.status_code, answer.json().get("id")) == (200, town.own.id)
