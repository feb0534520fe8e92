"""``orgstead completion``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from orgstead.cli.commands import command, single
from orgstead.cli.output import Output
from orgstead.cli.summary import COMPLETE_VARIABLE, PROGRAM

app = single()


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command(app, "completion")
def completion(
    ctx: typer.Context, shell: Annotated[Shell, typer.Argument(help="The shell that will read it.")]
) -> None:
    """Print the completion script of a shell, for example: orgstead completion bash > ~/.bash_completion"""
    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=shell.value)
    Output(ctx.obj).text(script)
