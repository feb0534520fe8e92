"""What a measurement finds, and what it is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """``limit`` must be kept, ``goal``, if any, is hoped for; lower bounds with ``at_least``, else upper ones."""

    limit: float
    goal: float | None = None
    at_least: bool = False

    def verdict(self, value: float) -> str:
        """``goal``, ``met`` or ``missed``."""
        for bound, word in ((self.goal, "goal"), (self.limit, "met")):
            if bound is not None and ((value >= bound) if self.at_least else (value <= bound)):
                return word
        return "missed"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g}"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure, and its target if it has one. ``figures`` are the medians that it was made of, by what they are."""

    what: str
    value: float
    unit: str
    target: Target | None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return self.target.verdict(self.value) if self.target else ""

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return {**asdict(self), "verdict": self.verdict}
