"""``serve --workers`` on embedded databases, one for each process, to test the processes without a database server.

``python served.py FOLDER MANNER WORKERS`` is the command. It has its processes run the same file with the numbers of
their descriptors behind it, which is the product's own program over a database in FOLDER. MANNER is ``well``, or how
each process misbehaves: ``fails`` at its start with an error, ``dies`` there without a word, ``hangs`` on each request.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

from orgstead import logs
from orgstead.api import application, server
from orgstead.api.limits import Receive, Scope, Send
from orgstead.api.server import Bound
from orgstead.app import App
from orgstead.cli import process, processes, service
from orgstead.cli.errors import exit_code, report
from orgstead.errors import OrgsteadError, StorageError
from orgstead.settings import Settings


def command(folder: str, manner: str, workers: str) -> int:
    """What ``serve`` does once it has its settings."""
    http = {"port": 0, "workers": int(workers), "shutdown_seconds": 300, "deadline_seconds": 300}
    settings = Settings.model_validate({"data_folder": folder, "http": http, "management": {"port": 0}})
    program = (sys.executable, __file__, folder, manner)
    logs.configure()

    def ready(bound: Bound) -> None:
        service.log.info("service.started", public=bound.public, management=bound.management)

    try:
        server.run(processes.run(settings, ready, with_worker=True, color=False, program=program))
    except OrgsteadError as error:
        report(error)
        return exit_code(error)
    service.log.info("service.stopped")
    return 0


def serving(folder: str, manner: str, *descriptors: str) -> int:
    """One process."""
    if manner == "dies":
        return 3

    @asynccontextmanager
    async def prepared(settings: Settings, *, processes: int = 1) -> AsyncIterator[App]:
        if manner == "fails":
            raise StorageError("The database is not there.", next="start it")
        own = Path(folder) / f"{os.getpid()}.db"
        app = await App.open(settings.model_copy(update={"database_url": f"sqlite:///{own}"}), processes=processes)
        try:
            await app.storage.migrate()
            await app.check()
            yield app
        finally:
            await app.close()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        service.log.info("request.hangs")
        await asyncio.Event().wait()

    if manner == "hangs":
        mock.patch.object(application, "build", return_value=hang).start()
    service.prepared = prepared
    sys.argv[1:] = descriptors
    return process.main()


if __name__ == "__main__":
    sys.exit((command if len(sys.argv) == 4 else serving)(*sys.argv[1:]))
