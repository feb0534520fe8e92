"""Named places in production code where a test can kill, fail or pause the process. Inert unless set.

``ORGSTEAD_FAILPOINTS="rename.after_close=kill,create.after_claim=raise@2"`` acts when the named point is reached (for
the n-th time with ``@n``): ``kill`` sends SIGKILL to this process, ``raise`` raises ``FailpointReached``, ``pause``
stops this process, all of it, until it is sent SIGCONT; its parent hears of the stop from ``waitpid`` with
``WUNTRACED``. Inside one process a test can ``arm`` a point with a coroutine function of its own, to hold up just that
one task, or to count.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from orgstead.errors import ConfigurationError, FailpointReached

Action = Callable[[], Awaitable[None]]

NAMES: frozenset[str] = frozenset(
    {
        "create.before_intent",
        "create.after_claim",
        "create.after_space",
        "create.after_activate",
        "rename.after_claim",
        "rename.after_close",
        "rename.after_rename",
        "rename.after_flip",
        "rename.before_open",
        "delete.after_close",
        "delete.mid_purge",
        "delete.after_drop",
        "define.after_announce",
        "define.mid_build",
        "define.after_build",
        "define.after_settle",
        "define.mid_sweep",
        "import.after_intent",
        "import.after_space",
        "import.mid_load",
        "import.after_load",
        "import.after_activate",
        "idempotency.after_effect",
    }
)

_armed: dict[str, Action] = {}


async def failpoint(name: str) -> None:
    """Do what was armed at this point; nothing, and almost for free, in production."""
    if _armed and (action := _armed.get(name)):
        await action()


@contextmanager
def arm(name: str, action: Action) -> Iterator[None]:
    """Run ``action`` whenever ``name`` is reached, until the context ends."""
    if name not in NAMES:
        raise ConfigurationError(f"There is no failpoint {name!r}.")
    _armed[name] = action
    try:
        yield
    finally:
        _armed.pop(name, None)


def _action(name: str, text: str) -> Action:
    verb, numbered, count = text.partition("@")
    if verb not in ("kill", "raise", "pause") or (numbered and not count.isdecimal()):
        raise ConfigurationError(f"ORGSTEAD_FAILPOINTS: {name} must be kill, raise or pause, or one of them with @N.")
    left = int(count or 1)

    async def act() -> None:
        nonlocal left
        left -= 1
        if left != 0:
            return
        if verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "pause":
            signal.raise_signal(signal.SIGSTOP)  # to this thread, so that nothing more is done before the stop
            return
        raise FailpointReached(f"Failpoint {name} was reached.")

    return act


def load(text: str) -> None:
    """Arm what ``ORGSTEAD_FAILPOINTS`` says. Raises ``ConfigurationError`` for a name or action that does not exist."""
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, verb = part.partition("=")
        if name not in NAMES:
            raise ConfigurationError(f"ORGSTEAD_FAILPOINTS: there is no failpoint {name!r}.")
        _armed[name] = _action(name, verb)


load(os.environ.get("ORGSTEAD_FAILPOINTS", ""))
