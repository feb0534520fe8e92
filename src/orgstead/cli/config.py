"""``orgstead config``: the settings, where they come from, and their reference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from pydantic import SecretStr

from orgstead.cli.commands import command, group
from orgstead.cli.output import Options, Output
from orgstead.config import Configuration, load
from orgstead.settings import Setting, Settings, describe, variable_of

MASK = "********"

app = group("Show the settings and where they come from.")


def configuration(options: Options, flags: Mapping[str, Any] | None = None) -> Configuration:
    """The configuration under the global options and these flags; what is odd about it is told on standard error."""
    found = load({"database_url": options.database_url, **(flags or {})}, file=options.config)
    for warning in found.warnings:
        Output(options).say(f"warning: {warning}")
    return found


@command(app, "show")
def show(ctx: typer.Context) -> None:
    """Show every setting with its value and source. Secrets are masked."""
    found = configuration(ctx.obj)
    rows = (
        {"setting": path, "value": value, "source": found.source_of(path), "variable": variable_of(path)}
        for path, value in values(found.settings)
    )
    Output(ctx.obj).rows(rows, ("setting", "value", "source"), key="setting")


@command(app, "docs")
def docs(ctx: typer.Context) -> None:
    """Write the reference of all settings, in Markdown."""
    Output(ctx.obj).text(reference())


def values(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Every setting's dotted path and its value as it may be shown."""
    for setting in describe():
        if setting.path.startswith("plans."):
            for name, plan in settings.plans.items():
                field = setting.path.rpartition(".")[2]
                yield f"plans.{name}.{field}", _shown(getattr(plan, field))
            continue
        value: Any = settings
        for part in setting.path.split("."):
            value = getattr(value, part)
        yield setting.path, _shown(value)


def _shown(value: Any) -> Any:
    match value:
        case SecretStr():
            return MASK
        case tuple():
            return [str(part) for part in value]
        case str() if "://" in value or "@" in value:
            return masked(value)
        case None | str() | int() | float():
            return value
    return str(value)


def masked(url: str) -> str:
    """A URL without what could be a password: ``scheme://user:********@host/db``; parameters are hidden whole."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return MASK
    credentials, at, place = rest.rpartition("@")
    user = re.split("[:/?]", credentials)[0] + f":{MASK}@" if at else ""
    place, question, _ = place.partition("?")
    return f"{scheme}://{user}{place}{question}{MASK if question else ''}"


def reference() -> str:
    """The reference of all settings, in Markdown: what ``docs/configuration.md`` holds."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `orgstead config docs`. -->",
        "",
        "A setting is taken from the first of: a flag of the command, the environment variable, the file that the",
        "variable with `_FILE` behind its name points to (for secrets mounted as files), `orgstead.toml` in the",
        "current folder (or the file that `--config` or `ORGSTEAD_CONFIG` names), its default. In the file, dots are",
        "tables: `http.port` is `port` in `[http]`. `orgstead config show` prints every value and its source.",
    ]
    section = None
    for setting in describe():
        heading = setting.path.rpartition(".")[0].replace(".<name>", "")
        if heading != section:
            section = heading
            lines += ["", f"## {f'`{heading}`' if heading else 'General'}", ""]
            lines += ["| setting | environment variable | allowed | default | meaning |", "|---|---|---|---|---|"]
        cells = (f"`{setting.path}`", f"`{setting.variable}`", setting.allowed, _default(setting), setting.description)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _default(setting: Setting) -> str:
    if setting.path.startswith("plans."):
        field = setting.path.rpartition(".")[2]
        values = {name: getattr(plan, field) for name, plan in Settings().plans.items()}
        return ", ".join(f"{name}: {value}" for name, value in values.items() if value is not None)
    return "" if setting.default in (None, ()) else f"`{setting.default}`"
