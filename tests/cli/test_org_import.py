"""``orgstead org import``: every line is accounted for, whatever is in it, and a second run changes nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from orgstead.cli import accounts
from tests.cli.conftest import ORGSTEAD, Result, Run
from tests.support import PROJECT

HARD_NAMES = PROJECT / "tests" / "data" / "hard_names.csv"


@pytest.fixture(autouse=True)
def upgraded(cli: Run) -> None:
    assert cli("db", "upgrade").code == 0


def results(out: str) -> list[tuple[int, str]]:
    return [(row["line"], row["result"]) for row in map(json.loads, out.splitlines())]


def test_the_hardest_names_are_all_created_and_a_second_run_changes_nothing(cli: Run) -> None:
    with HARD_NAMES.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = cli("org", "import", str(HARD_NAMES), "-o", "jsonl")
    outcomes = [json.loads(line) for line in first.out.splitlines()]
    assert first.code == 0, first.err
    assert [o["external_id"] for o in outcomes] == [row["external_id"] for row in rows]
    assert {o["result"] for o in outcomes} == {"created", "renamed"}
    assert len({o["slug"] for o in outcomes}) == len({o["organization_id"] for o in outcomes}) == len(rows)

    again = [json.loads(line) for line in cli("org", "import", str(HARD_NAMES), "-o", "jsonl").out.splitlines()]
    assert {o["result"] for o in again} == {"exists"}
    assert [o["organization_id"] for o in again] == [o["organization_id"] for o in outcomes]
    listed = json.loads(cli("org", "list", "--json").out)
    assert sorted(o["id"] for o in listed) == sorted(o["organization_id"] for o in outcomes)


def test_one_bad_line_hides_no_other(cli: Run, folder: Path) -> None:
    file = folder / "bad.csv"
    file.write_bytes(
        b"\xef\xbb\xbfexternal_id, NAME \n"
        b'a,"never closed\n'
        b"b,too,many\n"
        b",no id\n"
        b"\n"
        b'c,"Two\r\nlines"\r\n'
        b"d,\xff\xfe\n"
        b"e,!!!\n"
        b"f,api\n"
        b"f,Again\n"
        b"g,Last"
    )
    result = cli("org", "import", str(file), "-o", "jsonl", "--report", "report.csv")
    assert result.code == 1
    assert results(result.out) == [
        (2, "refused"),
        (3, "refused"),
        (4, "refused"),
        (6, "created"),
        (8, "refused"),
        (9, "refused"),
        (10, "renamed"),
        (11, "exists"),
        (12, "created"),
    ]
    assert all(json.loads(line)["reason"] for line in result.out.splitlines() if '"refused"' in line)
    assert "error import.lines_refused: 5 of 9 lines" in result.err
    with (folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        assert [(int(row["line"]), row["result"]) for row in csv.DictReader(stream)] == results(result.out)


def test_json_lines_from_standard_input(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        '{"external_id": "a", "name": "Acme", "plan": "pro", "owner_email": "ada@example.com", "slug": null}',
        '{"external_id": "b", "name": "Beta", "plan": "nope"}',
        '{"external_id": "c", "name": "Gamma", "owner_email": "not an address"}',
        '{"external_id": 4, "name": "Delta"}',
        '{"external_id": "e", "name": "Eps", "role": "owner"}',
        "[1]",
        "{",
        "[" * 100_000,
        '{"external_id": "i", "name": "Iota", "name": "Kappa"}',
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    result = cli("org", "import", "-", "--format", "jsonl", "-o", "jsonl")
    assert result.code == 1
    assert results(result.out) == [(1, "created"), *((number, "refused") for number in range(2, 10))]
    assert json.loads(cli("org", "get", "acme", "--json").out)["plan"] == "pro"


@pytest.mark.parametrize("command", [("org", "import"), ("record", "import", "--org", "acme", "-c", "goods")])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("external_id,näme\n1,Ä\n".encode("latin-1"), "Line 1 of the file is not UTF-8 text."),
        ("external_id,name\n1,A\n".encode("utf-16"), "Line 1 of the file is not UTF-8 text."),
        (
            "external_id,name\n1,A\n".encode("utf-16-le"),
            "Line 1 of the file has the character NUL, as UTF-16 does and no text.",
        ),
        (b"external_id;name\n1;A\n", "The first line separates columns by semicolons; an import reads commas."),
        (b"external_id\tname\n1\tA\n", "The first line separates columns by tabs; an import reads commas."),
    ],
)
def test_another_encoding_or_separator_is_said_at_once(
    cli: Run, folder: Path, command: tuple[str, ...], content: bytes, said: str
) -> None:
    assert cli("org", "create", "Acme").code == 0
    (folder / "in.csv").write_bytes(content)
    result = cli(*command, "in.csv")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error usage: {said}\nnext: save ")


@pytest.mark.parametrize("command", [("org", "import"), ("record", "import", "--org", "acme", "-c", "goods")])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_line_in_another_encoding_is_said_to_be_that(
    cli: Run, folder: Path, command: tuple[str, ...], form: str
) -> None:
    assert cli("org", "create", "Acme").code == 0
    text = "external_id,name\na,Ä\nb,B\n" if form == "csv" else '{"external_id": "a", "name": "Ä"}\n'
    (folder / f"in.{form}").write_bytes(text.encode("latin-1"))
    for result in (
        cli(*command, f"in.{form}"),
        subprocess.run(
            [*ORGSTEAD, *command, "-", "--format", form],
            input=text.encode("latin-1"),
            capture_output=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        ),
    ):
        said = result.err if isinstance(result, Result) else result.stderr.decode()
        what = "The line is not UTF-8 text; save the file as UTF-8.\n"
        assert f"line {2 if form == 'csv' else 1}: refused: {what}" in said
        assert "error import.lines_refused: " in said


@pytest.mark.parametrize("command", [("org", "import"), ("record", "import", "--org", "acme", "-c", "goods")])
def test_nul_is_said_to_be_nul(cli: Run, folder: Path, command: tuple[str, ...]) -> None:
    assert cli("org", "create", "Acme").code == 0
    nul = "refused: The line has the character NUL, as UTF-16 does and no text; save the file as UTF-8.\n"
    (folder / "in.csv").write_bytes(b"external_id,name\na\0,A\n")
    assert f"line 2: {nul}" in cli(*command, "in.csv").err
    (folder / "in.jsonl").write_bytes(b'{"external_id": "a", "name": "\0"}\n')
    assert f"line 1: {nul}" in cli(*command, "in.jsonl").err


def test_a_field_that_goes_on_into_a_line_that_is_no_text_says_which(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_bytes(b'external_id,name\na,"A\nB\xff"\nb,B\n')
    result = cli("org", "import", "in.csv", "-o", "jsonl")
    assert results(result.out) == [(2, "refused"), (3, "refused"), (4, "created")]
    what = "is not UTF-8 text; save the file as UTF-8.\n"
    assert f"line 2: refused: The line has a field that goes on into line 3, which {what}" in result.err
    assert f"line 3: refused: The line {what}" in result.err


def test_columns_that_are_not_known_are_named(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("external_id,name,colour,size\x1b[2J\n", encoding="utf-8")
    assert "does not know: colour, size\\x1b[2j.\n" in cli("org", "import", "in.csv").err


KNOWN = "an import knows external_id, name, slug, plan, owner_email.\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('"colour": "red"', f"The line has a member that an import does not know: colour. Remove it; {KNOWN}"),
        ('"a": 1, "\x7f": 2', f"The line has members that an import does not know: a, \\x7f. Remove them; {KNOWN}"),
        ('"slug": 7, "plan": ["x"]', "What the line has for slug, plan must be text, in quotes.\n"),
        ('"name": "A", "name": "B"', "An object in the line has the same member twice.\n"),
        ('"name" "A"', "The line is not valid JSON (column 29).\n"),
        ('"name": "\\u0000"', "A text in the line has the character NUL, which cannot be stored.\n"),
    ],
)
def test_what_is_wrong_with_a_line_of_json_is_said(cli: Run, folder: Path, line: str, why: str) -> None:
    (folder / "in.jsonl").write_text(f'{{"external_id": "a", {line}}}\n')
    said = cli("org", "import", "in.jsonl", "-q").err
    assert said.startswith(f"line 1: refused: {why}")


@pytest.mark.parametrize(
    ("rows", "said", "next_"),
    [
        (["a,!!!"], "The only line was refused.", "mend that line and "),
        (["a,!!!", "b,!!!"], "All 2 lines were refused.", "mend those lines and "),
        (["a,!!!", "b,B"], "1 of 2 lines was refused; the rest was done.", "mend that line and "),
        (["a,!!!", "b,!!!", "c,C"], "2 of 3 lines were refused; the rest was done.", "mend those lines and "),
    ],
)
def test_how_many_were_refused_is_said_in_words_that_fit(
    cli: Run, folder: Path, rows: list[str], said: str, next_: str
) -> None:
    (folder / "in.csv").write_text("\n".join(["external_id,name", *rows]))
    result = cli("org", "import", "in.csv")
    assert f"error import.lines_refused: {said}\nnext: {next_}" in result.err
    assert f"{len(rows)} line{'s' * (len(rows) > 1)} in " in result.err


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04" + bytes(100)])
def test_what_is_named_like_an_archive_and_is_none_is_said_to_be_none(cli: Run, folder: Path, content: bytes) -> None:
    (folder / "acme.zip").write_bytes(content)
    result = cli("org", "import", "acme.zip")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error archive.invalid: ")


@pytest.mark.parametrize(
    ("content", "args"),
    [
        (b"id,name\n", ()),
        (b"external_id,name,name\n", ()),
        (b"external_id,name,colour\n", ()),
        (b"", ()),
        (b"external_id,name\na,A\n", ("--plan", "nope")),
        (b"external_id,name\na,A\n", ("--format", "xml")),
        (b"external_id,name\na,A\n", ("--report", "input.csv")),
    ],
)
def test_a_file_or_option_of_no_use_is_refused_before_anything_is_done(
    cli: Run, folder: Path, content: bytes, args: tuple[str, ...]
) -> None:
    (folder / "input.csv").write_bytes(content)
    result = cli("org", "import", "input.csv", *args)
    assert (result.code, result.out) == (7 if "--report" in args else 2, "")
    assert result.err.startswith("error ")
    assert cli("org", "list", "--json").out == "[]\n"
    assert (folder / "input.csv").read_bytes() == content


def test_missing_files_and_names_without_a_format_are_usage_errors(cli: Run, folder: Path) -> None:
    (folder / "names.txt").write_text("external_id,name\n")
    for file in ("missing.csv", "names.txt", "."):
        assert cli("org", "import", file).code == 2


def test_totals_are_the_table_and_formulas_are_neutralized(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("external_id,name\n=1+1,Acme\n", encoding="utf-8")
    result = cli("org", "import", "in.csv", "--report", "out.csv")
    assert result.code == 0
    assert dict(line.split() for line in result.out.splitlines()) == {
        "created": "1",
        "exists": "0",
        "renamed": "0",
        "refused": "0",
        "lines": "1",
    }
    assert "'=1+1" in (folder / "out.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("pages", [380, 440])  # between two batches, and where a batch is but begun
def test_a_full_disk_is_told_truly_and_the_next_step_works(cli: Run, folder: Path, pages: int) -> None:
    with (folder / "many.csv").open("w", encoding="utf-8") as stream:
        stream.write("external_id,name\n")
        stream.writelines(f"x-{number},Company Number {number}\n" for number in range(2_000))
    small = ("--database-url", f"sqlite:///orgstead-data/main.db?max_pages={pages}")
    result = cli("org", "import", "many.csv", "-o", "jsonl", "--report", "report.csv", *small)
    assert result.code == 8
    assert "nothing was changed" not in result.err
    assert "next: make room, then run the same command again, with another file for --report" in result.err
    status = {o["id"]: o["status"] for o in json.loads(cli("org", "list", "--json").out)}
    outcomes = [json.loads(line) for line in result.out.splitlines()]
    assert status == {o["organization_id"]: "active" if o["result"] == "created" else "provisioning" for o in outcomes}
    with (folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        assert [(int(row["line"]), row["result"]) for row in csv.DictReader(stream)] == results(result.out)
    assert cli("org", "import", "many.csv", "--report", "again.csv").code == 0
    assert cli("fsck", "--json").out == "[]\n"


def test_quiet_hides_no_reason(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("external_id,name\na,!!!\n", encoding="utf-8")
    said = cli("org", "import", "in.csv", "-q").err
    assert said.startswith("line 2: refused: ")
    assert "error import.lines_refused: The only line was refused.\n" in said


@pytest.mark.parametrize(("content", "lines"), [("", 0), ("h\n", 0), ("h\na", 1), ("h\na\nb\n", 2)])
def test_progress_counts_towards_the_lines_behind_the_header(folder: Path, content: str, lines: int) -> None:
    (folder / "in.csv").write_text(content)
    assert accounts.count_lines(folder / "in.csv", header=True) == lines


def test_the_next_step_after_refused_lines_can_be_taken(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("external_id,name\na,Acme\nb,!!!\n", encoding="utf-8")
    assert "run the same command again: " in cli("org", "import", "in.csv").err
    result = cli("org", "import", "in.csv", "--report", "report.csv")
    assert "run the same command again, with another file for --report: " in result.err


def test_ctrl_c_keeps_what_was_said_to_be_done_and_the_next_run_completes_it(cli: Run, folder: Path) -> None:
    total = 5_000
    with (folder / "many.csv").open("w", encoding="utf-8") as stream:
        stream.write("external_id,name\n")
        stream.writelines(f"x-{number},Company Number {number}\n" for number in range(total))
    command = [*ORGSTEAD, "org", "import", "many.csv", "-o", "jsonl", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = [json.loads(process.stdout.readline())]
        process.send_signal(signal.SIGINT)
        said += [json.loads(line) for line in process.stdout]
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert 0 < len(said) < total
    assert errors.startswith("interrupted: ")
    assert "next: run the same command again: what is there already" in errors
    listed = [o["id"] for o in json.loads(cli("org", "list", "--json").out)]
    assert sorted(listed) == sorted(o["organization_id"] for o in said), "all that was saved is in the account"

    again = cli("org", "import", "many.csv", "-o", "jsonl")
    assert again.code == 0
    outcomes = {o["external_id"]: o for o in map(json.loads, again.out.splitlines())}
    assert len(outcomes) == total
    assert all(outcomes[o["external_id"]]["organization_id"] == o["organization_id"] for o in said)
    assert {outcomes[o["external_id"]]["result"] for o in said} == {"exists"}
    assert cli("fsck", "--json").out == "[]\n"
