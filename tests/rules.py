"""The project's rules about source files, as functions over a source tree: which way imports go, how code reads.

``test_project.py`` applies them to ours; ``test_project_rules.py`` breaks each of them in a small tree and sees it
reported. ``product_rules.py`` has the rules about what the source makes.

A rule gives one line for each violation: where it is, and what to do instead.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# --- the table of arrows --------------------------------------------------------------------------------------------

LANGUAGE, PORT, ENGINES, OPENER, USE_CASES = "language", "port", "engines", "opener", "use cases"
SETTINGS, APP, WORKER, API, CONSOLE, CLI = "settings", "app", "worker", "api", "console", "cli"
ENTRY = "entry"

MODULES: Mapping[str, str] = {
    LANGUAGE: (
        "orgstead base64url csv_cells errors failpoints findings kit lifecycle model names policy recent record_errors"
    ),
    PORT: "storage.port storage.tables",
    ENGINES: (
        "storage.codec storage.examination storage.gathering storage.migrations storage.mongodb storage.postgres"
        " storage.space_names storage.sqlite storage.unit storage.unreached"
    ),
    OPENER: "storage",
    USE_CASES: (
        "access aggregates answers api_keys archive_export archive_files archive_import archive_loading archive_steps"
        " archives arrivals audit conditions creation cursors events feed field_paths idempotency identity importing"
        " index_integrity index_keys integrity integrity_findings json_schemas keys members operations organizations"
        " passwords placements purging queries query_plans query_sources rates record_batches record_collections"
        " record_columns record_definitions record_import record_import_many record_indexing record_parquet"
        " record_reads record_tables records rehearsal renaming reports representations resuming sessions slugs"
        " space_integrity spaces throttles tokens usage"
    ),
    SETTINGS: "config logs settings",
    APP: "app",
    WORKER: "worker",
    API: "api",
    CONSOLE: "console",
    CLI: "cli",
    ENTRY: "__main__",
}
"""layer -> its modules under ``orgstead``; a package stands for what is in it, unless that is named elsewhere."""

_BELOW_EDGES = frozenset({LANGUAGE, PORT, USE_CASES, SETTINGS, APP})

ARROWS: Mapping[str, frozenset[str]] = {
    LANGUAGE: frozenset({LANGUAGE}),
    PORT: frozenset({LANGUAGE, PORT}),
    ENGINES: frozenset({LANGUAGE, PORT, ENGINES}),
    OPENER: frozenset({LANGUAGE, PORT, ENGINES}),
    USE_CASES: frozenset({LANGUAGE, PORT, USE_CASES}),
    SETTINGS: frozenset({LANGUAGE, OPENER, SETTINGS}),
    APP: frozenset({LANGUAGE, PORT, OPENER, USE_CASES, SETTINGS, APP}),
    WORKER: _BELOW_EDGES | {WORKER},
    API: _BELOW_EDGES | {API},
    CONSOLE: _BELOW_EDGES | {CONSOLE},
    CLI: _BELOW_EDGES | {OPENER, CLI, API, WORKER, CONSOLE},  # `orgstead db` opens what an App would refuse
    ENTRY: frozenset({LANGUAGE, CLI}),
}
"""layer -> the layers that it may import."""

TYPES_ONLY: Mapping[str, frozenset[str]] = {USE_CASES: frozenset({SETTINGS, APP})}
"""layer -> the layers that it may name in annotations, under ``if TYPE_CHECKING``."""

DRIVERS = frozenset({"sqlite3", "asyncpg", "pymongo", "bson", "gridfs", "psycopg", "sqlalchemy"})
"""Only engines import these."""

WEB = frozenset({"fastapi", "starlette", "uvicorn", "httptools"})
"""Only the edges that speak HTTP import these."""

TERMINAL = frozenset({"typer", "click", "rich"})
"""Only the command line imports these."""

BANNED: Mapping[str, str] = {
    "aiosqlite": "a thread for each connection; the engine has its own",
    "apsw": "a second SQLite library on one file corrupts it",
    "authlib.jose": "use joserfc",
    "fastapi.security": "guards read the header themselves",
    "jose": "CVE-2026-85394; use joserfc",
    "mongomock": "has no transactions",
    "motor": "end of life; use PyMongo's own async API",
    "passlib": "not maintained; use argon2-cffi",
    "starlette.middleware.base": "BaseHTTPMiddleware costs more than a handler; write pure ASGI",
}
"""module -> why nobody imports it."""

# --- the source tree ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One import: the dotted name of what is imported, and whether only type checkers see it."""

    line: int
    name: str
    types_only: bool


