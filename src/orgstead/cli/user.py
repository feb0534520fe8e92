"""``orgstead user``: people's accounts, as the operator."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

import typer

from orgstead import identity
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.cli.commands import command, group
from orgstead.cli.errors import UsageError
from orgstead.cli.local import reading, writing
from orgstead.cli.output import Options, Output
from orgstead.errors import InvalidEmail, NotFound, PasswordUnacceptable

app = group("Give people a password, as those need who were imported.")


@command(app, "set-password")
def set_password(
    ctx: typer.Context,
    email: Annotated[str, typer.Argument(help="The e-mail address of the account.")],
    stdin: Annotated[bool, typer.Option("--stdin", help="Read it from standard input, one line.")] = False,
) -> None:
    """Set the password of an account, and end its sessions. It is asked for twice, or read with --stdin."""
    reading(ctx, lambda app, out: _known(app, email))
    password = _line() if stdin else _asked(ctx.obj)

    async def work(app: App, out: Output) -> None:
        try:
            user = await identity.set_password(app, email, password, actor=OPERATOR)
        except PasswordUnacceptable as error:
            error.next = "choose another and run the same command again"
            raise
        out.item({"id": user.id, "email": user.email, "updated_at": user.updated_at})

    writing(ctx, work)


async def _known(app: App, email: str) -> None:
    """Raise, before anybody is asked for a password, unless this address has an account."""
    try:
        _, email_key = identity.canonical_email(email)
    except InvalidEmail:
        raise UsageError("This is not an e-mail address.", next="orgstead user set-password ada@example.com") from None
    if await app.storage.read(identity.SCOPE, identity.find_by_email, email_key) is None:
        raise NotFound(
            "No account has this e-mail address.",
            next="look for typing errors; accounts are made by signing up and by imports",
        )


def _line() -> str:
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        raise UsageError("What standard input says is not UTF-8.") from None
    if not line.rstrip("\r\n"):
        raise UsageError("Standard input is empty.", next="give the password as its first line")
    return line.rstrip("\r\n")


def _asked(options: Options) -> str:
    if options.no_input or not sys.stdin.isatty():
        raise UsageError("A password is needed, and there is no terminal to ask at.", next="add --stdin")
    try:
        password = getpass("New password: ", stream=sys.stderr)
        if getpass("The same again: ", stream=sys.stderr) != password:
            raise UsageError("These were two different passwords. Nothing was done.")
    except EOFError:
        raise UsageError("Nothing was done.") from None
    return password
