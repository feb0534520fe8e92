"""``orgstead config``: every setting, its source, and no secret."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from orgstead.cli.config import masked, reference
from orgstead.settings import describe
from tests.cli.conftest import Run

CANARY = "canary-77e0"


def test_show_tells_value_and_source(folder: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "orgstead.toml").write_text("delete_grace_days = 7\n[plans.gold]\nplacement = 'dedicated'\n")
    monkeypatch.setenv("ORGSTEAD_HTTP__PORT", "9000")
    rows = {row["setting"]: row for row in json.loads(cli("config", "show", "--json").out)}
    assert (rows["http.port"]["value"], rows["http.port"]["source"]) == (9000, "ORGSTEAD_HTTP__PORT")
    assert (rows["delete_grace_days"]["value"], rows["delete_grace_days"]["source"]) == (7, "orgstead.toml")
    assert (rows["plans.gold.placement"]["value"], rows["plans.free.placement"]["source"]) == ("dedicated", "default")
    assert (rows["plans.gold.max_records"]["value"], rows["plans.free.max_records"]["value"]) == (None, 10_000)
    wanted = {setting.path for setting in describe()}
    assert {path for path in wanted if not path.startswith("plans.<name>.")} <= set(rows)


def test_the_database_is_taken_from_the_flag(cli: Run) -> None:
    rows = {row["setting"]: row for row in json.loads(cli("config", "show", "--json", "--database-url", "x:y").out)}
    assert (rows["database_url"]["value"], rows["database_url"]["source"]) == ("x:y", "flag")


@pytest.mark.parametrize("format", ["table", "json", "jsonl", "csv", "id"])
def test_no_format_shows_a_secret(format: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_SECRET_KEY", CANARY)
    monkeypatch.setenv("ORGSTEAD_SIGNUP_TOKEN", CANARY)
    monkeypatch.setenv("ORGSTEAD_DATABASE_URL", f"scheme://user:{CANARY}@host/db?password={CANARY}")
    result = cli("config", "show", "-o", format)
    assert result.code == 0
    assert CANARY not in result.out + result.err


def test_a_set_secret_is_told_from_an_unset_one(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_SECRET_KEY", CANARY)
    rows = {row["setting"]: row["value"] for row in csv.DictReader(io.StringIO(cli("config", "show", "-o", "csv").out))}
    assert (rows["secret_key"], rows["signup_token"]) == ("********", "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("scheme:///folder/main.db", "scheme:///folder/main.db"),
        ("scheme://host:1/db", "scheme://host:1/db"),
        ("scheme://user@host/db", "scheme://user:********@host/db"),
        ("scheme://user:p@ss:w@host/db", "scheme://user:********@host/db"),
        ("scheme://user:p/ss@host/db", "scheme://user:********@host/db"),
        ("scheme://user:p?ss@host/db", "scheme://user:********@host/db"),
        ("scheme://host/db?password=p@ss", "scheme://host:********@ss"),
        ("scheme://host/db?sslpassword=x&a=b", "scheme://host/db?********"),
        ("user:secret@host", "********"),
    ],
)
def test_a_url_is_shown_without_what_could_be_a_password(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_faulty_setting_ends_with_1_and_names_the_reference(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_MODE", CANARY)
    result = cli("config", "show")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error configuration.invalid: mode (ORGSTEAD_MODE)")
    assert "next: orgstead config docs" in result.err
    assert CANARY not in result.err


def test_the_reference_has_every_setting(cli: Run) -> None:
    text = cli("config", "docs").out
    assert text == reference()
    for setting in describe():
        assert f"| `{setting.path}` | `{setting.variable}` |" in text
