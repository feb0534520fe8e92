"""What a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.engines import Engine, MakeDatabase


@dataclass(frozen=True, slots=True)
class Options:
    """``folder`` holds places while they are measured; ``kept`` those that are used again. Both on a real disk:
    in memory a durable write would cost nothing. ``databases`` makes their databases on the ``engine`` that is
    measured. ``seconds`` are of one turn of one case."""

    engine: Engine
    databases: MakeDatabase
    folder: Path
    kept: Path
    data: Path
    rounds: int
    seconds: float
    seed: int
    quick: bool
