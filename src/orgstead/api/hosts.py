"""Which hosts this service answers for: the Host header (RFC 9110 §7.2) is input like any other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address, ip_address

from orgstead.errors import UnknownHost

_NAME = re.compile(r"([a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?)\.?")
_REMEMBERED = 256


class Hosts:
    """An allow-list of host names. ``*`` is any well-formed host, ``*.example.com`` every sub-domain of example.com.

    Names are compared without port, case and final dot; an IPv6 address is listed without brackets. With ``addresses``
    every IP address is allowed, too: whoever names one has not been led here by a name.
    """

    def __init__(self, allowed: Sequence[str], *, addresses: bool = False) -> None:
        names = [_name(f"[{name}]".encode()) or name.lower().rstrip(".") for name in allowed]
        self._any = "*" in names
        self._addresses = addresses
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._exact = frozenset(names)
        # Clients repeat the same few hosts; the bound keeps those who do not from filling memory.
        self._known: set[bytes] = set()

    def check(self, header: bytes | None) -> None:
        """Raise UnknownHost unless the header is there, well-formed, and names an allowed host."""
        if header in self._known:
            return
        name = _name(header) if header else None
        if name is None or not self._allows(name):
            raise UnknownHost
        if header and len(self._known) < _REMEMBERED:
            self._known.add(header)

    def _allows(self, name: str) -> bool:
        if self._any or name in self._exact or name.endswith(self._suffixes):
            return True
        return self._addresses and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(header: bytes) -> str | None:
    """The host of ``host[:port]`` in lower case, or None if it is not one."""
    text = header.decode("latin-1").lower()
    bracketed = text.startswith("[")
    host, closing, port = text[1:].partition("]") if bracketed else (text, "", "")
    if bracketed:
        if not closing or (port and not port.startswith(":")):
            return None
        port = port[1:]
    else:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        return None
    if bracketed:
        try:
            return str(IPv6Address(host)) if "%" not in host else None
        except AddressValueError:
            return None
    match = _NAME.fullmatch(host)
    return match[1] if match else None
