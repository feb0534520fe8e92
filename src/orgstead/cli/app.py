"""The root of the command line: finds the command, runs it, and turns what happens into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import typer
from typer._completion_classes import completion_init
from typer.core import TyperGroup
from typer.main import get_command

from orgstead.cli.commands import SETTINGS, remember
from orgstead.cli.errors import FAILURE, OK, UsageError, exit_code, report
from orgstead.cli.summary import COMMANDS, COMPLETE_VARIABLE, PROGRAM, summary
from orgstead.errors import OrgsteadError


class Root(TyperGroup):
    """The group of all commands; the module of a command is imported when the command is asked for."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        names: dict[str, Any] = dict.fromkeys(COMMANDS)
        self.commands = names  # the parser suggests from these; get_command loads what they stand for

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        return get_command(import_module(f"orgstead.cli.{entry.module}").app) if entry else None

    def get_help(self, ctx: Any) -> str:
        return summary().rstrip("\n")


def root() -> Any:
    """The whole command line as one command object."""
    app = typer.Typer(
        cls=Root,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings=SETTINGS,
    )
    app.callback()(remember)
    return get_command(app)


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code. Expected errors are told on standard error, without a trace."""
    if COMPLETE_VARIABLE in os.environ:
        completion_init()
    _use_utf8()
    try:
        try:
            code = root().main(list(args), prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
            return code if isinstance(code, int) else OK
        except typer.TyperException as error:
            raise _usage(error) from None
    except OrgsteadError as error:
        report(error)
        return exit_code(error)
    except typer.Abort:
        return FAILURE


def _use_utf8() -> None:
    """Data is UTF-8 whatever the locale; a terminal that cannot show a character gets a question mark."""
    if isinstance(sys.stdout, TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")


def _usage(error: typer.TyperException) -> UsageError:
    """What the parser of the command line complains about, in our form."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    return UsageError(error.format_message().replace("Value error, ", ""), next=f"{path} --help")
