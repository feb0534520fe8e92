"""Output formats: complete, streamed, and safe for what reads them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from orgstead.cli.errors import UsageError
from orgstead.cli.output import TABLE_SAMPLE, Format, Options, Output
from orgstead.cli.progress import progress
from orgstead.csv_cells import FORMULA_STARTS
from orgstead.errors import NotFound

pytestmark = pytest.mark.anyio

ROWS: list[dict[str, Any]] = [
    {"id": "a", "name": "Ærø 組織", "size": -1, "extra": {"x": [1]}, "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
    {"id": "b", "name": None, "size": 20, "extra": {}, "at": None},
]


def printed(rows: list[dict[str, Any]], format: Format, capsys: pytest.CaptureFixture[str]) -> str:
    Output(Options(format=format)).rows(rows, ("id", "name", "size", "at"))
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_json_is_one_document_with_whole_rows(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(ROWS, Format.JSON, capsys))
    assert found == [
        {**ROWS[0], "at": "2026-01-02T03:04:05.000Z"},
        ROWS[1],
    ]


def test_jsonl_is_a_document_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(ROWS, Format.JSONL, capsys).splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]


def test_csv_has_a_header_and_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(ROWS, Format.CSV, capsys))))
    assert rows[0] == {"id": "a", "name": "Ærø 組織", "size": "-1", "at": "2026-01-02T03:04:05.000Z"}
    assert rows[1]["name"] == ""


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_csv_runs_no_formula(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed([{"id": "a", "name": f"{start}1+1", "size": -5}], Format.CSV, capsys)
    (_, row) = csv.reader(io.StringIO(text, newline=""))
    assert row[1] == f"'{start}1+1"
    assert row[2] == "-5", "a number is a number"


def test_ids_are_one_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(ROWS, Format.ID, capsys) == "a\nb\n"


def test_a_table_is_aligned_by_what_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    header, first, second = printed(ROWS, Format.TABLE, capsys).splitlines()
    assert header.index("SIZE") == second.index("20")
    assert first.index("-1") == header.index("SIZE") - 2, "two of the characters are two columns wide"


def test_a_table_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed([{"id": "a", "name": "x\x1b[2J\r\ny"}], Format.TABLE, capsys)
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


def test_a_long_table_keeps_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(number), "name": "n" * number} for number in range(TABLE_SAMPLE * 2)]
    lines = printed(rows, Format.TABLE, capsys).splitlines()
    assert len(lines) == len(rows) + 1
    assert "n" * (TABLE_SAMPLE * 2 - 1) in lines[-1]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (Format.JSON, "[]\n"),
        (Format.TABLE, "[]\n"),
        (Format.JSONL, ""),
        (Format.CSV, "id,name,size,at\r\n"),
        (Format.ID, ""),
    ],
)
def test_an_empty_list(format: Format, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed([], format, capsys) == text


@pytest.mark.parametrize("format", [Format.JSON, Format.JSONL, Format.CSV, Format.ID])
async def test_a_list_is_printed_while_it_is_read(format: Format, capsys: pytest.CaptureFixture[str]) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield {"id": "first"}
        assert "first" in capsys.readouterr().out
        yield {"id": "second"}

    await Output(Options(format=format)).stream(rows(), ("id",))
    assert "second" in capsys.readouterr().out


@pytest.mark.parametrize("format", Format)
async def test_what_fails_before_its_first_row_prints_no_data(
    format: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        raise NotFound
        yield {}

    with pytest.raises(NotFound):
        await Output(Options(format=format)).stream(rows(), ("id",))
    assert capsys.readouterr().out == ""


async def test_a_table_is_held_back_for_its_widths_only(capsys: pytest.CaptureFixture[str]) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number in range(TABLE_SAMPLE):
            yield {"id": f"row-{number}"}
        assert "row-0\n" in capsys.readouterr().out
        yield {"id": "last"}

    await Output(Options()).stream(rows(), ("id",))
    assert capsys.readouterr().out == "last\n"


def test_one_thing_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Options(format=Format.JSON)).item(ROWS[1])
    assert json.loads(capsys.readouterr().out) == ROWS[1]
    Output(Options()).item({"id": "a", "longer": True})
    assert capsys.readouterr().out == "id      a\nlonger  yes\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Options(quiet=True)).say("hello")
    Output(Options()).say("hello")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


# --- questions and progress -----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_question_without_a_terminal_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError) as caught:
        Output(Options()).confirm("Really?")
    assert caught.value.next == "add --yes"
    Output(Options(yes=True)).confirm("Really?")


def test_no_input_never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    with pytest.raises(UsageError, match="--no-input keeps it from asking"):
        Output(Options(no_input=True)).confirm("Really?")


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("YES", True), ("n", False), ("", False), ("yeah", False)])
def test_only_yes_is_yes(answer: str, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    try:
        Output(Options()).confirm("Really?")
    except UsageError:
        assert not agreed
    else:
        assert agreed


@pytest.mark.parametrize(("no_color", "variable", "shown"), [(False, "", True), (True, "", False), (False, "1", False)])
def test_colours(no_color: bool, variable: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("NO_COLOR", variable)
    assert Output(Options(no_color=no_color)).color is shown


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 3.0, 9.9, 10.0, 10.0, 15.0, 20.1, 20.1])
    with progress(Output(Options()), "Copying", 50, clock=lambda: next(times)) as advance:
        for _ in range(5):
            advance(10)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "Copying: 30 of 50\nCopying: 50 of 50\n"


def test_quiet_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter(range(0, 1000, 100))
    with progress(Output(Options(quiet=True)), "Copying", 50, clock=lambda: float(next(times))) as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_bar_waits_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    times = iter([0.0, 0.5, 1.5])
    with progress(Output(Options()), "Copying", 50, clock=lambda: next(times)) as advance:
        advance(10)
        assert "Copying" not in terminal.getvalue()
        advance(10)
    assert "Copying" in terminal.getvalue()
