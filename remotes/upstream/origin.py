"""Where a remote lives, and the warm connections to it: its address, its name looked up and judged, TCP, TLS, reuse.

One remote has an origin of its own, so that no connection, credential or cookie of one ever serves another; there are no
cookies, no proxies from the environment and no redirects at all. Deadlines are the caller's (`asyncio.timeout_at`).
"""

import asyncio
import errno
import functools
import ipaddress
import os
import re
import socket
import ssl
from asyncio.staggered import staggered_race
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from remotes.config.addresses import Reach
from remotes.upstream import shortage
from remotes.upstream.deadlines import Deadlines
from remotes.upstream.http1 import Connection, Response, Short, Unreachable
from remotes.upstream.inflating import ACCEPTED

# Idle connections are dropped before the other side does it: Node and uvicorn close theirs after 5 s, and a POST that meets
# a closing socket cannot be repeated safely. Some close earlier: after this long a connection is looked at before it is used.
_KEEPALIVE_S = 4.0
_LOOK_AFTER_S = 0.2
# At once, streams included; how many calls there may be is decided elsewhere, and less.
_OPEN_MAX = 1024
# What a name resolved to is believed for so long, so that a burst of new connections asks once.
_RESOLVED_S = 10.0
# Where a name has several addresses, the next is tried beside one that does not answer (RFC 8305).
_STAGGER_S = 0.25
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What stays as it is written: everything that has a meaning in a path or a query, and what is quoted already.
_UNQUOTED = "!#$%&'()*+,/:;=?@[]~"
_SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),  # a stream of a remote that vanished ends
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

Watch = Callable[[str], None]
"""Told of each step that is reached: tcp, tls, http, and handshake once the head of an answer is there."""

_Info = tuple[Any, ...]


