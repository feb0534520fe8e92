"""What a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """``folder`` holds databases while they are measured; ``kept`` those that are used again. Both on a real disk:
    in memory a durable write would cost nothing. ``seconds`` are of one turn of one case."""

    folder: Path
    kept: Path
    data: Path
    rounds: int
    seconds: float
    seed: int
    quick: bool
