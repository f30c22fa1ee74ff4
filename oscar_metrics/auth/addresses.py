"""Which address a request came from, told apart from what anybody may write in a header. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

# More proxies than anybody has in a row; what is further left is not looked at.
_HOPS_MOST = 32
# No address is longer with its zone and port; what is read is remembered, and anybody writes it.
_CHARACTERS_MOST = 100
# What one subscriber of IPv6 has to choose addresses from.
_SUBSCRIBER_BITS = 64


class Proxies:
    """The proxies whose word about a caller's address is taken, as addresses and networks."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(network) for network in trusted]

    def address(self, peer: str, forwarded: Sequence[str]) -> Address | None:
        """Where a request came from; None where not even the peer's address is one.

        `forwarded` are the values of X-Forwarded-For in the order of its lines. Each proxy adds
        on the right whom it was asked by, so they are read from there for as long as proxies
        that are trusted wrote them.
        """
        address = _address(peer)
        if not forwarded or not self._trusts(address):
            return address
        for hop in reversed(",".join(forwarded).rsplit(",", _HOPS_MOST)[-_HOPS_MOST:]):
            text = hop.strip()
            before = _address(text) if len(text) <= _CHARACTERS_MOST else None
            if before is None:
                return address
            address = before
            if not self._trusts(address):
                return address
        return address

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


@lru_cache(maxsize=1024)
def counted_as(address: Address | None) -> str:
    """What failed log-ins from an address are counted under: of IPv6, its network of 64 bits."""
    if isinstance(address, IPv6Address):
        return str(ipaddress.ip_network((address, _SUBSCRIBER_BITS), strict=False))
    return "" if address is None else str(address)


@lru_cache(maxsize=1024)  # a connection's many requests come from one
def _address(text: str) -> Address | None:
    """An address as it is written in any of the ways proxies do: with a port, in brackets."""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or not (port == "" or _is_port(port.removeprefix(":"))):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(port):
            return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len("65535")
