"""What a measurement finds, and what it is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """``limit`` must be kept, ``goal`` is hoped for; both are lower bounds with ``at_least``, else upper ones."""

    limit: float
    goal: float
    at_least: bool = False

    def verdict(self, value: float) -> str:
        """``goal``, ``met`` or ``missed``."""
        for bound, word in ((self.goal, "goal"), (self.limit, "met")):
            if (value >= bound) if self.at_least else (value <= bound):
                return word
        return "missed"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g}"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure that has a target. ``figures`` are the medians that it was made of, by what they are."""

    what: str
    value: float
    unit: str
    target: Target
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return self.target.verdict(self.value)

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return {**asdict(self), "verdict": self.verdict}
