"""What every command shares: global options, exit codes, the form of errors, completion, start as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from orgstead import __version__
from orgstead.cli import app as root
from orgstead.cli.errors import DIFFERENCES, EXIT_CODES, INTERRUPTED, OK, UsageError, exit_code
from orgstead.cli.summary import COMMANDS, OPTIONS, summary
from orgstead.errors import (
    BadCredentials,
    ConfigurationError,
    DatabaseInUse,
    InvalidSlug,
    NameTaken,
    NotFound,
    OrgsteadError,
    Overloaded,
    PreconditionFailed,
    Problem,
    SchemaOutdated,
    catalogue,
)
from tests.cli.conftest import ORGSTEAD, Run
from tests.support import PROJECT


def test_the_summary_names_every_command_and_every_global_option(cli: Run) -> None:
    text = cli("--help").out
    assert text.rstrip("\n") == summary().rstrip("\n")
    for name in COMMANDS:
        assert f"  {name} " in text
    offered = {option for param in root.root().params for option in param.opts}
    named = {word.strip(",") for names, _ in OPTIONS for word in names.split() if word.startswith("-")}
    assert named - {"-h", "--help", "--version"} == offered


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded_and_helps(name: str, cli: Run) -> None:
    assert import_module(f"orgstead.cli.{COMMANDS[name].module}").app
    result = cli(name, "--help")
    assert result.code == 0
    assert f"orgstead {name}" in result.out


def test_version_is_the_first_line_of_the_command_version(cli: Run) -> None:
    done = subprocess.run([*ORGSTEAD, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == cli("version").out.splitlines()[:1]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_loads_no_machinery(option: str) -> None:
    """What costs start-up time must not creep into the path of ``--help``."""
    script = (
        f"import sys; sys.argv = ['orgstead', '{option}']; from orgstead.__main__ import main; main();"
        "print(sorted({'typer', 'rich', 'pydantic', 'asyncio', 'structlog', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


WITHOUT_DRIVERS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"asyncpg", "pymongo", "bson", "gridfs"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from orgstead.cli.app import run
sys.exit(run(sys.argv[1:]))
"""
"""The command where no driver of a database server is installed."""


def test_the_embedded_database_needs_no_driver_of_a_server(folder: Path) -> None:
    def call(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_DRIVERS, *args]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    for command in ("db upgrade", "org create Acme", "org list", "fsck", "doctor", "openapi", "config show"):
        done = call(*command.split())
        assert done.returncode == 0, f"{command}: {done.stderr}"
    for scheme, extra in (("postgresql", "postgres"), ("mongodb", "mongodb")):
        done = call("org", "list", "--database-url", f"{scheme}://127.0.0.1:1/x")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"The driver for {scheme} databases is not installed." in done.stderr
        assert f"next: pip install 'orgstead[{extra}]'" in done.stderr


def test_no_command_is_a_usage_error_with_the_help(cli: Run) -> None:
    for args in (["config"], ["-q", "config"]):
        result = cli(*args)
        assert (result.code, result.out) == (2, "")
        assert "show" in result.err


@pytest.mark.parametrize("args", [["--json", "version"], ["version", "--json"], ["-o", "json", "version"]])
def test_global_options_stand_before_or_after_the_command(args: list[str], cli: Run) -> None:
    result = cli(*args)
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["orgstead"] == __version__


def test_an_option_after_the_command_wins(cli: Run) -> None:
    assert cli("-o", "json", "version", "-o", "id").out == f"{__version__}\n"
    assert json.loads(cli("-o", "id", "version", "--json").out)


