"""Who is at the other end: the peer of the connection, or whom a trusted proxy says it speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_LONGEST_CHAIN = 32


class Proxies:
    """The proxies whose ``X-Forwarded-For`` is believed. None are unless configured."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def client(self, peer: str, forwarded_for: bytes | None) -> str:
        """The address of the client: the right-most one that is not a trusted proxy.

        Every proxy appends whom it saw, so the list can only be believed from the right and only as far as the
        proxies are ours. Where it is missing, broken or too long there, the last proxy known is the client.
        """
        if forwarded_for is None or not self._trusted or not self._trusts(_address(peer)):
            return peer
        client = peer
        for hop in reversed(forwarded_for.decode("latin-1").rsplit(",", _LONGEST_CHAIN)[-_LONGEST_CHAIN:]):
            address = _address(hop.strip())
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _address(text: str) -> Address | None:
    """An address with or without port and brackets; one of IPv4 mapped into IPv6 as what it is."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
