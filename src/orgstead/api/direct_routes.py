"""The routes that need nothing of the framework, found by their segments.

A router tries one regular expression after the other, and its layers cost a read more than the read does. This finds a
route by how many segments it has and which of them are fixed; whatever it does not find is the framework's to answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from starlette.routing import BaseRoute

from orgstead.api.guarded import GuardedRoute
from orgstead.api.limits import Scope

_WITHOUT: Final[Sequence[_Shape]] = ()


class DirectRoutes:
    """Finds among ``routes`` what a router would find that tries them in this order, if it is a direct one.

    Raises ``ValueError`` for two that take the same path and have their fixed segments in different places: which of
    them comes first would not be known any more.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._shapes: defaultdict[tuple[str, int], list[_Shape]] = defaultdict(list)
        for route in routes:
            if isinstance(route, GuardedRoute) and route.is_direct:
                segments = route.path.split("/")
                fixed = tuple(place for place, text in enumerate(segments) if not text.startswith("{"))
                for method in route.methods or ():
                    shapes = self._shapes[method, len(segments)]
                    if any(shape.meets(route.path) for shape in shapes if shape.fixed != fixed):
                        raise ValueError(f"Another route takes paths of {route.path}, too.")
                    shape = next((shape for shape in shapes if shape.fixed == fixed), None)
                    if shape is None:
                        shapes.append(shape := _Shape(fixed))
                    shape.add(route, segments)

    def find(self, scope: Scope) -> GuardedRoute | None:
        """The route of a request, with its ``path_params`` in the scope; None where the framework must look itself."""
        segments = scope["path"].split("/")
        for shape in self._shapes.get((scope["method"], len(segments)), _WITHOUT):
            found = shape.routes.get(shape.texts(segments))
            if found is not None:
                route, named = found
                parameters = {name: segments[place] for place, name in named}
                if "" not in parameters.values():
                    scope["path_params"] = parameters
                    return route
        return None


class _Shape:
    """Routes whose segments are fixed in the same places, by the texts of these: one look finds which of them it is."""

    def __init__(self, fixed: Sequence[int]) -> None:
        self.fixed = fixed
        self.texts: Callable[[Sequence[str]], Any] = itemgetter(*fixed)
        self.routes: dict[Any, tuple[GuardedRoute, Sequence[tuple[int, str]]]] = {}

    def meets(self, path: str) -> bool:
        """Is there a path that one of the routes takes, and that one with this template takes, too?"""
        segments = path.split("/")
        return any(
            all(a == b or a[:1] == "{" or b[:1] == "{" for a, b in zip(route.path.split("/"), segments, strict=True))
            for route, _ in self.routes.values()
        )

    def add(self, route: GuardedRoute, segments: Sequence[str]) -> None:
        """Take a route, unless there is one before it that is found at all of its paths."""
        named = [(place, text[1:-1]) for place, text in enumerate(segments) if place not in self.fixed]
        self.routes.setdefault(self.texts(segments), (route, named))
