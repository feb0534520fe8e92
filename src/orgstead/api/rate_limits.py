"""Refusing what is beyond an organization's rate before anything else is done for it.

The guard of a route counts the request and has the last word (``caller.authenticated``). Here only those are refused
whose refusal is certain, before their body is read and their route is looked for: whoever sends ten times what is
allowed takes a tenth of the time from the others that answering would take.
"""

from __future__ import annotations

from collections.abc import Mapping

from orgstead.api.caller import token_in
from orgstead.app import App
from orgstead.errors import RateLimited

GUARDED = "/v1/organizations/"
"""Where every route is guarded, so that none is refused that would not have been counted."""


class RateLimits:
    """Judges requests by their path and their headers (by lower-case name)."""

    def __init__(self, app: App) -> None:
        self._app = app

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise ``RateLimited`` where the token or API key is known and its organization has used up its rate."""
        if self._app.rates.are_quiet() or not path.startswith(GUARDED):
            return
        token = token_in(headers.get(b"authorization", b""))
        if claims := self._app.tokens.known(token):
            self._app.rates.check(claims.org_id)
        elif org_id := self._app.key_uses.organization_of(token):
            try:
                self._app.rates.check(org_id)
            except RateLimited as refusal:
                # The key may be dead by now: whoever has it is not told the plan's rate.
                raise RateLimited(retry_after=refusal.retry_after) from None
