"""Which callers a commit may have changed, so that what the hot read found can be kept until then.

One process writes (``lock``), in one thread (``writer``), so every change of a row that ``access`` reads is seen here.
New rows change nothing that was found: only what was found whole is kept.
"""

from __future__ import annotations

_MOST_REMEMBERED = 4096
"""Organizations whose last change is known one by one."""


class Changes:
    """The number of the last commit that may have changed the rows about an organization's callers.

    Commits are numbered from one. ``latest`` may be asked in any thread, all else is the writer's.
    """

    def __init__(self) -> None:
        self.begun = 0
        """The number of the commit that was begun last: readers may see it before anybody was told."""
        self._noted: set[str | None] = set()
        self._latest: dict[str, int] = {}
        self._everybody = 0

    def note(self, org_id: str | None) -> None:
        """The unit that runs changes such rows of this organization, or of any (None). It need not be committed."""
        self._noted.add(org_id)

    def commit(self, number: int) -> None:
        """What was noted is about to be committed, as commit ``number``. Called before anybody can see it."""
        self.begun = number
        if not self._noted:
            return
        noted, self._noted = self._noted, set()
        if None in noted or len(self._latest) + len(noted) > _MOST_REMEMBERED:
            self._everybody = number  # first: in between, too, nobody may find less than there was
            self._latest.clear()
        else:
            for org_id in noted:
                self._latest[str(org_id)] = number

    def latest(self, org_id: str) -> int:
        """Whoever has seen this commit has seen every change."""
        of_it = self._latest.get(org_id, 0)  # first: what is cleared afterwards is in the other
        return max(of_it, self._everybody)
