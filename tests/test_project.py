"""The project's own rules, held against its source tree. Each message says where, and what to do instead."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest

from docs.generate import FOLDER, PAGES
from orgstead.api import application
from orgstead.api.errors import STATUS
from orgstead.errors import catalogue
from orgstead.settings import Settings
from orgstead.storage.port import Transaction
from orgstead.storage.tables import TABLES
from tests import product_rules, rules
from tests.rules import Source, sources
from tests.support import PROJECT

SRC = PROJECT / "src"

CATCHES_ALL = {
    "orgstead/api/outer.py": "the outermost edge of HTTP: a fault becomes a problem document and a line in the log",
    "orgstead/worker.py": "the outermost edge of background work: a round that fails is logged, the next one comes",
    "orgstead/storage/sqlite/writer.py": "the writer's thread: a failure is handed to whoever waits for the unit",
}
"""file -> why it may catch every exception."""

LOADED_BY_OTHERS = {"httptools": "uvicorn's parser of HTTP"}
"""dependency -> who loads it, where no import of ours names it."""

OURS = sources(SRC)
EVERYTHING = [*OURS, *(source for folder in ("tests", "bench", "docs") for source in sources(PROJECT / folder))]


def none(violations: Iterable[str]) -> None:
    """Fail with every violation, not with the first."""
    found = list(violations)
    assert not found, "\n" + "\n".join(found)


def test_there_is_something_to_check() -> None:
    assert len(OURS) > 20
    assert {"orgstead", "orgstead.storage", "orgstead.storage.port"} <= {source.module for source in OURS}


@pytest.mark.parametrize(
    "rule",
    [
        rules.unplaced,
        rules.against_arrows,
        rules.foreign_imports,
        rules.banned_imports,
        rules.too_long,
        rules.undocumented,
    ],
    ids=lambda rule: rule.__name__,
)
def test_source_follows_the_rule(rule: Callable[[Iterable[Source]], Iterator[str]]) -> None:
    none(rule(OURS))


def test_only_storage_names_an_engine() -> None:
    none(rules.engine_words(SRC))


def test_nothing_is_silenced_wholesale() -> None:
    none(rules.loose_comments(EVERYTHING))


def test_only_the_outermost_edges_catch_everything() -> None:
    none(rules.broad_catches(OURS, CATCHES_ALL))
    none(path for path in CATCHES_ALL if not list(rules.broad_catches(s for s in OURS if s.path == path)))


def test_every_module_is_importable() -> None:
    """No module exists only for its tests, or breaks when it is imported first."""
    for source in OURS:
        if source.module != "orgstead.__main__":
            importlib.import_module(source.module)


# --- errors, settings, tables, routes -------------------------------------------------------------------------------


def test_every_error_code_is_unique_and_well_formed() -> None:
    codes = Counter(error.code for error in catalogue())
    none(code for code, count in codes.items() if count > 1 or not re.fullmatch(r"[a-z]+\.[a-z_]+", code))


def test_every_error_has_a_status_and_a_meaning() -> None:
    none(error.code for error in catalogue() if error not in STATUS or not error.title.endswith("."))


def test_every_error_has_its_line_in_the_docs() -> None:
    page = (FOLDER / "errors.md").read_text(encoding="utf-8")
    none(error.code for error in catalogue() if f"\n| `{error.code}` | {STATUS[error]} | " not in page)


@pytest.mark.parametrize("name", PAGES)
def test_the_generated_pages_are_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run 'make docs'"


def test_every_setting_has_a_description() -> None:
    none(product_rules.undescribed(Settings))


def test_every_verb_is_tried_on_every_scoped_table_of_another_organization() -> None:
    suite = importlib.import_module("tests.contract.test_scope")
    verbs = [name for name, verb in inspect.getmembers(Transaction, inspect.isfunction) if not name.startswith("_")]
    assert {"get", "find", "replace", "remove", "page", "aggregate"} <= set(verbs)
    scoped = [table for table in TABLES if table.scope is not None]
    assert scoped
    none(product_rules.untried(vars(suite), scoped, verbs))


def test_every_route_is_guarded_or_says_why_it_is_public() -> None:
    routes = application.routes()
    assert len(routes) > 10
    none(product_rules.unguarded(routes))


def test_every_operation_nails_down_its_body_and_its_answer() -> None:
    none(product_rules.undeclared_bodies(application.routes()))


# --- the project around the source ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_dependencies_are_locked_with_hashes_and_name_no_place(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    assert product_rules.locked(text)
    none(product_rules.unlocked(text))


def test_every_declared_dependency_is_locked() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = product_rules.required(declared["project"]["dependencies"])
    assert runtime
    development = runtime | product_rules.required(declared["dependency-groups"]["dev"])
    none(runtime - product_rules.locked((PROJECT / "requirements.lock").read_text(encoding="utf-8")))
    none(development - product_rules.locked((PROJECT / "requirements-dev.lock").read_text(encoding="utf-8")))


def test_dependencies_are_what_is_imported() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (requirement for extra in project["optional-dependencies"].values() for requirement in extra)
    runtime = product_rules.required([*project["dependencies"], *extras])
    none(product_rules.undeclared(OURS, runtime))
    none(product_rules.unused(OURS, runtime - LOADED_BY_OTHERS.keys()))


def test_continuous_integration_can_be_run() -> None:
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)


def test_every_decision_has_its_parts_and_its_line_in_the_index() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    pages = sorted((FOLDER / "decisions").glob("*.md"))
    assert pages
    for number, page in enumerate(pages, 1):
        text = page.read_text(encoding="utf-8")
        assert page.name.startswith(f"{number:04d}-"), f"{page.name}: decisions are numbered without gaps"
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]
        assert f"(decisions/{page.name})" in index, f"{page.name} is not in docs/README.md"


@pytest.mark.parametrize("page", sorted(p.relative_to(PROJECT).as_posix() for p in FOLDER.rglob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
        assert ((PROJECT / page).parent / target).exists(), f"{page} links to {target}"
