"""What tests of every folder share: the seed, sampling of long suites, and the account of what was not proven."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PROJECT = Path(__file__).parent.parent

SEED = int(os.environ.setdefault("ORGSTEAD_TEST_SEED", str(random.SystemRandom().randrange(2**32))))
"""Where every random choice of the run begins; printed, and repeated with ``ORGSTEAD_TEST_SEED``.

Left in the environment, because the processes of a run that uses several cores must choose the same.
"""

EVERYTHING = os.environ.get("ORGSTEAD_TEST_ALL", "") not in ("", "0")
"""True under ``make test-all``: long suites run whole."""

REQUIRE_ALL = os.environ.get("ORGSTEAD_TEST_REQUIRE", "") == "all"
"""True in continuous integration: a test that would be skipped fails instead."""

HAS_MONGOD = bool(os.environ.get("ORGSTEAD_TEST_MONGODB_URI")) or shutil.which("mongod") is not None
"""True where a real MongoDB can be had, not only the server that stands in for it."""

REQUIRE_MONGOD = os.environ.get("ORGSTEAD_TEST_REAL_MONGODB", "") not in ("", "0")
"""True where a test that only a real MongoDB can pass must not be skipped. ``REQUIRE_ALL`` lets it be."""

DATA = (PROJECT / (os.environ.get("ORGSTEAD_TEST_DATA") or "../shared/data")).resolve()
"""Where the real lists are, relative to the project. They are not part of it."""

sampled: dict[str, tuple[int, int]] = {}
"""suite -> (cases that run, cases there are), for every suite of which only a sample runs."""

HTTP_ON_SERVERS = {"postgres": 120, "mongodb": 45}
"""Cases of ``tests/api`` that run on each engine but the first; a case takes the stand-in for MongoDB three times as
long. What they try is above the port, which the contract suite and the use cases hold every engine to, whole."""


def sample(suite: str, cases: Sequence[T], at_most: int) -> list[T]:
    """``at_most`` of the cases, chosen by the seed and in their own order; all of them under ``make test-all``.

    ``suite`` names them in the account at the end of the run.
    """
    if EVERYTHING or len(cases) <= at_most:
        return list(cases)
    sampled[suite] = (at_most, len(cases))
    chosen = sorted(random.Random(f"{SEED} {suite}").sample(range(len(cases)), at_most))
    return [cases[index] for index in chosen]
