"""The rules of ``rules.py`` and ``product_rules.py`` can fail: each is broken in a small tree, and kept in its twin."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel, ConfigDict, Field

from orgstead.storage.port import Transaction
from orgstead.storage.tables import memberships, operations, users
from tests import product_rules, rules
from tests.rules import Source, sources

Rule = Callable[[Iterable[Source]], Iterator[str]]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, str]], list[Source]]:
    """Writes files (path under src -> text) and gives them as sources."""

    def write(files: Mapping[str, str]) -> list[Source]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return sources(tmp_path)

    return write


Tree = Callable[[Mapping[str, str]], list[Source]]

PRODUCT = {
    f"orgstead/{name}.py": '"""A module."""\n'
    for name in ("__init__", "model", "organizations", "app", "settings", "worker", "storage/__init__", "storage/port")
} | {
    "orgstead/storage/sqlite/__init__.py": '"""An engine."""\n',
    "orgstead/api/__init__.py": '"""HTTP."""\n',
    "orgstead/api/routes.py": '"""Routes."""\n',
    "orgstead/cli/__init__.py": '"""Commands."""\n',
}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("orgstead/model.py", "from orgstead import organizations"),
        ("orgstead/model.py", "import orgstead.storage.port"),
        ("orgstead/model.py", "from . import app"),
        ("orgstead/organizations.py", "from orgstead.app import App"),
        ("orgstead/organizations.py", "from orgstead.storage import open_storage"),
        ("orgstead/organizations.py", "def late():\n    from orgstead.api.routes import router"),
        ("orgstead/organizations.py", "LAZY = 'orgstead.api.routes'"),
        ("orgstead/organizations.py", "if TYPE_CHECKING:\n    from orgstead.api.routes import router"),
        ("orgstead/storage/port.py", "from orgstead import organizations"),
        ("orgstead/storage/port.py", "from .sqlite import engine"),
        ("orgstead/storage/sqlite/__init__.py", "from orgstead import storage"),
        ("orgstead/storage/sqlite/__init__.py", "from ... import settings"),
        ("orgstead/settings.py", "from orgstead import app"),
        ("orgstead/app.py", "from orgstead import worker"),
        ("orgstead/worker.py", "from orgstead.storage.sqlite import engine"),
        ("orgstead/api/routes.py", "from orgstead.storage import open_storage"),
        ("orgstead/api/routes.py", "from ..storage.sqlite import engine"),
        ("orgstead/api/routes.py", "import orgstead.cli"),
        ("orgstead/cli/__init__.py", "from orgstead.storage import sqlite"),
    ],
)
def test_an_import_against_an_arrow(tree: Tree, path: str, line: str) -> None:
    found = list(rules.against_arrows(tree(PRODUCT | {path: f'"""A module."""\n{line}\n'})))
    assert len(found) == 1
    assert found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("orgstead/organizations.py", "from orgstead.storage.port import Transaction\nfrom orgstead import model"),
        ("orgstead/organizations.py", "if TYPE_CHECKING:\n    from orgstead.app import App"),
        ("orgstead/app.py", "from orgstead.storage import open_storage"),
        ("orgstead/api/routes.py", "from orgstead import app, organizations\nfrom orgstead.api import other"),
        ("orgstead/cli/__init__.py", "LAZY = 'orgstead.api.routes'"),
        ("orgstead/storage/__init__.py", "from orgstead.storage.sqlite import engine"),
    ],
)
def test_an_import_along_the_arrows(tree: Tree, path: str, line: str) -> None:
    assert list(rules.against_arrows(tree(PRODUCT | {path: f'"""A module."""\n{line}\n'}))) == []


def test_a_module_in_no_layer(tree: Tree) -> None:
    files = PRODUCT | {"orgstead/helpers.py": "", "orgstead/api/new.py": ""}
    assert [found.split(":")[0] for found in rules.unplaced(tree(files))] == ["orgstead/helpers.py"]


@pytest.mark.parametrize(
    ("rule", "path", "broken", "kept"),
    [
        (rules.foreign_imports, "orgstead/organizations.py", "import sqlite3", "import json"),
        (rules.foreign_imports, "orgstead/storage/__init__.py", "import asyncpg.pool", "import asyncio"),
        (rules.foreign_imports, "orgstead/organizations.py", "from fastapi import Depends", "from enum import Enum"),
        (rules.foreign_imports, "orgstead/worker.py", "import starlette.types", "import types"),
        (rules.foreign_imports, "orgstead/api/routes.py", "import typer", "import fastapi"),
        (rules.foreign_imports, "orgstead/cli/__init__.py", "import uvicorn", "import typer"),
        (rules.banned_imports, "orgstead/api/routes.py", "from jose import jwt", "from joserfc import jwt"),
        (
            rules.banned_imports,
            "orgstead/api/routes.py",
            "from starlette.middleware.base import BaseHTTPMiddleware",
            "from starlette.middleware import Middleware",
        ),
        (rules.banned_imports, "orgstead/api/routes.py", "import authlib.jose.rfc7519", "import authlib.oauth2"),
        (rules.too_long, "orgstead/model.py", "x = 1\n" * 451, "x = 1\n" * 440),
        (rules.undocumented, "orgstead/model.py", "def f():\n    a = 1\n    return a", "def f():\n    return 1"),
        (rules.undocumented, "orgstead/model.py", "class C:\n    x = 1", "class C(StrEnum):\n    X = 'x'"),
        (
            rules.undocumented,
            "orgstead/model.py",
            "async def f():\n    await g()\n    return 1",
            "def _f():\n    g()\n    h()",
        ),
        (
            rules.undocumented,
            "orgstead/errors.py",
            "class E(Base):\n    code = 'a.b'",
            "class E(Base):\n    title = 'A.'",
        ),
        (rules.loose_comments, "orgstead/model.py", "x = 1  # type: ignore", "x = 1  # type: ignore[assignment]"),
        (rules.loose_comments, "orgstead/model.py", "x = 1  # noqa", "x = 1  # noqa: S105"),
        (rules.loose_comments, "orgstead/model.py", "x = 1  # noqa: yes", "x = 'noqa'"),
        (rules.loose_comments, "orgstead/model.py", "x = 1  # nosec", "x = 1  # nosec B105"),
        (rules.loose_comments, "orgstead/model.py", "# TODO later", "x = 'TODO'"),
        (rules.broad_catches, "orgstead/model.py", "try: f()\nexcept Exception: g()", "try: f()\nexcept OSError: g()"),
        (rules.broad_catches, "orgstead/model.py", "try: f()\nexcept: g()", "try: f()\nexcept:\n    g()\n    raise"),
        (
            rules.broad_catches,
            "orgstead/model.py",
            "try: f()\nexcept (OSError, BaseException): g()",
            "try: f()\nexcept BaseException as e:\n    raise Other from e",
        ),
        (rules.broad_catches, "orgstead/model.py", "with suppress(Exception): f()", "with suppress(OSError): f()"),
    ],
)
def test_a_rule_is_broken_and_kept(tree: Tree, rule: Rule, path: str, broken: str, kept: str) -> None:
    found = list(rule(tree({path: f'"""A module."""\n{broken}\n'})))
    assert len(found) == 1
    assert found[0].startswith(f"{path}:")
    assert list(rule(tree({path: f'"""A module."""\n{kept}\n'}))) == []


def test_a_module_without_a_docstring(tree: Tree) -> None:
    assert len(list(rules.undocumented(tree({"orgstead/model.py": "x = 1\n"})))) == 1
    assert list(rules.undocumented(tree({"orgstead/model.py": ""}))) == []


def test_a_broad_catch_where_it_is_allowed(tree: Tree) -> None:
    files = {"orgstead/api/outer.py": "try: f()\nexcept Exception: g()\n"}
    assert list(rules.broad_catches(tree(files), {"orgstead/api/outer.py"})) == []


def test_an_engine_named_outside_storage(tree: Tree, tmp_path: Path) -> None:
    tree(
        {
            "orgstead/settings.py": "URL = 'SQLite:///x'\n",
            "orgstead/api/page.html": "<p>PostgreSQL</p>\n",
            "orgstead/storage/__init__.py": "ENGINES = ('sqlite', 'mongodb')\n",
            "orgstead/common_passwords.txt": "mongodb\n",
        }
    )
    found = list(rules.engine_words(tmp_path))
    assert [line.split(":")[0] for line in found] == ["orgstead/api/page.html", "orgstead/settings.py"]


# --- routes ---------------------------------------------------------------------------------------------------------


async def guard() -> str:
    """Stands for a guard that lets someone in."""
    return "someone"


guard.__guard__ = True  # type: ignore[attr-defined]


async def around(inner: Annotated[str, Depends(guard)]) -> str:
    """A dependency that asks the guard."""
    return inner


async def handler() -> None:
    """Does nothing."""


async def public() -> None:
    """Does nothing, for everyone."""


public.__public__ = "everyone may see it"  # type: ignore[attr-defined]


async def guarded(who: Annotated[str, Depends(guard)]) -> None:
    """Does nothing, for someone."""


async def guarded_deeper(who: Annotated[str, Depends(around)]) -> None:
    """Does nothing, for someone."""


def application(endpoint: Any, *, dependencies: Iterable[Any] = (), included: bool = True) -> FastAPI:
    """An application with one route, which is in an included router as the product's are."""
    app = FastAPI(openapi_url=None)
    router = APIRouter(prefix="/v1") if included else app.router
    router.add_api_route("/things/{id}", endpoint, methods=["PUT"])
    if included:
        app.include_router(router, dependencies=list(dependencies))
    return app


