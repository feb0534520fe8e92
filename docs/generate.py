"""Writes the reference pages from the tables in the code (``make docs``). A test holds them current."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from orgstead.api.errors import STATUS
from orgstead.cli.config import reference
from orgstead.errors import catalogue
from orgstead.lifecycle import FOLLOWS
from orgstead.model import Role
from orgstead.policy import FOR_PEOPLE, RANK, Permission, allowed

FOLDER = Path(__file__).parent


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def errors() -> str:
    """Every code, its status and what it means."""
    rows = sorted((f"`{error.code}`", str(STATUS[error]), error.title) for error in catalogue())
    return (
        "# Errors\n\n"
        "Every refusal over HTTP is a problem document (RFC 9457, `application/problem+json`) with the members\n"
        "`type`, `title`, `status`, `detail`, `code`, `request_id` and `errors`. `code` is stable and made for\n"
        "programs; `detail` is for people and may change. The command line prints the same codes, as\n"
        "`error CODE: message`.\n\n" + table(("code", "status", "meaning"), rows)
    )


def rules() -> str:
    """Who may do what, and which status may follow which."""
    roles = sorted(Role, key=RANK.__getitem__)
    may = (
        (f"`{permission}`", *("yes" if allowed(role, permission) else "" for role in roles))
        for permission in Permission
    )
    never = ", ".join(f"`{permission}`" for permission in sorted(FOR_PEOPLE))
    steps = (
        (f"`{status}`", ", ".join(f"`{then}`" for then in sorted(then)) or "nothing")
        for status, then in FOLLOWS.items()
    )
    return (
        "# Roles and statuses\n\n"
        "## Who may do what\n\n"
        + table(("permission", *roles), may)
        + f"\nAn API key acts in a role of its own, and whatever it is has none of {never}.\n"
        + "\n## Which status may follow which\n\n"
        + table(("status", "may become"), steps)
    )


PAGES = {"errors.md": errors, "rules.md": rules, "configuration.md": reference}
"""File name -> what writes its text."""


def main() -> None:
    """Write every page."""
    for name, text in PAGES.items():
        (FOLDER / name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
