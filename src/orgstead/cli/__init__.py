"""The command line: translates arguments, calls use cases, prints their results. One module per group of commands."""
