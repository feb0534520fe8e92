"""What the command line of schemathesis loads beside ``schemathesis.toml``."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core import NOT_SET

from orgstead.api.limits import WITHOUT_BODY


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Send no body with a method that has none: it is refused (400) before the method is (405), and tried elsewhere."""
    if case.method in WITHOUT_BODY:
        case.body = NOT_SET
        case.media_type = None
        case.headers.pop("Content-Type", None)
