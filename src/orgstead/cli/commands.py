"""How commands are declared: each takes the global options, before or after its name, and finds them in ``ctx.obj``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand
from typer.main import get_command

from orgstead.cli.output import Format, Options

Function = TypeVar("Function", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"]}


def remember(
    ctx: typer.Context,
    output: Annotated[
        Format | None, typer.Option("--output", "-o", help="How results are printed.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as -o json.", show_default=False)] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.", show_default=False)
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.", show_default=False)] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask.", show_default=False)] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to questions.", show_default=False)] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The configuration file.", show_default=False)
    ] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", metavar="URL", help="The database.", show_default=False)
    ] = None,
) -> None:
    """Keep the options given here in ``ctx.obj``, over those given further to the left."""
    before = ctx.obj if isinstance(ctx.obj, Options) else Options()
    ctx.obj = Options(
        format=Format.JSON if json else output or before.format,
        quiet=quiet or before.quiet,
        no_color=no_color or before.no_color,
        no_input=no_input or before.no_input,
        yes=yes or before.yes,
        config=config or before.config,
        database_url=database_url or before.database_url,
    )


@cache
def _global_params() -> tuple[Any, ...]:
    """The parameters of ``remember``, made once and shared by all commands."""
    template = typer.Typer(add_completion=False)
    template.command()(remember)
    return tuple(get_command(template).params)


class Command(TyperCommand):
    """A command that takes the global options too, and lists them apart in its help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_params = tuple(self.params)
        self.params = [*self.params, *_global_params()]

    def invoke(self, ctx: Any) -> Any:
        given = {param.name: ctx.params.pop(param.name) for param in _global_params()}
        remember(ctx, **given)
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        own = [*self.own_params, *(p for p in self.get_params(ctx) if p not in self.params)]
        sections = (
            ("Arguments", [p for p in own if p.param_type_name == "argument"]),
            ("Options", [p for p in own if p.param_type_name == "option"]),
            ("Options of every command", _global_params()),
        )
        for title, params in sections:
            records = [record for p in params if (record := p.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def group(summary: str) -> typer.Typer:
    """A group of commands; alone, without a command, it shows its help and ends as a usage error."""
    app = single()

    @app.callback(invoke_without_command=True, help=summary)
    def _help(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)

    return app


def single() -> typer.Typer:
    """The application of a module that has just one command."""
    return typer.Typer(
        rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, context_settings=SETTINGS
    )


def command(app: typer.Typer, name: str) -> Callable[[Function], Function]:
    """Declare a command of ``app``; its docstring is its help."""
    return app.command(name, cls=Command, context_settings=SETTINGS)
