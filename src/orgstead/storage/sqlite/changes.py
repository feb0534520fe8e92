"""Which callers a commit may have changed, so that what the hot read found can be kept until then.

One process writes (``lock``), in one thread (``writer``), so every change of a row that ``access`` reads is seen here.
New rows change nothing that was found: only what was found whole is kept.
"""

from __future__ import annotations

_MOST_REMEMBERED = 4096
"""Names whose last change is known one by one."""


class Changes:
    """The number of the last commit that may have changed the rows about a caller.

    Rows go by the name that ``access`` finds them under: those of an organization by its id, a user and a session by
    their own. Commits are numbered from one. ``latest`` may be asked in any thread, all else is the writer's.
    """

    def __init__(self) -> None:
        self.begun = 0
        """The number of the commit that was begun last: readers may see it before anybody was told."""
        self._noted: set[str | None] = set()
        self._latest: dict[str, int] = {}
        self._everybody = 0

    def note(self, name: str | None) -> None:
        """The unit that runs changes rows of this name, or of any (None). It need not be committed."""
        self._noted.add(name)

    def commit(self, number: int) -> None:
        """What was noted is about to be committed, as commit ``number``: called before anybody can see it, and true
        whether the commit succeeds or not. ``number`` is that of the last one where there is nothing to see."""
        self.begun = number
        if not self._noted:
            return
        noted, self._noted = self._noted, set()
        if None in noted or len(self._latest) + len(noted) > _MOST_REMEMBERED:
            self._everybody = number  # first: in between, too, nobody may find less than there was
            self._latest.clear()
        else:
            self._latest.update((name, number) for name in noted if name is not None)

    def latest(self, org_id: str, user_id: str, credential_id: str) -> int:
        """Whoever has seen this commit has seen every change of the caller's rows."""
        of = self._latest.get
        named = max(of(org_id, 0), of(user_id, 0), of(credential_id, 0))  # first: what is cleared then is in the other
        return max(named, self._everybody)
