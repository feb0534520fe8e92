"""The commands and their summary, as one table: what ``orgstead --help`` shows, and which module serves what.

Imports nothing beyond our version, so that the summary appears at once.
"""

from __future__ import annotations

from typing import NamedTuple

from orgstead import __version__

PROGRAM = "orgstead"
COMPLETE_VARIABLE = "_ORGSTEAD_COMPLETE"
"""Set by the completion scripts when they ask for suggestions."""


class Entry(NamedTuple):
    """A command or group: the section that lists it, the module of ``orgstead.cli`` that has it, and one line on it."""

    section: str
    module: str
    line: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("Run", "up", "Start the service here, making what it needs."),
    "serve": Entry("Run", "serve", "Serve the API, for production."),
    "worker": Entry("Run", "worker", "Do the background work in a process of its own."),
    "demo": Entry("Run", "demo", "Load demo data, and remove it."),
    "org": Entry("Work", "org", "Create, list and change organizations."),
    "collection": Entry("Work", "collection", "List and define collections of an organization's records."),
    "record": Entry("Work", "record", "Read, query, import and export an organization's records."),
    "usage": Entry("Work", "usage", "Show what an organization uses of what its plan allows."),
    "api-key": Entry("Work", "api_key", "List API keys of an organization, and end those that leaked."),
    "user": Entry("Work", "user", "Give people a password, as those need who were imported."),
    "operation": Entry("Work", "operation", "Look at operations: work of several steps, running and done."),
    "doctor": Entry("Operate", "doctor", "Check whether this installation is fit to serve."),
    "fsck": Entry("Operate", "fsck", "Check whether everything agrees with everything else."),
    "db": Entry("Operate", "db", "Upgrade, check and back up the database."),
    "openapi": Entry("Install", "openapi", "Print the OpenAPI document of the HTTP API."),
    "version": Entry("Install", "version", "Show the version of orgstead and of what it runs on."),
    "config": Entry("Install", "config", "Show the settings and where they come from."),
    "completion": Entry("Install", "completion", "Print the completion script of a shell."),
}

OPTIONS: tuple[tuple[str, str], ...] = (
    ("-o, --output FORMAT", "table, json, jsonl, csv or id; a table unless told."),
    ("--json", "The same as -o json."),
    ("-q, --quiet", "Say nothing but results and errors."),
    ("--no-color", "No colours; the same as NO_COLOR=1."),
    ("--no-input", "Never ask: fail and name the option that would answer."),
    ("-y, --yes", "Answer yes to every question."),
    ("--config FILE", "The configuration file; orgstead.toml unless told."),
    ("--database-url URL", "The database; overrides every other source."),
    ("-h, --help", "Show this, or the help of a command."),
    ("--version", "Show the version; alone, without a command."),
)
"""The options that every command takes, before or after its name, but for the last."""


def summary() -> str:
    """The text of ``orgstead --help``."""
    lines = [
        f"orgstead {__version__}: who the organizations are, who may act for them, and where their data lives.",
        "",
        "Usage: orgstead [OPTIONS] COMMAND [ARGS]...",
    ]
    section = ""
    for name, entry in COMMANDS.items():
        if entry.section != section:
            section = entry.section
            lines += ["", f"{section}:"]
        lines.append(f"  {name:<12}{entry.line}")
    lines += ["", "Options, before or after the command:", *(f"  {name:<21}{line}" for name, line in OPTIONS)]
    return "\n".join([*lines, "", "Begin with: orgstead up", ""])
