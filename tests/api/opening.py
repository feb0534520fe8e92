"""An App on a new database of any engine, with cheap password hashes and a clock that the test sets."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from orgstead.app import App
from orgstead.settings import DEFAULT_PLANS, Settings
from tests.engines import Database, empty_database
from tests.watch import Watch

CHEAP = {"memory_kib": 8192, "iterations": 1}
UNHURRIED = {plan: {"requests_per_second": None} for plan in DEFAULT_PLANS}
"""The plans without their request rates: tests ask as fast as they can."""

SIGNUP_TOKEN = "sign-up-token-of-the-tests"


def settings_for(database: Database, folder: Path, **changes: Any) -> Settings:
    """Settings of a service on ``database``, with ``changes`` by name."""
    values: dict[str, Any] = {
        **database.settings,
        "data_folder": folder,
        "secret_key": secrets.token_urlsafe(48),
        "passwords": CHEAP,
        "http": {"allowed_hosts": ["test"]},
        "plans": UNHURRIED,
    }
    return Settings.model_validate({**values, **changes})


@asynccontextmanager
async def new_app(engine: str, watch: Watch, **changes: Any) -> AsyncIterator[App]:
    """An App that is ready to serve a new, empty database of the engine; no background loops run."""
    async with empty_database(engine) as database:
        with tempfile.TemporaryDirectory(prefix="orgstead-") as folder:
            app = await App.open(settings_for(database, Path(folder), **changes), clock=watch)
            try:
                await app.storage.migrate()
                await app.check()
                yield app
            finally:
                await app.close()
