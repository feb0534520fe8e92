"""Sockets to listen on, and a useful answer when a port is taken."""

from __future__ import annotations

import errno
import os
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from orgstead.errors import ConfigurationError

_LISTENING = "0A"
"""``TCP_LISTEN`` as /proc/net/tcp writes it (proc(5))."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one. ``flag`` is what a person changes when the port is taken."""

    host: str
    port: int
    flag: str = "--port"


def bind(address: Address, *, shared: bool = False) -> socket.socket:
    """A bound socket that listens already: connections wait until somebody accepts them.

    ``shared`` lets other sockets of this user be bound to the same port, if they are shared too.

    Raises ConfigurationError with the next step: port taken (with the process that has it, where that can be found
    out), port below 1024 without the right to it, no such address on this machine.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigurationError(
            "The address to listen on cannot be resolved.", next="Set the host to an address of this machine."
        ) from None
    family, kind, protocol, _, target = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # A port that only waits for old connections to time out is free.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(target)
        # Without this the port would be ours, and taken from us by whoever listens first.
        bound.listen(1024)
    except OSError as error:
        bound.close()
        raise _explained(error, address) from None
    bound.setblocking(False)
    return bound


class SharedPort:
    """One port that several processes accept connections on, each from a socket of its own.

    The kernel spreads connections over the sockets (SO_REUSEPORT, socket(7)). A single socket that all of them listen
    on lets whoever wakes first take most connections: with 8 or 32 kept open, one of two processes had all of them.
    Other systems than Linux do not spread, so there the one socket is shared.
    """

    def __init__(self, address: Address, count: int) -> None:
        """Take the port. Raises as ``bind``, also where a port shared by somebody else would let us in."""
        self._spread = sys.platform == "linux"
        with bind(address) as probe:
            self.port: int = probe.getsockname()[1]
            first = None if self._spread else probe.dup()
        self._address = replace(address, port=self.port)
        self._sockets: list[socket.socket | None] = [first] * count
        try:
            for number in range(count):
                self.take(number)
        except BaseException:
            self.close()
            raise

    def take(self, number: int) -> socket.socket:
        """The socket of one of the processes, bound anew if it was withdrawn. Raises as ``bind``."""
        found = self._sockets[number]
        if found is None:
            found = self._sockets[number] = bind(self._address, shared=True)
        return found

    def withdraw(self, number: int) -> None:
        """Have the kernel give this process's share of new connections to the others, because it does not come up."""
        if self._spread:
            self._close(number)

    def close(self) -> None:
        """Let go of the port; processes that have a socket of it keep theirs. May be repeated."""
        for number in range(len(self._sockets)):
            self._close(number)

    def _close(self, number: int) -> None:
        found, self._sockets[number] = self._sockets[number], None
        if found is not None:
            found.close()


def _explained(error: OSError, address: Address) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address.port)
        by = f"process {holder[0]} ({holder[1]})" if holder else "another process"
        return ConfigurationError(
            f"Port {address.port} is taken by {by}.",
            next=f"Stop it, or choose another port with {address.flag}, for example {address.flag} {address.port + 10}",
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(
            f"Port {address.port} is below 1024, where this user may not listen.",
            next=f"Choose a higher port with {address.flag}",
        )
    return ConfigurationError(
        f"It is not possible to listen on port {address.port} there: {os.strerror(error.errno or 0)}.",
        next="Set the host to an address of this machine.",
    )


def holder_of(port: int, proc: Path = Path("/proc")) -> tuple[int, str] | None:
    """Id and name of the process that listens on a TCP port; None where the system does not say, or not to us."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(proc / "net" / table, port)}
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for descriptors in proc.glob("[0-9]*/fd"):
        try:
            if any(os.readlink(descriptor) in wanted for descriptor in descriptors.iterdir()):
                return int(descriptors.parent.name), (descriptors.parent / "comm").read_text().strip()
        except OSError:
            continue  # a process of somebody else, or one that has just ended
    return None


def _listening_inodes(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]
