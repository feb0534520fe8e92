"""What ``ORGSTEAD_FAILPOINTS`` may say. What it does is tried by ``tests/crash/``, in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from orgstead import failpoints
from orgstead.errors import ConfigurationError, FailpointReached
from orgstead.failpoints import failpoint

POINT = "create.after_claim"


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test arms is gone after it."""
    monkeypatch.setattr(failpoints, "_armed", {})


@pytest.mark.parametrize("text", ["nowhere=kill", POINT, f"{POINT}=stop", f"{POINT}=kill@", f"{POINT}=pause@x"])
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ORGSTEAD_FAILPOINTS: "):
        failpoints.load(text)


def test_it_acts_once_at_the_time_that_was_said() -> None:
    failpoints.load(f"{POINT}=raise@2")
    asyncio.run(failpoint("create.before_intent"))
    asyncio.run(failpoint(POINT))
    with pytest.raises(FailpointReached):
        asyncio.run(failpoint(POINT))
    asyncio.run(failpoint(POINT))


def test_a_paused_process_does_nothing_more_until_it_is_told_to_go_on() -> None:
    code = (
        "import asyncio, os; from orgstead.failpoints import failpoint;"
        f"asyncio.run(failpoint({POINT!r})); os.write(1, b'on '); asyncio.run(failpoint({POINT!r}))"
    )
    environ = {**os.environ, "ORGSTEAD_FAILPOINTS": f"{POINT}=pause"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        with pytest.raises(BlockingIOError):
            os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0
        assert process.stdout.read() == b"on "