class Address(NamedTuple):
    """An http(s) URL as it is connected to."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> "Address":
        """Raises ValueError for what is no such URL."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise ValueError("no http or https URL with a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials have no place in it")
        if not host.isascii():
            host = host.encode("idna").decode()
        target = quote(parts.path or "/", safe=_UNQUOTED) + (
            f"?{quote(parts.query, safe=_UNQUOTED)}" * bool(parts.query)
        )
        return cls(parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme], target)

    def joined(self, url: str, reference: str) -> "Address":
        """Where `reference`, found at `url`, leads to; raises ValueError when that is another origin."""
        found = Address.of(urljoin(url, reference))
        if found[:3] != self[:3]:
            raise ValueError("it is on another origin")
        return found

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class Origin:
    """The seam to the network of one remote."""

    def __init__(self, url: str, reach: Reach, *, watch: Watch | None = None) -> None:
        self.address = Address.of(url)
        self._reach = reach
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self._loop)
        self._connections: set[Connection] = set()
        self._idle: deque[Connection] = deque()  # the most recently used last
        self._sweep: asyncio.TimerHandle | None = None
        self._connecting = 0
        self._is_closed = False
        self._lookup = asyncio.Lock()
        self._resolved: list[_Info] = []
        self._resolved_until = 0.0

    def head(self, method: str, headers: Mapping[str, str], *, target: str | None = None) -> bytes:
        """The beginning of a request, up to the headers that `send` adds; later headers win over the usual ones."""
        usual = {"Host": self.address.host_header, "User-Agent": "MCP-Server", "Accept-Encoding": ACCEPTED.decode()}
        lines = {name.lower(): (name, value) for name, value in (usual | dict(headers)).items()}
        return f"{method} {target or self.address.target} HTTP/1.1\r\n".encode() + lines_of(dict(lines.values()))

    async def send(self, head: bytes, headers: Mapping[str, str], body: bytes | None = None) -> Response:
        """The answer to one request, as soon as its head is there. It is sent once, whatever happens. Raises HttpError."""
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        request = b"%b%b%b\r\n%b" % (head, lines_of(headers), length, body or b"")
        connection = self._standing() or await self._connected()
        response = await connection.exchange(request)
        if self._watch is not None:
            self._watch("handshake")
        return response

    def close(self) -> None:
        """End all connections, with what is under way on them."""
        self._is_closed = True
        self.deadlines.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    # Connections that are warm.

    def free(self, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_KEEPALIVE_S, self._sweep_idle)

    def gone(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _standing(self) -> Connection | None:
        """The warmest connection that is still good for a request."""
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            idle_s = now - connection.idle_since
            if connection.is_open and (idle_s < _LOOK_AFTER_S or (idle_s < _KEEPALIVE_S and connection.is_silent)):
                return connection
            connection.close()
        return None

    def _sweep_idle(self) -> None:
        self._sweep = None
        now = self._loop.time()
        while self._idle and (now - self._idle[0].idle_since >= _KEEPALIVE_S or not self._idle[0].is_open):
            self._idle.popleft().close()
        if self._idle:
            self._sweep = self._loop.call_at(self._idle[0].idle_since + _KEEPALIVE_S, self._sweep_idle)

    # New ones.

    async def _connected(self) -> Connection:
        if self._is_closed:
            raise Unreachable("send", "it is no longer configured")
        if len(self._connections) + self._connecting >= _OPEN_MAX:
            raise Unreachable("tcp", f"{_OPEN_MAX} connections are open already")
        self._connecting += 1
        try:
            infos = await self._looked_up()
            self._reached("tcp")
            connected = await self._tcp(infos)
            if self.address.scheme == "https":
                self._reached("tls")
            connection = await self._opened(connected)
            self._reached("http")
        finally:
            self._connecting -= 1
        self._admit(connection)
        return connection

    def _admit(self, connection: Connection) -> None:
        if self._is_closed:
            connection.abort()
        if connection.is_open:
            self._connections.add(connection)

    def _reached(self, step: str) -> None:
        if self._watch is not None:
            self._watch(step)

    async def _looked_up(self) -> list[_Info]:
        """The addresses of the host, looked up once and judged; what is connected to is what was judged."""
        async with self._lookup:
            if self._resolved and self._loop.time() < self._resolved_until:
                return self._resolved
            host, port = self.address.host, self.address.port
            try:
                found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise Unreachable("dns", error.strerror or type(error).__name__) from None
            except UnicodeError:
                raise Unreachable("dns", "this is no host name") from None
            allowed = [info for info in found if self._allows(info[4][0])]
            if not allowed:
                why = f"{host} resolves to an address that allow_private_networks does not allow"
                raise Unreachable("dns", why)
            self._resolved, self._resolved_until = allowed, self._loop.time() + _RESOLVED_S
            return allowed

    def _allows(self, address: object) -> bool:
        return self._reach.judge(self.address.host, ipaddress.ip_address(str(address))) == "allowed"

    async def _tcp(self, infos: list[_Info]) -> socket.socket:
        try:
            if len(infos) == 1:
                return await _attempt(infos[0])
            attempts = [functools.partial(_attempt, info) for info in infos]
            connected: socket.socket | None
            connected, _, errors = await staggered_race(attempts, _STAGGER_S)
            if connected is None:
                raise next(error for error in errors if error is not None)
        except Unreachable:
            self._resolved_until = 0.0  # it may have moved
            raise
        return connected

    async def _opened(self, connected: socket.socket) -> Connection:
        is_tls = self.address.scheme == "https"
        try:
            _, connection = await self._loop.create_connection(
                functools.partial(Connection, self, connected),
                sock=connected,
                ssl=_tls() if is_tls else None,
                server_hostname=self.address.host.rstrip(".") if is_tls else None,
            )
        except ssl.SSLCertVerificationError as error:
            raise Unreachable("tls", f"certificate verify failed: {error.verify_message}") from None
        except (OSError, ssl.CertificateError) as error:
            raise Unreachable("tls" if is_tls else "tcp", _said(error)) from None
        return connection


def lines_of(headers: Mapping[str, str]) -> bytes:
    """Header lines; raises ValueError for what is not one line each, which who makes headers has to see to."""
    if not headers:
        return b""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or not _SENDABLE.fullmatch(lines.replace("\r\n", "")):
        raise ValueError("a header that cannot be sent")
    return lines.encode()


async def _attempt(info: _Info) -> socket.socket:
    family, kind, protocol, _, address = info
    try:
        one = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _not_connected(error, family) from None
    try:
        one.setblocking(False)
        for option in _SOCKET_OPTIONS:
            one.setsockopt(*option)
        await asyncio.get_running_loop().sock_connect(one, address)
    except OSError as error:
        one.close()
        raise _not_connected(error, family) from None
    except BaseException:
        one.close()
        raise
    return one


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the authorities of the machine takes long and much memory: once. Nothing in it belongs to a remote."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _not_connected(error: OSError, family: int) -> Unreachable:
    short = shortage.of(error)
    # Where IPv6 is switched off, the same error says that there is no address of that kind at all.
    if short is None or (error.errno == errno.EADDRNOTAVAIL and family != socket.AF_INET):
        return Unreachable("tcp", _said(error))
    return Short("tcp", f"this machine is short of {short}")


def _said(error: OSError) -> str:
    """The error in a few words: asyncio's own quote the address and not the reason."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "no TLS"
    return os.strerror(error.errno) if error.errno else type(error).__name__
