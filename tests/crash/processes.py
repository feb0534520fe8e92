"""Running the program and killing it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.crash.history import History
from tests.engines import Database
from tests.support import PROJECT

PIPE = 65536

SILENCE_SECONDS = 60
"""A program that tells nothing for so long hangs: on a server it waits for locks no longer than 10."""


class Program:
    """The running program; what it tells is added to ``history``."""

    def __init__(self, process: subprocess.Popen[bytes], history: History) -> None:
        self._process = process
        self._history = history
        self._rest = b""
        assert process.stdout is not None
        self._pipe = process.stdout.fileno()

    def follow(self, lines: int) -> None:
        """Wait until so many lines of the history have been told."""
        assert self.goes_on(lines), "the program ended by itself"

    def goes_on(self, lines: int) -> bool:
        """Wait until so many lines of the history have been told; False where the program ends before."""
        while self._history.lines < lines:
            if not self._read():
                return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> int:
        """Follow the program to its end; returns its exit status."""
        while self._read():
            pass
        return self._process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold the program at the instant where it is; everything that it told until then is in the history."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        while select.select([self._pipe], [], [], 0)[0] and self._read():
            pass
        yield
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wait until the program pauses at its failpoint, and let it go on at the end of the block."""
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "the program ended before it reached its failpoint"
        yield
        self._process.send_signal(signal.SIGCONT)

    def _read(self) -> bool:
        assert select.select([self._pipe], [], [], SILENCE_SECONDS)[0], "the program hangs"
        told = os.read(self._pipe, PIPE)
        *lines, self._rest = (self._rest + told).split(b"\n")
        self._history.read(lines)
        return bool(told)


@contextmanager
def program(
    history: History, database: Database, *task: str, failpoint: str | None = None, action: str = "kill"
) -> Iterator[Program]:
    """The program at work on the database, killed at the end of the block at the latest. ``action`` is what it does to
    itself at the failpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.program", *task],
        stdout=subprocess.PIPE,
        env={**os.environ, **database.variables, "ORGSTEAD_FAILPOINTS": f"{failpoint}={action}" if failpoint else ""},
        cwd=PROJECT,
    )
    with process:
        try:
            yield Program(process, history)
        finally:
            process.kill()
