"""Which addresses a remote may live at. What is written in the file is judged here without looking anything up; whoever
connects asks again with the address that the name resolved to, because a name can mean something else by then.

Metadata services and link-local addresses are never reachable, whatever the configuration says: they hand out the
credentials of the machine. Loopback is, because most remotes live there. Private networks only where the file allows it.

Pure.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

URL_MAX = 2048

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Verdict = Literal["allowed", "forbidden", "private"]

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
    }
)
_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(text)
    # AWS and Google over IPv6, Alibaba, Azure, Oracle; 169.254.0.0/16 is link-local anyway.
    for text in ("fd00:ec2::/32", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
# These carry an IPv4 address in their last 32 bits and lead there; 6to4 and Teredo are unwrapped by the standard library.
_TRANSLATED = tuple(
    # NAT64 (RFC 6052), IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765)
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")
)
# NAT64 of one network's own (RFC 8215): it leads into that network, if not to the address inside.
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
# The lower half of an ISATAP address (RFC 5214), before its IPv4 address; the other form marks a public one.
_ISATAP = (0x00005EFE, 0x02005EFE)
# What IDNA takes for a dot besides the dot itself (RFC 3490, 3.1), as NFKC leaves it.
_IDEOGRAPHIC_DOT = "\u3002"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


@dataclass(frozen=True, slots=True)
class Reach:
    """What `allow_private_networks` says: everything private, or these networks and host names."""

    everything: bool = False
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    hosts: tuple[str, ...] = ()

    def judge(self, host: str, address: Address) -> Verdict:
        """May a connection for `host` go to `address`? "private" is refused too: the file could allow it."""
        kind = classify(address)
        if kind != "private":
            return kind
        plain = _unwrapped(address)
        is_allowed = self.everything or host.lower().rstrip(".") in self.hosts
        return "allowed" if is_allowed or any(plain in network for network in self.networks) else "private"


def classify(address: Address) -> Verdict:
    """ "private" for what is neither public nor loopback nor forbidden in all cases."""
    inner = _tunnelled(address)
    if inner is not None:
        return "forbidden" if classify(inner) == "forbidden" else "private"
    plain = _unwrapped(address)
    if plain.is_link_local or plain.is_multicast or plain.is_unspecified:
        return "forbidden"
    if any(plain in network for network in _METADATA_NETWORKS):
        return "forbidden"
    if plain.is_loopback:
        return "allowed"
    if isinstance(plain, ipaddress.IPv4Address) and plain.is_reserved:
        return "forbidden"
    return "allowed" if plain.is_global else "private"


def reach(entries: list[str]) -> tuple[Reach, list[int]]:
    """The list form of `allow_private_networks`; the indexes of entries that are neither network, address nor host."""
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    hosts: list[str] = []
    wrong: list[int] = []
    for index, entry in enumerate(entries):
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            if _HOST_NAME.fullmatch(entry) and not _is_numeric(entry.rstrip(".")):
                hosts.append(entry.lower().rstrip("."))
            else:
                wrong.append(index)
    return Reach(networks=tuple(networks), hosts=tuple(hosts)), wrong


@dataclass(frozen=True, slots=True)
class UrlFault:
    code: str
    message: str
    hint: str = ""


def url_fault(url: str, allowed: Reach) -> UrlFault | None:
    """The first thing wrong with a remote's URL as written, or None."""
    if len(url) > URL_MAX or re.search(r"[\x00-\x20\x7f\\]", url):
        return UrlFault(
            "bad_url", "it holds spaces, backslashes or control characters, or is longer than 2048 characters"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return UrlFault("bad_url", "host or port cannot be read", "write it as https://host:port/path")
    if parts.scheme not in ("http", "https"):
        # What stands there instead is not repeated: it may come from a variable.
        return UrlFault("bad_url", "the scheme must be http or https", "write https://host/path")
    if not host or port == 0:
        return UrlFault(
            "bad_url", "it names no host" if not host else "port 0 cannot be reached", "write https://host/path"
        )
    if parts.username is not None or parts.password is not None:
        return UrlFault("bad_url", "it holds a user name or password", "use `headers: {Authorization: ${VAR}}`")
    if parts.fragment:
        return UrlFault("bad_url", "what follows `#` is never sent", "remove it")
    return _host_fault(host, allowed)


def _host_fault(host: str, allowed: Reach) -> UrlFault | None:
    """Judged as whoever connects reads it: full-width digits are digits to them, and an ideographic full stop is a dot."""
    plain = unicodedata.normalize("NFKC", host).replace(_IDEOGRAPHIC_DOT, ".").lower()
    if ".." in plain:
        return UrlFault("bad_url", "this is not a host name")
    plain = plain.rstrip(".")
    try:
        plain = plain if plain.isascii() else plain.encode("idna").decode().rstrip(".")
    except UnicodeError:
        return UrlFault("bad_url", "this is not a host name")
    if plain in _METADATA_NAMES:
        return UrlFault("forbidden_address", "this is a metadata service: it is never contacted")
    try:
        address = ipaddress.ip_address(plain.split("%")[0])
    except ValueError:
        address = None
    if address is None:
        return _name_fault(plain)
    match allowed.judge(plain, address):
        case "forbidden":
            hint = "for this machine write 127.0.0.1" if _unwrapped(address).is_unspecified else ""
            return UrlFault(
                "forbidden_address", "metadata, link-local and reserved addresses are never contacted", hint
            )
        case "private":
            hint = f"if it is meant, add `allow_private_networks: [{_unwrapped(address)}]` at the top of the file"
            return UrlFault("private_address", "this is an address in a private network", hint)
        case _:
            return None


def _name_fault(host: str) -> UrlFault | None:
    if _is_numeric(host):
        return UrlFault(
            "forbidden_address", "this is a disguised form of a numeric address", "write it as four decimal numbers"
        )
    return None if _HOST_NAME.fullmatch(host) else UrlFault("bad_url", "this is not a host name")


def _is_numeric(host: str) -> bool:
    """`2852039166`, `0xa9fea9fe`, `0251.254.43518`: what inet_aton reads as an address; no real name ends in a number."""
    return _NUMBER.fullmatch(host.split(".")[-1]) is not None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, for every way to put it there; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if inner is None and int(address) > 0xFFFF and any(address in network for network in _TRANSLATED):
        inner = _last_bits(address)
    return inner or address


def _tunnelled(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside an IPv6 one that a router of some network may lead to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    is_isatap = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    return _last_bits(address) if is_isatap or address in _LOCAL_NAT64 else None


def _last_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
