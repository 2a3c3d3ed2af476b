"""Whose address a request really comes from, where proxies stand in front: X-Forwarded-For, believed from them alone.

A client can write into that header whatever it likes; each proxy appends whom it was asked by. So the list is read from its end,
as far as it was written by proxies that the operator named: the first address that is none of them is the client. Pure.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

HEADER = b"x-forwarded-for"
# More proxies in a row than anybody has; what lies before is not looked at.
_HOPS_MAX = 16

Address = IPv4Address | IPv6Address


class Proxies:
    """The addresses and networks of MCP_TRUSTED_PROXIES; ValueError names one that is neither."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._networks: Sequence[IPv4Network | IPv6Network] = tuple(map(_network, named))

    def __bool__(self) -> bool:
        return bool(self._networks)

    def source(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client's address: `peer`, or whom the proxies say that they were asked by."""
        if not self._networks or not self._is_one(peer):
            return peer
        lines = [value.decode("latin-1") for name, value in headers if name == HEADER]
        source = peer
        for written in reversed(",".join(lines).split(",")[-_HOPS_MAX:]):
            address = _address(written)
            if address is None:  # The proxy before this one says nothing that can be believed.
                return source
            source = str(address)
            if not self._trusts(address):
                return source
        return source

    def _is_one(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and self._trusts(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"MCP_TRUSTED_PROXIES: {text.strip()!r} is not an address or a network") from None


def _address(text: str) -> Address | None:
    """An address as proxies write it: with a port behind it, in brackets, or IPv4 in IPv6's clothes."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
