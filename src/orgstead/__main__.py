"""The ``orgstead`` command."""

from __future__ import annotations

import errno
import os
import sys

from orgstead import __version__
from orgstead.cli.summary import COMPLETE_VARIABLE, PROGRAM, summary


def main() -> int:
    """Run the command line of this process and return its exit code.

    It is 1 when the reader of its output goes away, which is quiet, or the output's disk is full or the output closed,
    which is not.
    """
    _fill_standard_streams()
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EBADF):
            raise
        if error.errno != errno.EPIPE:
            print(f"error output.failed: The output cannot be written: {error.strerror}.", file=sys.stderr)
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _fill_standard_streams() -> None:
    """Where a standard stream was closed, none of our files may get its number, and results are not lost in silence."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")  # whoever writes there hears of it
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _run(args: list[str]) -> int:
    """The summary and the version are printed without loading the machinery: people wait for them most often."""
    if args in ([], ["-h"], ["--help"]) and COMPLETE_VARIABLE not in os.environ:
        sys.stdout.write(summary())
        return 0
    if args == ["--version"]:
        sys.stdout.write(f"{PROGRAM}  {__version__}\n")
        return 0
    from orgstead.cli.app import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
