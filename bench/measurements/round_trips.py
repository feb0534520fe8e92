"""How often a request makes the database server work: counted by the driver's command monitoring, not timed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
from pymongo import monitoring

from bench.options import Options
from bench.places import fresh, settings_in
from bench.results import Result, Target
from orgstead.api import application
from orgstead.app import App

_OWN = frozenset({"hello", "ping", "endSessions", "killCursors"})
"""Commands of the driver itself."""

PASSWORD = "correct horse battery staple"


class _Counting(monitoring.CommandListener):
    """Counts the commands that were sent."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _OWN:
            self.sent[event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Counted when it was sent."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Counted when it was sent."""


_counting = _Counting()


_REQUESTS: tuple[tuple[str, str, str, Any, float], ...] = (
    ("an authenticated read", "GET", "/v1/organizations/{id}", None, 1),
    ("changing an organization's metadata", "PATCH", "/v1/organizations/{id}", {"metadata": {"a": 1}}, 8),
    ("renaming a pooled organization", "POST", "/v1/organizations/{id}/rename", {"name": "Acme Labs"}, 16),
    ("creating a pooled organization", "POST", "/v1/organizations", {"name": "Another"}, 22),
    ("creating a dedicated organization", "POST", "/v1/organizations", {"name": "Big", "plan": "enterprise"}, 27),
    ("logging in", "POST", "/v1/auth/login", {"email": "ada@example.com", "password": PASSWORD}, 10),
)
"""What is counted, its request, and how many commands it may take at most: the access check, the verbs of its units of
work, their commits."""


def run(options: Options) -> list[Result]:
    """Commands of one authenticated read, of changes of an organization, of a log-in and of creations."""
    if _counting not in monitoring._LISTENERS.command_listeners:
        monitoring.register(_counting)
    return asyncio.run(_counted(options))


async def _counted(options: Options) -> list[Result]:
    app = await App.open(settings_in(fresh(options, "round-trips")))
    try:
        await app.storage.migrate()
        transport = httpx2.ASGITransport(app=application.build(app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                Result(f"commands of {what}", sum(sent.values()), "", Target(most), dict(sent))
                for what, sent, most in await _requests(client)
            ]
    finally:
        await app.close()


async def _requests(client: httpx2.AsyncClient) -> list[tuple[str, Counter[str], float]]:
    body = {"name": "Acme", "owner": {"email": "ada@example.com", "password": PASSWORD}}
    org_id = (await _sent(client, "POST", "/v1/organizations", body))["id"]
    granted = await _sent(client, "POST", "/v1/auth/login", _REQUESTS[-1][3])
    client.headers["Authorization"] = f"Bearer {granted['access_token']}"
    found = []
    for what, method, path, body, most in _REQUESTS:
        _counting.sent.clear()
        await _sent(client, method, path.format(id=org_id), body)
        found.append((what, Counter(_counting.sent), most))
    return found


async def _sent(client: httpx2.AsyncClient, method: str, path: str, body: Any) -> Any:
    answer = await client.request(method, path, json=body)
    if not answer.is_success:
        raise RuntimeError(f"{method} {path} was answered with {answer.status_code}.")
    return answer.json()
