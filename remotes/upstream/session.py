"""The HTTP client of one remote: a connector of its own, no shared cookies, no environment proxies, no redirects.

Everything that keeps one remote's credentials and connections from another's is set here, once.
"""

import ipaddress
import re
import socket

import aiohttp
from aiohttp import SocketFactoryType
from aiohttp.abc import AbstractResolver, ResolveResult

from remotes.config.addresses import Reach
from remotes.upstream.outcome import Failure, Fault

# Idle connections are dropped before the other side does it: Node and uvicorn close theirs after 5 s, and a POST that meets
# a closing socket cannot be repeated safely.
_KEEPALIVE_S = 4.0
EXCERPT_MAX_BYTES = 4096


class GuardedResolver(AbstractResolver):
    """Names are resolved once, judged, and connected to as judged: a name that changes its address gains nothing.

    An address written into the URL needs no resolver; the configuration has judged it.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if self._reach.judge(host, ipaddress.ip_address(one["host"])) == "allowed"]
        if not allowed:
            raise OSError(None, f"{host} resolves to an address that allow_private_networks does not allow")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def open_session(
    reach: Reach, *, trace: aiohttp.TraceConfig | None = None, socket_factory: SocketFactoryType | None = None
) -> aiohttp.ClientSession:
    """Deadlines are the caller's (`asyncio.timeout_at`), so aiohttp keeps none of its own. A probe watches it connect."""
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEEPALIVE_S,
        resolver=GuardedResolver(reach),
        socket_factory=socket_factory,
    )
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[trace] if trace is not None else None,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, connect=None, sock_read=None),
        trust_env=False,
        requote_redirect_url=False,
        skip_auto_headers=("User-Agent",),
        headers={"User-Agent": "MCP-Server"},
        read_bufsize=256 * 1024,
    )


def classified(name: str, error: Exception, phase: str) -> Failure:
    """What a client error means for who asked: whether the remote can have seen the request."""
    words = _said(error)
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Failure(Fault.NOT_SENT, "dns", f"{name}: the host name cannot be resolved ({words})")
        case aiohttp.ClientSSLError():
            return Failure(Fault.NOT_SENT, "tls", f"{name}: no TLS connection ({words})")
        case aiohttp.ClientConnectorError():
            return Failure(Fault.NOT_SENT, "tcp", f"{name}: no connection ({words})")
        case TimeoutError():
            return Failure(Fault.TIMEOUT, phase, f"{name} did not answer in time")
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return Failure(Fault.INVALID, phase, f"{name} sent what is no HTTP answer ({words})")
        case _:
            return Failure(Fault.BROKEN, phase, f"the connection to {name} broke ({words})")


def unexpected_status(name: str, response: aiohttp.ClientResponse, excerpt: bytes) -> Failure:
    """An HTTP error as a Failure; 401 is told apart because a credential may mend it."""
    if response.status == 401:
        return Failure(Fault.UNAUTHORIZED, "auth", f"{name} refused our credential (HTTP 401)", excerpt, 401)
    retry_after = response.headers.get("Retry-After", "")
    wait = float(retry_after) if retry_after.isdigit() else None
    return Failure(Fault.HTTP_STATUS, "http", f"{name} answered HTTP {response.status}", excerpt, response.status, wait)


async def read_excerpt(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body nobody expected."""
    try:
        return await response.content.read(EXCERPT_MAX_BYTES)
    except aiohttp.ClientError:
        return b""


def _said(error: Exception) -> str:
    """The error in a few words, without the address it happens to quote (it may hold credentials)."""
    if isinstance(error, aiohttp.ClientOSError) and error.strerror:
        return error.strerror
    return re.sub(r"https?://\S+", "the remote", str(error)) or type(error).__name__