@dataclass(frozen=True)
class Source:
    """One Python file. ``module`` is its dotted name."""

    path: str
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text)

    def at(self, line: int, message: str) -> str:
        """A violation in this file."""
        return f"{self.path}:{line}: {message}"

    def imports(self) -> Iterator[Import]:
        """Everything imported, wherever in the file; a text that names a module of ours counts, as lazy imports do."""
        typed = {
            id(node)
            for branch in ast.walk(self.tree)
            if isinstance(branch, ast.If) and ast.unparse(branch.test).split(".")[-1] == "TYPE_CHECKING"
            for statement in branch.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(self.tree):
            for name in self._names(node):
                yield Import(getattr(node, "lineno", 1), name, id(node) in typed)

    def _names(self, node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = self.module.split(".")[: None if self.path.endswith("__init__.py") else -1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            return [f"{base}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [node.value] if re.fullmatch(r"orgstead(\.\w+)+", node.value) else []
        return []


def sources(folder: Path) -> list[Source]:
    """Every Python file under the folder, which is what imports begin at (``src``)."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(path.relative_to(folder).as_posix(), module, path.read_text(encoding="utf-8")))
    return found


# --- rules about imports --------------------------------------------------------------------------------------------


def layer_of(module: str, modules: Mapping[str, str] = MODULES) -> str | None:
    """The layer that a module is in; the longest entry of the table that covers it decides."""
    layers = {
        f"orgstead.{name}" if name != "orgstead" else name: layer
        for layer, names in modules.items()
        for name in names.split()
    }
    if module == "orgstead":
        return layers[module]
    name = module
    while name.count("."):
        if name in layers:
            return layers[name]
        name = name.rpartition(".")[0]
    return None


def unplaced(tree: Iterable[Source]) -> Iterator[str]:
    """Modules that the table of layers does not know."""
    for source in tree:
        if source.module.split(".")[0] == "orgstead" and layer_of(source.module) is None:
            yield source.at(1, "is in no layer: add it to MODULES in tests/rules.py")


def against_arrows(tree: Iterable[Source]) -> Iterator[str]:
    """Imports of ours that no arrow allows."""
    tree = list(tree)
    known = {source.module for source in tree}
    for source in tree:
        layer = layer_of(source.module)
        if layer is None:
            continue
        for found in source.imports():
            target = found.name if found.name in known else found.name.rpartition(".")[0]
            if target not in known or target == source.module:
                continue
            other = layer_of(target)
            allowed = ARROWS[layer] | (TYPES_ONLY.get(layer, frozenset()) if found.types_only else frozenset())
            if other is not None and other not in allowed:
                yield source.at(found.line, f"{layer} must not import {other} ({target})")


def foreign_imports(tree: Iterable[Source]) -> Iterator[str]:
    """Drivers outside the engines, web frameworks outside the HTTP edges, terminal libraries outside the CLI."""
    only = ((DRIVERS, {ENGINES}), (WEB, {API, CONSOLE}), (TERMINAL, {CLI}))
    for source in tree:
        layer = layer_of(source.module)
        for found in source.imports():
            for packages, layers in only:
                if found.name.split(".")[0] in packages and layer not in layers:
                    yield source.at(found.line, f"only {' and '.join(sorted(layers))} may import {found.name}")


def banned_imports(tree: Iterable[Source]) -> Iterator[str]:
    """Libraries that nobody imports."""
    for source in tree:
        for found in source.imports():
            for name, why in BANNED.items():
                if f"{found.name}.".startswith(f"{name}."):
                    yield source.at(found.line, f"{name} is banned: {why}")


_ENGINE_WORDS = re.compile(r"sqlite|postgres|mongo|asyncpg", re.IGNORECASE)
_NOT_CODE = frozenset({"common_passwords.txt"})


def engine_words(folder: Path) -> Iterator[str]:
    """Files outside ``storage/`` that name an engine, whatever their kind; a list of passwords is not code."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        skipped = "storage" in relative.parts[:2] or path.name in _NOT_CODE or "__pycache__" in relative.parts
        if skipped or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if word := _ENGINE_WORDS.search(line):
                yield f"{relative.as_posix()}:{number}: only storage/ may name an engine ({word.group()})"


# --- rules about how code reads -------------------------------------------------------------------------------------


def too_long(tree: Iterable[Source], limit: int = 450) -> Iterator[str]:
    """Files that have grown past one subject."""
    for source in tree:
        if (lines := source.text.count("\n")) > limit:
            yield source.at(1, f"has {lines} lines, more than {limit}: split it by subject")


_SELF_EXPLAINING = frozenset({"Enum", "StrEnum", "IntEnum", "Group"})
"""Bases whose subclasses are documented by their members: enums, and settings with a description each."""


def undocumented(tree: Iterable[Source]) -> Iterator[str]:
    """Modules, public classes and public functions without a docstring.

    Exempt are functions of one statement, enums, groups of settings, and errors, whose ``title`` says what they are.
    """
    for source in tree:
        if source.text.strip() and ast.get_docstring(source.tree) is None:
            yield source.at(1, "the module has no docstring")
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                says_itself = _SELF_EXPLAINING & {ast.unparse(base) for base in node.bases} or any(
                    isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "title" for part in node.body
                )
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                says_itself = len(node.body) == 1
            else:
                continue
            if not node.name.startswith("_") and not says_itself and ast.get_docstring(node) is None:
                yield source.at(node.lineno, f"{node.name} has no docstring")


_LOOSE_COMMENT = re.compile(r"type:\s*ignore(?!\[[\w, -]+\])|\bnoqa\b(?!:\s*[A-Z]+\d)|\bnosec\b(?!\s+B\d)")
_UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def loose_comments(tree: Iterable[Source]) -> Iterator[str]:
    """Comments that silence a checker without saying about what, and notes to finish something later."""
    for source in tree:
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            if token.type != tokenize.COMMENT:
                continue
            if _LOOSE_COMMENT.search(token.string):
                yield source.at(token.start[0], "name the code that is silenced: type: ignore[code], noqa: CODE")
            if _UNFINISHED.search(token.string):
                yield source.at(token.start[0], "finish it, or write down the decision not to")


_BROAD = frozenset({"Exception", "BaseException"})


def broad_catches(tree: Iterable[Source], allowed: Collection[str] = ()) -> Iterator[str]:
    """Handlers that swallow every exception, in files that are not ``allowed`` to; one that ends in raise does not."""
    for source in tree:
        if source.path in allowed:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = _names_in(node.type)
                if (node.type is None or caught & _BROAD) and not isinstance(node.body[-1], ast.Raise):
                    yield source.at(node.lineno, "catch the errors you expect; only an outermost edge catches all")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
                for argument in node.args:
                    if _names_in(argument) & _BROAD:
                        yield source.at(node.lineno, "suppress the errors you expect, not all")


def _names_in(node: ast.AST | None) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if node else set()
