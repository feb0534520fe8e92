"""What people wait for before anything has happened, and the memory of a service that nobody asks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from bench.load import ask, request
from bench.options import Options
from bench.processes import SERVER_CORE, environment, free_port, resident_mb, spawned
from bench.results import Result, Target
from bench.rounds import median_seconds

_PATIENCE = 30.0
_SETTLED = 1.0
_STARTS = 5
_HELPS = 10


def run(options: Options) -> list[Result]:
    """``orgstead up`` in an empty folder until its first answer, ``orgstead --help``, and memory after that answer."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = [_start(Path(folder, str(number))) for number in range(_STARTS)]
        helped = median_seconds(lambda: _help(Path(folder)), _HELPS)
    started, memory = (median(values) for values in zip(*found, strict=True))
    return [
        Result("orgstead up in an empty folder, to its first answer", started, "s", Target(1.5, 0.8)),
        Result("orgstead --help", helped, "s", Target(0.25, 0.15)),
        Result("memory of an idle service", memory, "MB", Target(120, 80)),
    ]


def _start(folder: Path) -> tuple[float, float]:
    """Seconds to the first answer, and megabytes a moment later."""
    folder.mkdir()
    port, management = free_port(), free_port()
    flags = ["--port", str(port), "--management-port", str(management)]
    began = perf_counter()
    with spawned(["-m", "orgstead", "up", *flags], cores=[SERVER_CORE], cwd=folder) as process:
        while not _answers(port):
            if process.poll() is not None or perf_counter() - began > _PATIENCE:
                raise RuntimeError("The service did not start.")
            sleep(0.002)
        taken = perf_counter() - began
        sleep(_SETTLED)
        if not (memory := resident_mb(process.pid)):
            raise RuntimeError("The service ended by itself.")
        return taken, memory


def _answers(port: int) -> bool:
    try:
        ask(port, request("GET", "/.well-known/jwks.json"))
    except OSError:
        return False
    return True


def _help(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "orgstead", "--help"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
