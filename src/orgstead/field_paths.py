"""Names of fields, and the values that they lead to in a record's data.

``address.city`` is the member ``city`` of the member ``address``. Keys that a dotted name cannot say (with a dot,
empty, ``id``) are named by a JSON pointer (RFC 6901): ``/a.b/0x``. A path leads through objects only, never into an
array. The plain name ``id`` is the record's own id; ``/id`` is a member of the data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from orgstead.record_errors import InvalidQuery

MAX_FIELD: Final = 250
"""Characters of a field's name."""

MAX_DEPTH: Final = 16
"""Steps of a path."""


class Missing:
    """What a path leads to where there is nothing; not the same as null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

ID: Final = ("\0id",)
"""The path of the record's own id: no member of stored data has such a name."""

Path = tuple[str, ...]


@lru_cache(maxsize=4096)
def parse(name: str) -> Path:
    """The path of a field's name. Raises ``InvalidQuery`` saying what is wrong with it."""
    if not name or len(name) > MAX_FIELD:
        raise InvalidQuery(f"A field's name is 1 to {MAX_FIELD} characters.")
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidQuery("A field's name is valid Unicode without NUL.")
    if name == "id":
        return ID
    if name.startswith("/"):
        steps = tuple(_unescaped(step) for step in name[1:].split("/"))
    else:
        steps = tuple(name.split("."))
        if "" in steps:
            raise InvalidQuery("A field's name has no empty parts; name a member with an empty name by a JSON pointer.")
    if len(steps) > MAX_DEPTH:
        raise InvalidQuery(f"A field's name has at most {MAX_DEPTH} parts.")
    return steps


def _unescaped(step: str) -> str:
    if "~" in step.replace("~0", "").replace("~1", ""):
        raise InvalidQuery("In a JSON pointer ~ is written ~0 and / is written ~1.")
    return step.replace("~1", "/").replace("~0", "~")


def pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer of these steps: ``/address/city``."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def name_of(path: Path) -> str:
    """The shortest name that ``parse`` reads as ``path``."""
    if path == ID:
        return "id"
    name = ".".join(path)
    plain = name and "" not in path and not name.startswith(("/", "-")) and not name.endswith("[]") and name != "id"
    return name if plain and all("." not in step for step in path) else pointer(path)


def value_at(data: Mapping[str, Any], path: Path) -> Any:
    """What ``path`` leads to, or ``MISSING``."""
    value: Any = data
    for step in path:
        if type(value) is not dict or step not in value:
            return MISSING
        value = value[step]
    return value


@dataclass(frozen=True, slots=True)
class Ordered:
    """A field in an order: ascending, or descending where ``down``."""

    path: Path
    down: bool = False

    @classmethod
    def parse(cls, name: str) -> Ordered:
        """``-price`` is the field price, descending. Raises ``InvalidQuery``."""
        return cls(parse(name.removeprefix("-")), name.startswith("-"))

    @property
    def name(self) -> str:
        return "-" * self.down + name_of(self.path)


def projected(data: Mapping[str, Any], paths: Collection[Path]) -> dict[str, Any]:
    """The members of ``data`` that the paths lead to, inside the objects that they lead through."""
    result: dict[str, Any] = {}
    for path in paths:
        if any(path[:length] in paths for length in range(1, len(path))):
            continue  # a member around it is wanted as a whole
        value = value_at(data, path)
        if value is MISSING:
            continue
        place = result
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = value
    return result
