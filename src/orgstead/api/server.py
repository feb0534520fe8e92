"""The server: public and management port in one process and one event loop, stopped gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import uvicorn
import uvloop

from orgstead.api.http_protocol import ConnectionOptions, LimitedProtocol, limited
from orgstead.api.limits import Application
from orgstead.api.listening import Address, bind

T = TypeVar("T")

_DESCRIPTORS_FOR_THE_REST = 128
"""File descriptors that are kept for everything that is not a client: databases, logs, libraries."""


class Bound(NamedTuple):
    """The ports that were taken, as ``ready`` is told them."""

    public: int
    management: int


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Times in seconds. ``sweep_seconds`` is how often late connections are looked for.

    ``upload_seconds`` is how long, of the ``shutdown_seconds``, a stopping server waits for the rest of requests.
    """

    public: Address
    management: Address
    connections: ConnectionOptions = field(default_factory=ConnectionOptions)
    keep_alive_seconds: float = 65.0
    shutdown_seconds: float = 10.0
    upload_seconds: float = 2.0
    sweep_seconds: float = 1.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on uvloop until it ends."""
    return uvloop.run(main)


async def serve(
    public_app: Application,
    management_app: Application,
    options: ServerOptions,
    *,
    ready: Callable[[Bound], object],
) -> None:
    """Serve both applications until SIGTERM, SIGINT or cancellation; return when everything has been answered.

    ``ready`` is called once both ports accept connections. A signal ends accepting; running requests get
    ``shutdown_seconds``, after which they are cancelled, those that have not arrived as a whole ``upload_seconds``. The
    management port stays up meanwhile. A second SIGINT cuts everything at once. Raises ConfigurationError when a port
    cannot be had, before anything has started.
    """
    with contextlib.ExitStack() as sockets:
        public_socket = sockets.enter_context(bind(options.public))
        management_socket = sockets.enter_context(bind(options.management))
        bound = Bound(public_socket.getsockname()[1], management_socket.getsockname()[1])
        async with (
            listening(management_app, management_socket, options) as management,
            listening(public_app, public_socket, options) as public,
        ):

            def force() -> None:
                public.force()
                management.force()

            with stopped_by_signals(public.stop, force), settled():
                ready(bound)
                await public.ended()


@asynccontextmanager
async def listening(app: Application, bound: socket.socket, options: ServerOptions) -> AsyncIterator[Server]:
    """Serve one application on a socket that is bound, within the block; at its end everything is answered.

    The addresses in ``options`` are not looked at.
    """
    server = Server(_configured(app, options, _within_descriptors(options.connections)), options)
    serving = asyncio.ensure_future(server.serve(sockets=[bound]))
    server.finished = serving
    try:
        await server.accepting.wait()
        yield server
    finally:
        server.stop()
        await serving


class Server(uvicorn.Server):
    """uvicorn's server without its own signal handling, with the sweep, and with an event for "accepting"."""

    finished: asyncio.Future[None]

    def __init__(self, config: uvicorn.Config, options: ServerOptions) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()
        self._sweep_seconds = options.sweep_seconds
        self._upload_seconds = options.upload_seconds
        self._swept = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Several servers share the process's signals; whoever runs them handles those for all."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, by uvicorn."""
        now = asyncio.get_running_loop().time()
        if now - self._swept >= self._sweep_seconds:
            self._swept = now
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedProtocol):
                    connection.sweep(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Let what runs finish, but do not give all its time to clients that have stopped sending."""
        cutting = asyncio.ensure_future(self._cut_uploads())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()

    async def _cut_uploads(self) -> None:
        while True:
            await asyncio.sleep(self._upload_seconds)
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedProtocol):
                    connection.cut_upload()

    def stop(self) -> None:
        """End accepting; what runs may finish."""
        self.should_exit = True

    def force(self) -> None:
        """End everything now."""
        self.should_exit = self.force_exit = True

    async def ended(self) -> None:
        """Wait until it was stopped and everything is answered; being cancelled meanwhile does not cancel it."""
        await asyncio.wait([self.finished])


def _configured(app: Application, options: ServerOptions, connections: ConnectionOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=limited(connections),
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        # A line from uvicorn for each broken request would let clients fill the log.
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=options.keep_alive_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=options.shutdown_seconds,  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Spare the garbage collector what was made until now: modules, routes and models, which stay until the end.

    It would look at all of them again and again for the little that requests leave: a tenth of a write's time.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], object], force: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` at SIGTERM and SIGINT, and ``force`` at a SIGINT that comes after either."""
    loop = asyncio.get_running_loop()
    stopping = False

    def stopped(signum: signal.Signals) -> None:
        nonlocal stopping
        if stopping and signum is signal.SIGINT:
            force()
        stopping = True
        stop()

    loop.add_signal_handler(signal.SIGTERM, stopped, signal.SIGTERM)
    loop.add_signal_handler(signal.SIGINT, stopped, signal.SIGINT)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)


def _within_descriptors(options: ConnectionOptions) -> ConnectionOptions:
    """As many connections as asked for, and as many as the process may have open; raises its soft limit if it must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = options.max_connections + _DESCRIPTORS_FOR_THE_REST
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= wanted:
        return options
    return replace(options, max_connections=max(1, soft - _DESCRIPTORS_FOR_THE_REST))
