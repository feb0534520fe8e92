"""The project's rules about what the source makes: routes, settings, tables and dependencies. See ``rules.py``."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import packages_distributions
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.routing import BaseRoute

from orgstead.storage.port import Table
from tests.rules import Source

# --- routes ---------------------------------------------------------------------------------------------------------


def unguarded(routes: Iterable[BaseRoute]) -> Iterator[str]:
    """Routes that anyone may call without that being said.

    A guard is a dependency with ``__guard__ = True``. A public endpoint carries the reason in ``__public__``. Both at
    once would be a lie.
    """
    for route in iter_route_contexts(list(routes)):
        name = f"{','.join(sorted(route.methods or ()))} {route.path}".strip()
        reason = getattr(route.endpoint or getattr(route, "app", None), "__public__", None)
        guarded = _has_guard(getattr(route, "dependant", None))
        if guarded and reason:
            yield f"{name}: is guarded, but its endpoint says __public__"
        elif not guarded and not (isinstance(reason, str) and reason.strip()):
            yield f"{name}: has no guard; ask for a caller in its signature, or say why it is public (__public__)"


def _has_guard(dependant: Dependant | None) -> bool:
    if dependant is None:
        return False
    return any(getattr(part.call, "__guard__", False) is True or _has_guard(part) for part in dependant.dependencies)


def undeclared_bodies(routes: Iterable[BaseRoute]) -> Iterator[str]:
    """Operations whose body or answer is not nailed down: a request model that takes unknown members or converts
    values, an answer that is neither a model nor empty (204), an ``operationId`` that is missing or taken."""
    taken: set[str] = set()
    for route in iter_route_contexts(list(routes)):
        if getattr(route, "dependant", None) is None:
            continue
        name = f"{','.join(sorted(route.methods or ()))} {route.path}"
        if route.body_field is not None:
            for model in _models(route.body_field.field_info.annotation):
                if model.model_config.get("extra") != "forbid" or not model.model_config.get("strict"):
                    yield f"{name}: {model.__name__} must be strict and forbid unknown members"
        if route.response_model is None and route.status_code != 204:
            yield f"{name}: has no response_model"
        if route.operation_id is None or route.operation_id in taken:
            yield f"{name}: needs an operation_id of its own"
        taken.add(route.operation_id)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, and those inside them."""
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
            for field in part.model_fields.values():
                yield from _models(field.annotation)


# --- settings and tables --------------------------------------------------------------------------------------------


def undescribed(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Settings without a description, groups opened. A group's own field needs none: its settings have theirs."""
    for name, field in model.model_fields.items():
        groups = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        for group in groups:
            yield from undescribed(group, f"{prefix}{name}.")
        if not groups and not (field.description or "").strip():
            yield f"{prefix}{name}: has no description"


def untried(tests: Mapping[str, Any], tables: Iterable[Table[Any]], verbs: Iterable[str]) -> Iterator[str]:
    """Verbs of a transaction that no test tries on a table's rows of another organization.

    ``tests`` is the namespace of the suite: its tests are named ``test_…_VERB_…_another_organization`` and get their
    tables by ``parametrize``. ``claim`` concerns only tables whose rows are leased.
    """
    verbs = sorted(verbs, key=len, reverse=True)
    tried: set[tuple[str, str]] = set()
    for name, test in tests.items():
        if match := re.fullmatch(r"test_p\d+_(.+_another_organization)", name):
            verb = next((verb for verb in verbs if match[1].startswith(f"{verb}_")), "")
            tried |= {(verb, table.name) for table in _parametrized_tables(test)}
    for table in tables:
        for verb in verbs:
            if (verb, table.name) not in tried and (verb != "claim" or table.lease):
                yield f"{table.name}: no test tries {verb} on a row of another organization"


def _parametrized_tables(test: Any) -> Iterator[Table[Any]]:
    for mark in getattr(test, "pytestmark", ()):
        for case in mark.args[1] if mark.name == "parametrize" else ():
            for value in getattr(case, "values", case if isinstance(case, tuple) else (case,)):
                if isinstance(value, Table):
                    yield value


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)


# --- dependencies ---------------------------------------------------------------------------------------------------

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==\S+( ; .*)? \\$")


def locked(text: str) -> set[str]:
    """The normalized names that a lock file pins."""
    return {match[1].lower().replace("_", "-") for line in text.splitlines() if (match := _REQUIREMENT.match(line))}


def unlocked(text: str) -> Iterator[str]:
    """Lines of a lock file that are neither a pinned requirement, its hashes nor a comment: hosts, folders, options."""
    wanted = False
    for number, line in enumerate(text.splitlines(), 1):
        is_hash = re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) is not None
        if wanted and not is_hash:
            yield f"{number - 1}: is pinned without a hash"
        wanted = _REQUIREMENT.match(line) is not None
        if not (wanted or is_hash or not line or line.lstrip().startswith("#")):
            yield f"{number}: does not belong into a lock file"
        if "://" in line or "--find-links" in line or "--index" in line:
            yield f"{number}: names a place that packages come from"


def required(requirements: Iterable[str]) -> set[str]:
    """The normalized names of requirements such as ``fastapi>=0.165``."""
    return {re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0].lower().replace("_", "-") for text in requirements}


def undeclared(tree: Iterable[Source], declared: Collection[str]) -> Iterator[str]:
    """Imports of libraries that are only there because another library needs them."""
    for source, line, package, names in _libraries(tree):
        if not names & set(declared):
            yield source.at(line, f"{package} is not among the dependencies in pyproject.toml")


def unused(tree: Iterable[Source], declared: Iterable[str]) -> Iterator[str]:
    """Dependencies that nothing imports."""
    imported = {name for _, _, _, names in _libraries(tree) for name in names}
    for name in sorted(set(declared) - imported):
        yield f"{name} is a dependency that nothing imports: remove it from pyproject.toml"


def _libraries(tree: Iterable[Source]) -> Iterator[tuple[Source, int, str, set[str]]]:
    """Every import of a package that is neither Python's nor ours, and the normalized names of what installs it."""
    distributions = packages_distributions()
    for source in tree:
        for found in source.imports():
            package = found.name.split(".")[0]
            if package not in sys.stdlib_module_names and package != "orgstead":
                yield source, found.line, package, required(distributions.get(package, []))
