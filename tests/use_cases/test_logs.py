"""Log lines: one per event whatever is in it, the same form for every logger, never a secret."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog

from orgstead import logs

CANARY = "canary-91b7"


pytestmark = pytest.mark.usefixtures("restored_logging")


def logged(format: Any, **event: Any) -> str:
    stream = io.StringIO()
    logs.configure(format=format, stream=stream)
    structlog.get_logger("orgstead.test").info("it.happened", **event)
    return stream.getvalue()


def test_a_line_is_json() -> None:
    line = json.loads(logged("json", request_id="r1", status=200))
    assert line["event"] == "it.happened"
    assert (line["request_id"], line["status"], line["level"], line["logger"]) == ("r1", 200, "info", "orgstead.test")
    assert line["time"].endswith("Z")


def test_without_a_terminal_auto_is_json() -> None:
    assert json.loads(logged("auto"))["event"] == "it.happened"


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("name", ["a\r\n2026-01-01 [info] forged", "a\u2028b\x85c", "\x1b[2J\x1b[H", "a\x00b"])
def test_no_value_begins_a_line_or_moves_the_cursor(format: str, name: str) -> None:
    text = logged(format, name=name)
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize(
    "event",
    [
        {"password": CANARY},
        {"old_passwd": CANARY},
        {"refresh_token": CANARY},
        {"Authorization": CANARY},
        {"set-cookie": CANARY},
        {"secret_key": CANARY},
        {"body": {"owner": {"password": CANARY}}},
        {"headers": [f"authorization: Bearer {CANARY}"]},
        {"said": f"got bearer {CANARY}"},
        {"said": f"token eyJ{CANARY}.eyJ{CANARY}.{CANARY} refused"},
        {"url": f"scheme://user:{CANARY}@host/db"},
    ],
)
def test_a_secret_is_hidden(format: str, event: dict[str, Any]) -> None:
    assert CANARY not in logged(format, **event)


@pytest.mark.parametrize("format", ["json", "text"])
def test_other_values_are_kept(format: str) -> None:
    text = logged(format, organization="org_1", sizes=[1, 2], at="https://host/path")
    assert "org_1" in text
    assert "https://host/path" in text


def test_loggers_of_others_take_the_same_way() -> None:
    stream = io.StringIO()
    logs.configure(format="json", stream=stream)
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.NOTSET)  # a server that ran in this process before has silenced it
    logger.warning("at %s", "port 1", extra={"token": CANARY, "color_message": "no"})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("at port 1", "uvicorn.error", "warning")
    assert line["token"] == logs.REDACTED
    assert "color_message" not in line


def test_an_exception_is_one_json_line_and_hides_what_it_says() -> None:
    stream = io.StringIO()
    logs.configure(format="json", stream=stream)
    try:
        raise ValueError(f"Bearer {CANARY}")
    except ValueError:
        structlog.get_logger("orgstead.test").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exception"]
    assert CANARY not in line


def test_the_level_is_kept_to_and_the_last_configuration_holds() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(format="json", level="debug", stream=first)
    logs.configure(format="json", level="warning", stream=second)
    structlog.get_logger("orgstead.test").info("quiet")
    structlog.get_logger("orgstead.test").warning("loud")
    assert first.getvalue() == ""
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["loud"]
