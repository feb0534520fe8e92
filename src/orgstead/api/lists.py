"""Lists: how a part of one is asked for and answered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orgstead.api.responses import Json
from orgstead.app import App
from orgstead.cursors import Value
from orgstead.errors import InvalidCursor

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
NEWEST_FIRST: Final = "-created_at"

_PLAIN_NUMBER = re.compile("[0-9]{1,9}")


def plain_number(value: Any) -> Any:
    """A number in the one spelling it has: Python's ``int`` would take spaces, signs and underscores too.

    Any other text becomes the empty one, which is no number.
    """
    return "" if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value) else value


class Page(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, BeforeValidator(plain_number)] = Field(
        default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many at most."
    )
    cursor: str | None = Field(default=None, description="`next_cursor` of the part before, with the same `order`.")
    order: Literal["created_at", "-created_at"] = Field(
        default="created_at", description="Oldest first, or newest first with `-created_at`."
    )


def after(app: App, cursor: str | None, binding: Sequence[str]) -> list[Value] | None:
    """The position that the cursor stands for, or None at the beginning. Raises ``InvalidCursor``."""
    if cursor is None:
        return None
    if not cursor:
        raise InvalidCursor
    return app.cursors.decode(cursor, binding)


def shown(app: App, data: Sequence[dict[str, Any]], position: Sequence[Value] | None, binding: Sequence[str]) -> Json:
    """A part of a list; ``position`` is what ``after`` gives of its cursor, None at the end."""
    next_cursor = app.cursors.encode(position, binding) if position else None
    return Json(orjson.dumps({"object": "list", "data": data, "next_cursor": next_cursor}))
