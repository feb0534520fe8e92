"""What a result was measured on; nothing that tells one machine from another of its kind."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

from orgstead import __version__


def facts() -> dict[str, str]:
    """Name of the fact -> what it is here."""
    return {
        "orgstead": __version__,
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "fastapi": version("fastapi"),
        "uvicorn": version("uvicorn"),
        "load from": "wrk" if shutil.which("wrk") else "the bench's own client",
    }


def load_average() -> float:
    """How many processes wanted to run, over the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
