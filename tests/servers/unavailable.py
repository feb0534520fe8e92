"""Why an engine is not tested."""

from __future__ import annotations


class EngineUnavailable(Exception):
    """The engine's server cannot be started here; the text says why."""