@pytest.mark.parametrize(
    ("args", "said", "next_"),
    [
        (["confg"], "Did you mean 'config'?", "orgstead --help"),
        (["config", "shw"], "No such command", "orgstead config --help"),
        (["config", "show", "--nope"], "--nope", "orgstead config show --help"),
        (["config", "show", "-o", "xml"], "'--output' / '-o': 'xml' is not one of", "orgstead config show --help"),
        (["completion"], "Missing argument", "orgstead completion --help"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_the_way_out(args: list[str], said: str, next_: str, cli: Run) -> None:
    result = cli(*args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error usage: ")
    assert said in result.err
    assert f"next: {next_}\n" in result.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidSlug(), 2),
        (UsageError(), 2),
        (BadCredentials(), 4),
        (NotFound(), 5),
        (NameTaken(), 7),
        (PreconditionFailed(), 7),
        (Overloaded(), 8),
        (DatabaseInUse(), 8),
        (SchemaOutdated(), 1),
        (ConfigurationError(), 1),
        (OrgsteadError(), 1),
    ],
)
def test_exit_codes(error: OrgsteadError, code: int) -> None:
    assert exit_code(error) == code


def test_every_error_has_an_exit_code() -> None:
    assert {exit_code(cls.__new__(cls)) for cls in catalogue()} <= set(EXIT_CODES.values())


def test_the_documentation_has_every_exit_code() -> None:
    page = (PROJECT / "docs" / "operating.md").read_text(encoding="utf-8")
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", page.partition("## Exit codes")[2], re.MULTILINE)]
    assert told == sorted({OK, DIFFERENCES, INTERRUPTED, *EXIT_CODES.values()})


def test_an_expected_error_is_told_without_a_trace(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: object) -> None:
        raise NameTaken("It is taken.", next="orgstead org list", problems=[Problem("/slug", "taken", "Not free.")])

    monkeypatch.setattr("orgstead.cli.config.configuration", fail)
    result = cli("config", "show")
    assert result.code == 7
    assert result.out == ""
    assert result.err == ("error organization.name_taken: It is taken.\n  /slug: Not free.\nnext: orgstead org list\n")


def test_a_sentence_is_said_once(cli: Run) -> None:
    assert cli("db", "upgrade").code == 0
    result = cli("org", "create", "!!!")
    assert (result.code, len(result.err.splitlines())) == (2, 1)


def test_an_unexpected_error_is_not_dressed_up(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("orgstead.cli.config.configuration", fail)
    with pytest.raises(ZeroDivisionError):
        cli("config", "show")


@pytest.mark.parametrize(
    "command",
    [
        ("org", "get", "nobody"),
        ("operation", "get", "nothing"),
        ("operation", "list", "--org", "nobody"),
        ("usage", "nobody"),
        ("record", "get", "nothing", "--org", "acme", "-c", "goods"),
        ("record", "list", "--org", "acme", "-c", "nothing"),
        ("record", "export", "--org", "acme", "-c", "nothing"),
        ("collection", "get", "nothing", "--org", "acme"),
        ("collection", "list", "--org", "nobody"),
        ("api-key", "delete", "nothing", "--org", "acme"),
        ("user", "set-password", "nobody@example.com"),
    ],
    ids=" ".join,
)
def test_whoever_names_what_is_not_there_is_told_where_to_look(
    cli: Run, folder: Path, command: tuple[str, ...]
) -> None:
    assert cli("db", "upgrade").code == 0
    assert cli("org", "create", "Acme").code == 0
    (folder / "one.jsonl").write_text('{"n": 1}\n', encoding="utf-8")
    assert cli("record", "import", "one.jsonl", "--org", "acme", "-c", "goods").err == "1 line in 0.0 s\n"
    result = cli(*command)
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith("error resource.not_found: ")
    assert "\nnext: " in result.err


def test_ctrl_c_at_a_question_ends_at_once_and_nothing_was_done(cli: Run) -> None:
    assert cli("db", "upgrade").code == 0
    assert cli("org", "create", "Acme").code == 0
    terminal, its_end = os.openpty()
    command = [*ORGSTEAD, "org", "delete", "acme"]
    with subprocess.Popen(command, stdin=its_end, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        os.close(its_end)
        assert process.stderr is not None
        said = b""
        while not said.endswith(b"[y/N] "):
            said += os.read(process.stderr.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
            os.close(terminal)
        assert b"Traceback" not in process.stderr.read()
    assert json.loads(cli("org", "get", "acme", "--json").out)["status"] == "active"


def test_interrupt_ends_with_130(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_options: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("orgstead.cli.config.configuration", interrupt)
    result = cli("config", "show")
    assert result.code == 130
    assert "Traceback" not in result.err


# --- as a process ---------------------------------------------------------------------------------------------------


def test_a_process_returns_the_code_and_keeps_its_ends_apart(folder: Path) -> None:
    done = subprocess.run(
        [*ORGSTEAD, "config", "show", "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "ORGSTEAD_HTP__PORT": "1"},
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)
    assert done.stderr == "warning: ORGSTEAD_HTP__PORT is not a setting; did you mean ORGSTEAD_HTTP__PORT?\n"
    refused = subprocess.run([*ORGSTEAD, "nothing"], capture_output=True, text=True, cwd=folder, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")


@pytest.mark.parametrize("args", [("version",), ("config", "docs"), ("--help",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(args: tuple[str, ...], unbuffered: str, folder: Path) -> None:
    """``orgstead config docs | head -1``: the pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [*ORGSTEAD, *args],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=closed,
            stderr=subprocess.PIPE,
            cwd=folder,
            check=False,
        )
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("args", [("--help",), ("config", "docs"), ("config", "show")])
def test_an_output_that_is_full_is_told_without_a_trace(args: tuple[str, ...], folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*ORGSTEAD, *args], stdout=full, stderr=subprocess.PIPE, cwd=folder, check=False)
    assert done.stderr == b"error output.failed: The output cannot be written: No space left on device.\n"
    assert done.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
@pytest.mark.parametrize("args", ["--help", "version", "org list"])
def test_an_output_that_is_closed_is_told_without_a_trace(args: str, closed: str, cli: Run, folder: Path) -> None:
    assert cli("db", "upgrade").code == 0
    command = f"{' '.join(ORGSTEAD)} {args} {closed}"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, cwd=folder, check=False)
    assert done.stderr == "error output.failed: The output cannot be written: Bad file descriptor.\n"
    assert done.returncode == 1


def test_text_is_utf8_whatever_the_locale(folder: Path) -> None:
    (folder / "orgstead.toml").write_text('public_url = "https://bücher.example"\n')
    environ = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    done = subprocess.run(
        [*ORGSTEAD, "config", "show", "--json"], capture_output=True, cwd=folder, env=environ, check=True
    )
    assert "https://bücher.example" in done.stdout.decode("utf-8")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_the_command(shell: str, cli: Run) -> None:
    script = cli("completion", shell).out
    assert "_ORGSTEAD_COMPLETE" in script
    assert f"complete_{shell}" in script


def test_completion_suggests_commands(folder: Path) -> None:
    environ = {
        **os.environ,
        "_ORGSTEAD_COMPLETE": "complete_bash",
        "COMP_WORDS": "orgstead config s",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(ORGSTEAD, capture_output=True, text=True, cwd=folder, env=environ, check=True)
    assert done.stdout.split() == ["show"]
