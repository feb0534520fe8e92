"""JSON Schema, draft 2020-12: what a schema may be, and what of a record does not satisfy it.

A schema comes from a client and is run by the service, so its cost is bounded: its size, depth, and the number of
subschemas once its references are written out. References lead within the schema and never in a circle; patterns are
matched in linear time, without look-around and back-references. ``format`` is checked, not only noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs
import orjson

from orgstead import field_paths
from orgstead.errors import Problem
from orgstead.model import Json
from orgstead.record_errors import InvalidDefinition, InvalidQuery

MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 32
MAX_SUBSCHEMAS: Final = 2000
MAX_PROBLEMS: Final = 20
"""Violations that are named of one record."""

MAX_EFFORT: Final = 8_000_000
"""Bytes that finding the violations may copy, roughly: some 80 milliseconds, the longest that others wait for it."""

_VIOLATION: Final = 1024
"""What making a violation costs beside what it copies, as if it were bytes: some ten microseconds."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PATTERN_BYTES: Final = 1_048_576
_PLACE = re.compile(r"0|[1-9][0-9]*")

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset({"not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames"}) | {
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
}
_ONCE = frozenset({"properties", "$defs", "definitions", "prefixItems", "items", "additionalProperties"})
"""Keywords whose subschemas each look at values of their own."""
_REFUSED = frozenset({"$dynamicRef", "$recursiveRef", "$vocabulary"})
_FORMER: Mapping[str, str] = {"dependencies": "dependentSchemas and dependentRequired"}
"""Keywords of earlier drafts that the validator knows all the same, and what has taken their place."""

_SOMEWHERE: Final = (
    "The record does not satisfy the collection's schema. Record and schema are too large together to say where."
)

_SENTENCES: Mapping[str, str] = {
    "additionalProperties": "The schema allows no member of this name.",
    "const": "The value is not the one that the schema allows.",
    "enum": "The value is not one of those that the schema allows.",
    "falseSchema": "The schema allows no value here, or no member of this name.",
    "format": "The value does not have the format that the schema asks for.",
    "maximum": "The number is above the schema's maximum.",
    "minimum": "The number is below the schema's minimum.",
    "maxItems": "The array has more elements than the schema allows.",
    "minItems": "The array has fewer elements than the schema allows.",
    "maxLength": "The text is longer than the schema allows.",
    "minLength": "The text is shorter than the schema allows.",
    "pattern": "The text does not match the schema's pattern.",
    "required": "The schema requires this member.",
    "type": "The value does not have the type that the schema asks for.",
    "uniqueItems": "The elements of the array are not all different.",
    "unevaluatedProperties": "The schema allows no member of this name.",
}


def checked(schema: Json) -> str:
    """The text that is kept of a schema, an object. Raises ``InvalidDefinition`` naming the place."""
    if not isinstance(schema, dict):
        raise _wrong((), "A schema is an object.")
    try:
        text = orjson.dumps(schema)
    except TypeError:  # orjson's own error is one
        raise _wrong((), "A schema is JSON.") from None
    if len(text) > MAX_BYTES:
        raise _wrong((), f"A schema has at most {MAX_BYTES} bytes.")
    if schema.get("$schema", _DIALECT) not in (_DIALECT, f"{_DIALECT}#"):
        raise _wrong(("$schema",), f"Schemas are of draft 2020-12: {_DIALECT}.")
    _Measured(schema).walk(schema, (), ())
    kept = text.decode()
    try:
        _validator(kept)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        path = getattr(error, "instance_path", ())
        raise _wrong(
            tuple(path), "The schema is not valid by draft 2020-12, or a pattern in it cannot be used."
        ) from None
    return kept


