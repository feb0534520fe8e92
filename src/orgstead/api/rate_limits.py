"""Refusing what is beyond an organization's rate before anything else is done for it.

The guard of a route counts the request and has the last word (``caller.authenticated``). Here only those are refused
whose refusal is certain, before their body is read and their route is looked for: whoever sends ten times what is
allowed takes a tenth of the time from the others that answering would take.
"""

from __future__ import annotations

from collections.abc import Mapping

from orgstead.api.caller import token_in
from orgstead.app import App

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
        claims = self._app.tokens.known(token)
        org_id = claims.org_id if claims else self._app.key_uses.organization_of(token)
        if org_id is not None:
            self._app.rates.check(org_id)
