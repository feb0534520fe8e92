"""Direct routes are found without the framework's router: it must never have found another."""

from __future__ import annotations

from itertools import product

import pytest
from starlette.routing import BaseRoute, Match, Route

from orgstead.api import application
from orgstead.api.direct_routes import DirectRoutes
from orgstead.api.guarded import GuardedRoute
from orgstead.api.limits import Scope

ROUTES = application.routes()
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", "BREW")
TEMPLATES = sorted({route.path for route in ROUTES if isinstance(route, Route)})
FIXED = {text for template in TEMPLATES for text in template.split("/") if text and not text.startswith("{")}
SEGMENTS = sorted(FIXED | {"", " ", "a", "a:b", "{collection}", "é", "%2F", "..", "\n", "records:", "*"})


def paths(template: str) -> set[str]:
    """Paths that fit the template, those that fit but for one segment, and those with one segment more or less."""
    segments = template.split("/")
    named = [place for place, text in enumerate(segments) if text.startswith("{")]
    plain = ["x" if place in named else text for place, text in enumerate(segments)]
    whole = "/".join(plain)
    found = {whole, f"{whole}/", f"{whole}\n", f"/{whole}", "/".join(plain[:-1])}
    for place in range(1, len(segments)):
        found |= {"/".join([*plain[:place], text, *plain[place + 1 :]]) for text in SEGMENTS}
    for values in product(("x", "records", "query"), repeat=min(len(named), 3)):
        filled = list(plain)
        for place, value in zip(named, values, strict=False):
            filled[place] = value
        found.add("/".join(filled))
    return found


def routed(method: str, path: str) -> tuple[BaseRoute | None, Scope]:
    """What a router does: the first route that takes method and path, and what it adds to the scope."""
    for route in ROUTES:
        match, added = route.matches({"type": "http", "method": method, "path": path, "root_path": ""})
        if match is Match.FULL:
            return route, dict(added)
    return None, {}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_direct_route_is_found_exactly_where_the_router_finds_it(template: str) -> None:
    direct = DirectRoutes(ROUTES)
    met = 0
    for method, path in product(METHODS, paths(template)):
        scope: Scope = {"type": "http", "method": method, "path": path}
        found = direct.find(scope)
        wanted, added = routed(method, path)
        if found is None:
            # What a line break at the end is, only the framework's expressions say; it is asked.
            assert not (isinstance(wanted, GuardedRoute) and wanted.is_direct) or path.endswith("\n"), (method, path)
        else:
            met += 1
            assert found is wanted, (method, path)
            assert scope["path_params"] == added["path_params"]
    assert met or not any(
        isinstance(route, GuardedRoute) and route.is_direct and route.path == template for route in ROUTES
    )


def test_most_routes_are_direct() -> None:
    guarded = [route for route in ROUTES if isinstance(route, GuardedRoute)]
    assert sum(route.is_direct for route in guarded) > len(guarded) / 2
