"""The ``orgstead`` command."""

from __future__ import annotations

import os
import sys

from orgstead.cli.summary import COMPLETE_VARIABLE, summary


def main() -> int:
    """Run the command line of this process and return its exit code. A reader of its output that goes away is 1."""
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(args: list[str]) -> int:
    """The summary of all commands is printed without loading the machinery: people wait for it most often."""
    if args in ([], ["-h"], ["--help"]) and COMPLETE_VARIABLE not in os.environ:
        sys.stdout.write(summary())
        return 0
    from orgstead.cli.app import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
