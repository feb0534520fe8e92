"""Several processes that serve one port: started, watched, replaced when they end, and stopped together.

The first process binds the port, keeps the management port and the throttles, and serves no requests itself. Each
other opens the database on its own; one of them does the background work too, where that is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess  # nosec B404  # starts our own program
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from orgstead.api import management, server
from orgstead.api.listening import SharedPort, bind
from orgstead.api.metrics import Together, as_plain, of_this_process
from orgstead.api.server import Bound
from orgstead.cli import service
from orgstead.cli.attempts import Places
from orgstead.cli.channel import Channel, Handler, as_error
from orgstead.cli.process import packed
from orgstead.errors import InternalError, OrgsteadError
from orgstead.settings import Settings
from orgstead.throttles import Throttles

PROGRAM = (sys.executable, "-P", "-m", "orgstead.cli.process")
"""-P: the current folder is no place to import from, whatever lies there."""

STEADY_SECONDS = 10.0
"""A process that served for so long was well: it is replaced at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a process that ended soon is replaced; the pause doubles each time."""
CLOSING_SECONDS = 15.0
"""What a process gets beyond ``http.shutdown_seconds`` for its background work; then it is killed."""
ANSWER_SECONDS = management.READY_SECONDS + 1.0


@dataclass
class Serving:
    """One process, from its start to its end."""

    number: int
    process: subprocess.Popen[bytes]
    channel: Channel
    places: Places
    ready: bool = False
    error: OrgsteadError | None = None

    @property
    def name(self) -> str:
        return _name(self.number)


class Crew:
    """The processes. ``count`` of them share the port; the first does the background work if ``with_worker``."""

    def __init__(
        self,
        settings: Settings,
        port: SharedPort,
        count: int,
        *,
        with_worker: bool,
        color: bool,
        program: Sequence[str],
    ) -> None:
        self._program = program
        self._settings = settings
        self._port = port
        self._count = count
        self._with_worker = with_worker
        self._color = color
        self._throttles = Throttles()
        self._metrics = Together()
        self._own = of_this_process()
        self._registry = CollectorRegistry()
        self._registry.register(self._metrics)
        self._members: dict[int, Serving] = {}
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._settled = [asyncio.Event() for _ in range(count)]
        self._first_error: OrgsteadError | None = None
        self._served = False

    async def start(self) -> None:
        """Start them all; return when each serves or has failed once. Raises the first error if none serves."""
        self._keepers = [asyncio.ensure_future(self._keep(number)) for number in range(self._count)]
        await asyncio.wait([asyncio.ensure_future(self._settled[number].wait()) for number in range(self._count)])
        if not self._stopping.is_set() and not self._serving():
            await self.stop()
            raise self._first_error or InternalError(
                "No process came as far as serving; what they wrote above says why.", next="orgstead doctor"
            )

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def request_stop(self) -> None:
        """Let the processes answer what they have begun, and end."""
        self._stopping.set()
        self._port.close()
        self._tell("stop")

    def force_stop(self) -> None:
        """Have the processes cut everything."""
        self._tell("force")

    async def stop(self) -> None:
        """``request_stop``, and wait until they have ended."""
        self.request_stop()
        await self.ended()

    async def ended(self) -> None:
        """Wait until all have ended after they were asked to; those that take too long are killed."""
        await self._stopping.wait()
        patience = self._settings.http.shutdown_seconds + CLOSING_SECONDS
        _, late = await asyncio.wait(self._keepers, timeout=patience)
        for member in self._members.values():
            if late:
                service.log.warning("process.killed", process=member.name, pid=member.process.pid)
                member.process.kill()
        await asyncio.gather(*self._keepers)

    # --- for the management port --------------------------------------------------------------------------------------

    async def check(self) -> str | None:
        """None as soon as one process can serve: the kernel keeps what waits for those that are being replaced."""
        answers = await asyncio.gather(*(self._ask(member, "check") for member in self._serving()))
        return None if None in answers else next(iter(answers), "service.unavailable")

    async def collect(self) -> CollectorRegistry:
        """The figures of all processes; those of one that does not answer are its last known."""
        members = self._serving()
        for member, answer in zip(
            members, await asyncio.gather(*(self._ask(m, "count") for m in members)), strict=True
        ):
            if isinstance(answer, list):
                self._metrics.add(member.name, *answer)
        self._metrics.add("0", [], as_plain(self._own))
        self._metrics.serving = len(members)
        return self._registry

    def _serving(self) -> list[Serving]:
        return [member for member in self._members.values() if member.ready]

    async def _ask(self, member: Serving, what: str) -> Any:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await member.channel.ask(what)
        except (OrgsteadError, TimeoutError):
            return "service.unavailable"

    # --- one after the other ------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Have one process serve, and replace it when it ends, until all are stopping."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                member, code = await self._one(number)
            except OrgsteadError as error:  # the port, which was given back meanwhile, cannot be had again
                ended: dict[str, Any] = {"error": error.detail}
                served = False
            else:
                served = member.ready
                ended = {"pid": member.process.pid, "exit_code": code}
                if member.error:
                    ended["error"] = member.error.detail
            self._settled[number].set()
            if self._stopping.is_set():
                return
            if not served:
                self._port.withdraw(number)
            elif time.monotonic() - began >= STEADY_SECONDS:
                pause = 0.0
            if self._served:  # before that, what is wrong is told once, when all have failed
                service.log.warning("process.ended", process=_name(number), **ended, replaced_in_seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            self._metrics.restarts += 1

    async def _one(self, number: int) -> tuple[Serving, int]:
        """One process from its start to its end, and its exit code."""
        member = await self._begun(number)
        self._members[number] = member
        member.channel.tell(
            "begin",
            settings=packed(self._settings),
            processes=self._count,
            worker=self._with_worker and number == 0,
            color=self._color,
        )
        if self._stopping.is_set():
            member.channel.tell("stop")
        await member.channel.closed.wait()
        code = await asyncio.to_thread(_exit_code, member.process)
        await member.places.release()
        await member.channel.close()
        self._metrics.end(member.name)
        self._first_error = self._first_error or member.error
        del self._members[number]
        return member, code

    async def _begun(self, number: int) -> Serving:
        listener = self._port.take(number)
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = (listener.fileno(), theirs.fileno())
            process = subprocess.Popen(  # noqa: S603, ASYNC220  # nosec B603  # our own, not awaited
                [*self._program, *map(str, inherited)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                process_group=0,  # a Ctrl-C is for us; we tell them
            )
        places = Places(self._throttles)

        async def ready() -> None:
            member.ready = self._served = True
            self._settled[number].set()

        async def failed(**plain: Any) -> None:
            member.error = as_error(plain)

        async def counted(requests: list[Any], own: list[Any]) -> None:
            self._metrics.add(member.name, requests, own)

        told: dict[str, Handler] = {"ready": ready, "failed": failed, "counted": counted, **places.handlers()}
        member = Serving(number, process, await Channel.open(ours, told), places)
        return member

    def _tell(self, what: str) -> None:
        for member in self._members.values():
            member.channel.tell(what)


def _name(number: int) -> str:
    """What logs and metrics call a process; the one that started it is "0"."""
    return str(number + 1)


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """That of a process which has let go of its channel: it is about to end, or does not come to it."""
    try:
        return process.wait(CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


async def run(
    settings: Settings,
    ready: Callable[[Bound], object],
    *,
    with_worker: bool,
    color: bool,
    program: Sequence[str] = PROGRAM,
) -> None:
    """Serve with ``http.workers`` processes until a signal ends it.

    As ``service.run``: SIGTERM and SIGINT let running requests finish, a second SIGINT cuts everything. ``ready`` is
    called once the port is served. ``program`` is what each process runs. Raises what a single process would raise that
    cannot start.
    """
    options = service.server_options(settings)
    with (
        contextlib.closing(SharedPort(options.public, settings.http.workers)) as port,
        bind(options.management) as management_socket,
    ):
        crew = Crew(settings, port, settings.http.workers, with_worker=with_worker, color=color, program=program)
        app = management.answering(settings, crew.check, crew.collect)
        async with server.listening(app, management_socket, options):
            with server.stopped_by_signals(crew.request_stop, crew.force_stop):
                await crew.start()
                if not crew.stopping:
                    ready(Bound(port.port, management_socket.getsockname()[1]))
                await crew.ended()