class _Measured:
    """Counts the subschemas of a schema as they are with every reference written out.

    ``alike`` is how many of them may look at the same value, ``widest`` the bytes that a violation may copy of one.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_SUBSCHEMAS
        self.alike = 1
        self.widest = _VIOLATION

    def walk(self, schema: Any, path: tuple[str | int, ...], through: tuple[str, ...], depth: int = 0) -> None:
        """``through`` are the references that led here."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise _wrong(path, "A schema is an object, true or false.")
        self._left -= 1
        if self._left < 0:
            raise _wrong(path, f"A schema has at most {MAX_SUBSCHEMAS} subschemas, each reference counted as a copy.")
        if depth > MAX_DEPTH:
            raise _wrong(path, f"A schema is nested at most {MAX_DEPTH} deep.")
        if refused := _REFUSED & schema.keys():
            raise _wrong((*path, min(refused)), "This keyword is not supported.")
        for former, present in _FORMER.items():
            if former in schema:
                raise _wrong((*path, former), f"This keyword is of an earlier draft; use {present}.")
        for keyword in ("enum", "const"):
            if keyword in schema:
                self.widest = max(self.widest, _VIOLATION + len(orjson.dumps(schema[keyword])))
        if "$id" in schema and schema is not self._root:
            raise _wrong((*path, "$id"), "Only the whole schema may have an $id.")
        if "$ref" in schema:
            self._follow(schema["$ref"], (*path, "$ref"), through, depth)
        for place, inner in _inside(schema):
            self.alike += place[0] not in _ONCE
            self.walk(inner, (*path, *place), through, depth + 1)

    def _follow(self, reference: Any, path: tuple[str | int, ...], through: tuple[str, ...], depth: int) -> None:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise _wrong(path, "References lead within the schema: #/$defs/name.")
        reference = unquote(reference)
        if reference in ("#", *through):
            raise _wrong(path, "References must not lead in a circle.")
        target: Any = self._root
        try:
            for step in field_paths.parse(reference[1:]):
                if isinstance(target, list) and not _PLACE.fullmatch(step):
                    raise KeyError(step)
                target = target[int(step)] if isinstance(target, list) else target[step]
        except (InvalidQuery, KeyError, IndexError, TypeError):
            raise _wrong(path, "The reference leads nowhere.") from None
        self.alike += 1
        self.walk(target, path, (*through, reference), depth + 1)


def _inside(schema: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for keyword, value in schema.items():
        if keyword in _SINGLE:
            yield (keyword,), value
        elif keyword in _MAPS and isinstance(value, dict):
            yield from (((keyword, name), inner) for name, inner in value.items())
        elif keyword in _LISTS and isinstance(value, list):
            yield from (((keyword, place), inner) for place, inner in enumerate(value))


def _wrong(path: tuple[str | int, ...], detail: str) -> InvalidDefinition:
    pointer = field_paths.pointer(("schema", *path))
    return InvalidDefinition(detail, problems=[Problem(pointer, InvalidDefinition.code, detail)])


def _retrieve(uri: str) -> Any:
    raise ValueError("a schema is never fetched")


@lru_cache(maxsize=256)
def _validator(text: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        orjson.loads(text),
        retriever=_retrieve,
        validate_formats=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES),
    )


@lru_cache(maxsize=256)
def _measured(text: str) -> _Measured:
    schema = orjson.loads(text)
    measured = _Measured(schema)
    try:
        measured.walk(schema, (), ())
    except InvalidDefinition:  # it was kept before today's rules
        measured.alike = MAX_EFFORT
    return measured


def _effort(schema: str, data: Mapping[str, Json]) -> int:
    """Bytes that naming the violations may copy, roughly: of the schema for each value, and of the data."""
    measured = _measured(schema)
    text = orjson.dumps(data)
    values = text.count(b",") + text.count(b":") + text.count(b"[")
    return measured.alike * (values * measured.widest + len(text))


def problems_of(schema: str, data: Mapping[str, Json], code: str) -> list[Problem]:
    """What of ``data`` does not satisfy the schema, with pointers that begin with ``/data``, each once; at most
    MAX_PROBLEMS.

    The validator makes all violations at once, each with copies of value and schema, before it gives the first. Where
    that may be too much it is only asked whether there is any, and the whole record is named.
    """
    validator = _validator(schema)
    if validator.is_valid(data):
        return []
    if _effort(schema, data) > MAX_EFFORT:
        return [Problem("/data", code, _SOMEWHERE)]
    problems: dict[Problem, None] = {}
    for error in validator.iter_errors(data):
        for path in _places(error):
            keyword = error.kind.name
            detail = _SENTENCES.get(keyword) or f"The value does not satisfy the schema's {keyword}."
            problems[Problem(field_paths.pointer(("data", *path)), code, detail)] = None
            if len(problems) == MAX_PROBLEMS:
                return list(problems)
    return list(problems)


def _places(error: jsonschema_rs.ValidationError) -> Iterator[tuple[str | int, ...]]:
    """Where the fault is: of a member that is missing or too many, where it is or should be."""
    path = tuple(error.instance_path)
    kind: Any = error.kind
    if kind.name == "required":
        yield (*path, kind.property)
    elif kind.name in ("additionalProperties", "unevaluatedProperties"):
        yield from ((*path, name) for name in kind.unexpected)
    else:
        yield path
