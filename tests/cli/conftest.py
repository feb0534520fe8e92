"""A command line of one's own: an empty folder, no settings from outside, and its three ends captured."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orgstead.cli.app import run


@dataclass(frozen=True)
class Result:
    """What a command left behind: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the command: empty, with no ``ORGSTEAD_*`` variable set."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("ORGSTEAD_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], restored_logging: None) -> Run:
    """Runs a command line in this process."""

    def call(*args: str) -> Result:
        code = run(args)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call


ORGSTEAD = (sys.executable, "-m", "orgstead")
"""The command as a process of its own."""