@pytest.mark.parametrize("included", [True, False])
def test_a_route_without_a_guard(included: bool) -> None:
    found = list(product_rules.unguarded(application(handler, included=included).routes))
    assert len(found) == 1
    assert found[0].startswith("PUT /v1/things/{id}: has no guard" if included else "PUT /things/{id}: has no guard")


@pytest.mark.parametrize("endpoint", [guarded, guarded_deeper, public])
def test_a_route_that_is_guarded_or_public(endpoint: Any) -> None:
    assert list(product_rules.unguarded(application(endpoint).routes)) == []


def test_a_route_whose_router_is_guarded() -> None:
    assert list(product_rules.unguarded(application(handler, dependencies=[Depends(guard)]).routes)) == []


def test_a_route_that_is_guarded_and_says_it_is_public() -> None:
    found = list(product_rules.unguarded(application(public, dependencies=[Depends(guard)]).routes))
    assert found == ["PUT /v1/things/{id}: is guarded, but its endpoint says __public__"]


def test_a_route_that_is_public_without_a_reason() -> None:
    async def endpoint() -> None: ...

    endpoint.__public__ = " "  # type: ignore[attr-defined]
    assert len(list(product_rules.unguarded(application(endpoint).routes))) == 1


def test_mounts_and_pages_of_the_framework_are_routes_too() -> None:
    app = FastAPI()
    app.mount("/static", FastAPI(openapi_url=None))
    found = {line.split(":")[0] for line in product_rules.unguarded(app.routes)}
    assert {"GET,HEAD /docs", "GET,HEAD /openapi.json", "/static"} <= found


