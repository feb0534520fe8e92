"""The routes that need nothing of the framework, found by their segments.

A router tries one regular expression after the other, and its layers cost a read more than the read does. This finds a
route by how many segments it has and which of them are fixed; whatever it does not find is the framework's to answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from starlette.routing import BaseRoute

from orgstead.api.guarded import GuardedRoute
from orgstead.api.limits import Scope


class _Entry(NamedTuple):
    route: GuardedRoute
    fixed: tuple[tuple[int, str], ...]
    """Segments that must be as they are, by their place."""
    named: tuple[tuple[int, str], ...]
    """Names of the parameters, by the place of their segment."""


class DirectRoutes:
    """Finds among ``routes`` what a router would find that tries them in this order, if it is a direct one."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._entries: defaultdict[tuple[str, int], list[_Entry]] = defaultdict(list)
        for route in routes:
            if isinstance(route, GuardedRoute) and route.is_direct:
                entry = _entry(route)
                for method in route.methods or ():
                    self._entries[method, len(entry.fixed) + len(entry.named)].append(entry)

    def find(self, scope: Scope) -> GuardedRoute | None:
        """The route of a request, with its ``path_params`` in the scope; None where the framework must look itself."""
        segments = scope["path"].split("/")
        for route, fixed, named in self._entries.get((scope["method"], len(segments)), ()):
            for place, text in fixed:
                if segments[place] != text:
                    break
            else:
                parameters = {name: segments[place] for place, name in named}
                if all(parameters.values()):
                    scope["path_params"] = parameters
                    return route
        return None


def _entry(route: GuardedRoute) -> _Entry:
    segments = list(enumerate(route.path.split("/")))
    named = tuple((place, text[1:-1]) for place, text in segments if text.startswith("{"))
    return _Entry(route, tuple((place, text) for place, text in segments if not text.startswith("{")), named)
