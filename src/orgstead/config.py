"""Reads the settings, once, from flags, environment, files and ``orgstead.toml``.

``load`` gives an instance; nothing here is a global, so two differently configured apps can live in one process.
The order, strongest first: flag, ``ORGSTEAD_<NAME>``, ``ORGSTEAD_<NAME>_FILE`` (its file's content), ``orgstead.toml``,
default. ``__`` separates the levels of a nested setting: ``ORGSTEAD_HTTP__PORT`` is ``http.port``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from orgstead.errors import ConfigurationError
from orgstead.settings import Settings, describe, variable_of

__all__ = ["Configuration", "Settings", "load"]

PREFIX = "ORGSTEAD_"
FILE_VARIABLE = "ORGSTEAD_CONFIG"
DEFAULT_FILE = Path("orgstead.toml")
OTHERS = (FILE_VARIABLE, "ORGSTEAD_FAILPOINTS")
"""Variables with our prefix that are no settings; so are those that begin with ``ORGSTEAD_TEST_``."""
MAX_FILE_BYTES = 65_536

_ANOTHER_FILE = f"correct --config or {FILE_VARIABLE}, or leave them out"


@dataclass(frozen=True)
class Configuration:
    """The settings, where each value that is not a default came from (by dotted path), what to warn about, and the
    files that secrets were read from."""

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    secret_files: tuple[Path, ...] = ()

    def source_of(self, path: str) -> str:
        return self.sources.get(path, "default")


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Configuration:
    """Read the configuration.

    ``flags`` maps dotted paths to values; None means that the flag was not given. ``file`` is the configuration file;
    without it ``ORGSTEAD_CONFIG`` names one, else ``orgstead.toml`` is read if it is there. Raises
    ``ConfigurationError`` that names the setting, its source and what is allowed, never the value.
    """
    environ = os.environ if environ is None else environ
    named = file or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    variables, from_files, warnings = _sorted_out(environ)
    layers = [
        (_read_toml(named or DEFAULT_FILE, required=named is not None), str(named or DEFAULT_FILE), False),
        (_nested(from_files), "_FILE", True),
        (_nested(variables), "", True),
        (_tree({path: value for path, value in (flags or {}).items() if value is not None}), "flag", False),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer, label, is_variable in layers:
        _merge(values, layer)
        for path in _leaves(layer):
            sources[path] = variable_of(path) + label if is_variable else label
    try:
        return Configuration(Settings(**values), sources, warnings, _secret_files(environ, from_files, layers[0]))
    except ValidationError as error:
        raise ConfigurationError(_explain(error, sources), next="orgstead config docs") from None


def _sorted_out(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """The variables that hold a setting, those whose file holds one (as if they held it), and warnings."""
    known = {setting.variable for setting in describe()}
    variables: dict[str, str] = {}
    from_files: dict[str, str] = {}
    warnings = []
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHERS or name.startswith("ORGSTEAD_TEST_"):
            continue
        if _known(name, known):
            variables[name] = value
        elif name.endswith("_FILE") and _known(name.removesuffix("_FILE"), known):
            from_files[name.removesuffix("_FILE")] = _content(name, Path(value))
        else:
            near = get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1)
            warnings.append(f"{name} is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "."))
    return variables, from_files, tuple(warnings)


def _secret_files(
    environ: Mapping[str, str], from_files: Mapping[str, str], toml: tuple[Mapping[str, Any], str, bool]
) -> tuple[Path, ...]:
    """The files that a setting which is secret, or a database's URL with a password, was read from."""
    layer, file, _ = toml
    secrets = [setting for setting in describe() if setting.secret]
    named = [one.variable for one in secrets if one.variable in from_files]
    if "@" in from_files.get(variable_of("database_url"), ""):
        named.append(variable_of("database_url"))
    in_toml = {one.path for one in secrets} & set(_leaves(layer)) or "@" in str(layer.get("database_url", ""))
    return (*([Path(file)] if in_toml else []), *(Path(environ[f"{variable}_FILE"]) for variable in named))


def _known(name: str, known: set[str]) -> bool:
    match name.split("__"):
        case ["ORGSTEAD_PLANS", plan, _] if plan:
            return name.replace(plan, "<NAME>", 1) in known
    return name in known


def _content(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"The file that {variable} names is larger than {MAX_FILE_BYTES} bytes.", next=f"correct {variable}"
            )
        return content.decode().rstrip("\r\n")
    except OSError as error:
        detail = f"The file that {variable} names cannot be read: {error.strerror}."
        raise ConfigurationError(detail, next=f"correct {variable}, or the file's rights") from None
    except UnicodeDecodeError:
        detail = f"The file that {variable} names is not UTF-8 text."
        raise ConfigurationError(detail, next=f"correct {variable}") from None


def _read_toml(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if not required:
            return {}
        raise ConfigurationError(f"There is no configuration file {path}.", next=_ANOTHER_FILE) from None
    except OSError as error:
        detail = f"The configuration file {path} cannot be read: {error.strerror}."
        raise ConfigurationError(detail, next=_ANOTHER_FILE) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8 text"
        detail = f"The configuration file {path} is not valid TOML: {where}."
        raise ConfigurationError(detail, next="mend it; orgstead config docs says what can be in it") from None


class _Variables(EnvSettingsSource):
    """pydantic-settings' reader of environment variables, over the given ones instead of the process's."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = {name.lower(): value for name, value in variables.items()}
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variables


def _nested(variables: Mapping[str, str]) -> dict[str, Any]:
    return _Variables(variables)()


def _tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, leaf = path.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    """All faults in one text, one sentence each, without the values."""
    allowed = {setting.path: setting.allowed for setting in describe()}
    sentences = []
    for fault in error.errors(include_input=False, include_context=False, include_url=False):
        path = ".".join(str(part) for part in fault["loc"])
        source = sources.get(path) or next((s for p, s in sources.items() if p.startswith(f"{path}.")), None)
        said = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "model_type":
            first = next((name for name in allowed if name.startswith(f"{path}.")), path)
            said = f"it is a table of settings, such as {first}"
        if not path:
            sentences.append(f"{said}.")
        elif fault["type"] == "extra_forbidden":
            near = get_close_matches(path, {*allowed, *(name.partition(".")[0] for name in allowed)}, n=1)
            sentences.append(f"{path} ({source}) is no setting" + (f"; did you mean {near[0]}?" if near else "."))
        else:
            hint = f" Allowed: {allowed[path]}." if path in allowed else ""
            sentences.append(f"{path} ({source or 'default'}): {said[0].lower()}{said[1:]}.{hint}")
    return " ".join(sentences)
