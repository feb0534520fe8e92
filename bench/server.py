"""The server that is measured: the product as it ships, and beside it, on a port of their own, the routes to compare.

``python -m bench.server FOLDER`` serves the database in FOLDER and prints the two ports. The second port answers

* ``/bare``: a FastAPI route that returns bytes, the least that any route costs;
* ``/hash``: a route that only hashes a password, with the product's parameters and executor;
* everything else: the product's routes without the layers around them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response

from bench.places import settings_in
from orgstead.api import application, server
from orgstead.api.limits import Application, Receive, Scope, Send
from orgstead.api.listening import Address
from orgstead.app import App

READY = b'{"object":"organization","id":"org_00000000000000000000000000"}'


def plain(app: App) -> Application:
    """What the second port serves."""
    compared = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )

    @compared.get("/bare")
    async def bare() -> Response:
        return Response(READY, media_type="application/json")

    @compared.get("/hash")
    async def hashed() -> Response:
        await app.passwords.hash("a password of the bench")
        return Response(READY, media_type="application/json")

    routes = application.routes_over(app)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["request_id"] = "req_bench"  # the one thing that routes need of the layers
        await (compared if scope["path"] in ("/bare", "/hash") else routes)(scope, receive, send)

    return dispatch


async def main(folder: Path) -> None:
    """Serve until SIGTERM."""
    app = await App.open(settings_in(folder))
    await app.storage.migrate()
    await app.check()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        await server.serve(
            application.serving(app, write=lambda lines: os.write(nowhere, lines)).public,
            plain(app),
            server.ServerOptions(public=Address("127.0.0.1", 0), management=Address("127.0.0.1", 0)),
            ready=lambda bound: print(bound.public, bound.management, flush=True),
        )
    finally:
        await app.close()


if __name__ == "__main__":
    server.run(main(Path(sys.argv[1])))
