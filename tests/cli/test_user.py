"""``orgstead user``: how somebody who was imported gets a password, and so in."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest

from orgstead import sessions
from orgstead.app import App
from orgstead.config import load
from orgstead.errors import BadCredentials
from orgstead.sessions import LoginResult
from tests.cli.conftest import Run

EMAIL = "owner@mueller.example.com"
PASSWORD = "a long walk home"


@pytest.fixture
def imported(cli: Run, folder: Path) -> None:
    """An organization from a list, whose owner has no password."""
    assert cli("db", "upgrade").code == 0
    (folder / "customers.csv").write_text(f"external_id,name,owner_email\ncrm-1,Acme Tools,{EMAIL}\n")
    assert cli("org", "import", "customers.csv").code == 0


async def _login(password: str) -> LoginResult:
    app = await App.open(load().settings)
    try:
        return await sessions.login(app, EMAIL, password)
    finally:
        await app.close()


def login(password: str) -> LoginResult:
    return asyncio.run(_login(password))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def typing(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[str]:
    """A terminal at which somebody types these; gives what they are asked."""
    asked: list[str] = []
    answers = iter(texts)

    def getpass(prompt: str, stream: object = None) -> str:
        asked.append(prompt)
        return next(answers)

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("orgstead.cli.user.getpass", getpass)
    return asked


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("line", [f"{PASSWORD}\n", PASSWORD, f"{PASSWORD}\r\nsomething else\n"])
def test_an_imported_owner_gets_in(cli: Run, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    with pytest.raises(BadCredentials):
        login(PASSWORD)
    given(monkeypatch, line)
    done = cli("user", "set-password", "Owner@Mueller.example.com", "--stdin", "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["email"] == EMAIL
    assert login(PASSWORD).user_id == shown["id"]
    assert PASSWORD not in done.out + done.err
    assert cli("fsck", "--json").code == 0


@pytest.mark.usefixtures("imported")
def test_it_is_asked_for_twice_at_a_terminal(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = typing(monkeypatch, PASSWORD, "something else")
    different = cli("user", "set-password", EMAIL)
    assert (different.code, "two different" in different.err, len(asked)) == (2, True, 2)
    typing(monkeypatch, PASSWORD, PASSWORD)
    done = cli("user", "set-password", EMAIL)
    assert done.code == 0, done.err
    assert PASSWORD not in done.out + done.err
    login(PASSWORD)


@pytest.mark.usefixtures("imported")
def test_without_a_terminal_nobody_is_asked(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, f"{PASSWORD}\n")
    silent = cli("user", "set-password", EMAIL)
    assert (silent.code, "next: add --stdin" in silent.err) == (2, True)
    typing(monkeypatch)
    assert cli("user", "set-password", EMAIL, "--no-input").code == 2
    given(monkeypatch, "\n")
    assert cli("user", "set-password", EMAIL, "--stdin").code == 2


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("email", "password", "code", "said"),
    [
        ("nobody@example.com", PASSWORD, 5, "No account has this e-mail address"),
        ("nobody", PASSWORD, 2, "not an e-mail address"),
        (EMAIL, "short", 2, "at least"),
        (EMAIL, "Acme Tools", 2, "a name of the organization"),
        (EMAIL, EMAIL, 2, "an e-mail address"),
    ],
)
def test_what_is_wrong_is_said(
    cli: Run, monkeypatch: pytest.MonkeyPatch, email: str, password: str, code: int, said: str
) -> None:
    given(monkeypatch, f"{password}\n")
    refused = cli("user", "set-password", email, "--stdin")
    assert (refused.code, said in refused.err, "next: " in refused.err) == (code, True, True), refused.err
    for text in {PASSWORD, password} - {"short", EMAIL}:
        assert text not in refused.err