class Strict(BaseModel):
    """A good request body."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Open(BaseModel):
    """A request body that takes anything."""

    model_config = ConfigDict(strict=True)


class Converting(BaseModel):
    """A request body that converts."""

    model_config = ConfigDict(extra="forbid")


class Holding(Strict):
    """A good request body that holds a bad one."""

    inner: list[Open] | None = None


@pytest.mark.parametrize(
    ("body", "options", "violations"),
    [
        (Strict, {"operation_id": "a", "response_model": Strict}, []),
        (Strict, {"operation_id": "a", "response_model": None, "status_code": 204}, []),
        (Strict, {"operation_id": "a", "response_model": None}, ["has no response_model"]),
        (Strict, {"response_model": Strict}, ["needs an operation_id of its own"]),
        (Open, {"operation_id": "a", "response_model": Strict}, ["Open must be strict and forbid unknown members"]),
        (
            Converting,
            {"operation_id": "a", "response_model": Open},
            ["Converting must be strict and forbid unknown members"],
        ),
        (Holding, {"operation_id": "a", "response_model": Open}, ["Open must be strict and forbid unknown members"]),
    ],
)
def test_bodies_and_answers_are_declared(body: type[BaseModel], options: dict[str, Any], violations: list[str]) -> None:
    async def endpoint(given: Any) -> None: ...

    endpoint.__annotations__["given"] = body
    app = FastAPI(openapi_url=None)
    app.add_api_route("/things", endpoint, methods=["POST"], **options)
    assert list(product_rules.undeclared_bodies(app.routes)) == [
        f"POST /things: {violation}" for violation in violations
    ]


def test_an_operation_id_is_taken_once() -> None:
    app = FastAPI(openapi_url=None)
    for path in ("/a", "/b"):
        app.add_api_route(path, handler, operation_id="same", status_code=204, response_model=None)
    assert list(product_rules.undeclared_bodies(app.routes)) == ["GET /b: needs an operation_id of its own"]


# --- settings, tables, locks ----------------------------------------------------------------------------------------


def test_a_setting_without_a_description() -> None:
    class Inner(BaseModel):
        told: int = Field(1, description="Told.")
        untold: int = 1

    class Outer(BaseModel):
        inner: Inner
        many: dict[str, Inner] | None = None
        blank: int = Field(1, description=" ")

    assert [line.split(":")[0] for line in product_rules.undescribed(Outer)] == ["inner.untold", "many.untold", "blank"]


def suite(*verbs: str, tables: Iterable[Any]) -> dict[str, Any]:
    """A namespace of tests as the contract suite has it."""

    def made() -> Any:
        @pytest.mark.parametrize(("table", "kind"), [pytest.param(table, "pooled") for table in tables])
        def test() -> None: ...

        return test

    return {f"test_p04_{verb}_of_another_organization": made() for verb in verbs}


def test_a_table_that_no_test_tries() -> None:
    found = list(product_rules.untried(suite("get", "find", tables=[users]), [users, memberships], ["get", "find"]))
    assert found == [f"memberships: no test tries {verb} on a row of another organization" for verb in ("find", "get")]


def test_a_verb_that_no_test_tries() -> None:
    tests = suite("find_many", tables=[memberships])
    found = list(product_rules.untried(tests, [memberships], ["find", "find_many"]))
    assert found == ["memberships: no test tries find on a row of another organization"]


def test_claim_concerns_leased_tables_only() -> None:
    found = list(product_rules.untried({}, [memberships, operations], ["claim"]))
    assert found == ["operations: no test tries claim on a row of another organization"]
    assert hasattr(Transaction, "claim")


HASH = "    --hash=sha256:" + "0" * 64


def test_a_good_lock() -> None:
    text = (
        f"# made by uv\nA_b==1.0 \\\n{HASH} \\\n{HASH}\n    # via c\nc==2 ; python_full_version < '3.12' \\\n{HASH}\n"
    )
    assert list(product_rules.unlocked(text)) == []
    assert product_rules.locked(text) == {"a-b", "c"}


@pytest.mark.parametrize(
    "text",
    [
        "a==1.0\n",
        f"a==1.0 \\\nb==1.0 \\\n{HASH}\n",
        f"a>=1.0 \\\n{HASH}\n",
        "--find-links /opt/wheels\n",
        f"--index-url https://example.com/simple\na==1 \\\n{HASH}\n",
        "# --find-links /opt/wheels\n",
        f"a @ https://example.com/a.whl \\\n{HASH}\n",
    ],
)
def test_a_bad_lock(text: str) -> None:
    assert list(product_rules.unlocked(text)) != []


def test_requirements_and_imports(tree: Tree) -> None:
    assert product_rules.required(["FastAPI>=0.1", "pydantic_settings", "uvicorn[standard]>1"]) == {
        "fastapi",
        "pydantic-settings",
        "uvicorn",
    }
    files = tree({"orgstead/api/x.py": "import json, fastapi, orgstead.app\nimport pytest\n"})
    found = list(product_rules.undeclared(files, {"fastapi"}))
    assert found == ["orgstead/api/x.py:2: pytest is not among the dependencies in pyproject.toml"]
    found = list(product_rules.unused(files, {"fastapi", "pytest", "uvicorn"}))
    assert found == ["uvicorn is a dependency that nothing imports: remove it from pyproject.toml"]
