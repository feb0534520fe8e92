"""What went wrong, for people at a terminal and for the scripts they write: one form of message, one table of codes."""

from __future__ import annotations

import sys

from orgstead import errors
from orgstead.errors import OrgsteadError

OK = 0
FAILURE = 1
USAGE = 2
DIFFERENCES = 3
SIGN_IN = 4
NOT_FOUND = 5
CHECK_FAILED = 6
CONFLICT = 7
UNAVAILABLE = 8
INTERRUPTED = 130

EXIT_CODES: dict[type[OrgsteadError], int] = {
    OrgsteadError: FAILURE,
    errors.InvalidInput: USAGE,
    errors.MalformedRequest: USAGE,
    errors.Unauthenticated: SIGN_IN,
    errors.NotFound: NOT_FOUND,
    errors.SpaceMismatch: CHECK_FAILED,
    errors.Conflict: CONFLICT,
    errors.PreconditionFailed: CONFLICT,
    errors.RateLimited: UNAVAILABLE,
    errors.Unavailable: UNAVAILABLE,
    errors.DatabaseInUse: UNAVAILABLE,
}
"""error class -> exit code; a class that is not listed has the code of its nearest ancestor."""


class UsageError(OrgsteadError):
    """The command was not used as it is meant to be."""

    title = "The command cannot be used like this."


EXIT_CODES[UsageError] = USAGE


NEXT: dict[type[OrgsteadError], str] = {
    errors.StorageError: "orgstead doctor",
    errors.StorageFull: "make room on the disk, then run the same command again",
}
"""error class -> what to do at a terminal about an error of just this class, where it does not say so itself."""


def exit_code(error: OrgsteadError) -> int:
    return next(EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES)


def report(error: OrgsteadError) -> None:
    """Print an error to standard error: ``error CODE: message``, its places in the input, and ``next: …``."""
    print(f"error {error.code or 'usage'}: {error.detail}", file=sys.stderr)
    for problem in error.problems:
        if problem.detail != error.detail:
            print(f"  {problem.pointer}: {problem.detail}", file=sys.stderr)
    if step := error.next or NEXT.get(type(error)):
        print(f"next: {step}", file=sys.stderr)
