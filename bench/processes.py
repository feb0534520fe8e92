"""The processes that are measured, and what the system says about them."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parent.parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


@dataclass(frozen=True, slots=True)
class Server:
    """A server of ``bench.server``: the product at ``port``, the routes of the bench at ``plain_port``."""

    pid: int
    port: int
    plain_port: int

    def cpu_seconds(self) -> float:
        """CPU time that the process and its threads, ended ones too, have used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def environment() -> dict[str, str]:
    """This process's environment without settings of orgstead."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ORGSTEAD_")}


@contextmanager
def spawned(
    arguments: Sequence[str],
    *,
    cores: Sequence[int],
    cwd: Path = ROOT,
    stdout: int = subprocess.DEVNULL,
    variables: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A Python process on ``cores``, with ``variables`` in its environment; ended at the end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**environment(), **(variables or {})},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(process.pid, cores)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def served(folder: Path, *, cores: Sequence[int] = (SERVER_CORE,)) -> Iterator[Server]:
    """A server over the database in ``folder``, ready to answer."""
    with spawned(["-m", "bench.server", str(folder)], cores=cores, stdout=subprocess.PIPE) as process:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"The server did not start; see: python -m bench.server {folder}")
        port, plain_port = map(int, line.split())
        yield Server(process.pid, port, plain_port)


def children_cpu_seconds() -> float:
    """CPU time of all processes that were started here and have ended: what a busy machine does not lengthen."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def resident_mb(pid: int) -> float:
    """Memory of the process in megabytes."""
    return _memory_mb(pid, "VmRSS:")


def peak_mb(pid: int) -> float:
    """The most memory that the process has had since its program began, in megabytes; 0 once it has ended."""
    return _memory_mb(pid, "VmHWM:")


def _memory_mb(pid: int, what: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
