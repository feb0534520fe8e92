"""The ``orgstead`` command."""

from __future__ import annotations

import os
import sys

from orgstead.cli.summary import COMPLETE_VARIABLE, summary


def main() -> int:
    """Run the command line and return its exit code.

    The summary of all commands is printed without loading the machinery: people wait for it most often.
    """
    if sys.argv[1:] in ([], ["-h"], ["--help"]) and COMPLETE_VARIABLE not in os.environ:
        sys.stdout.write(summary())
        return 0
    from orgstead.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
