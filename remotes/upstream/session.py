"""The HTTP client of one remote: a connector of its own, no shared cookies, no environment proxies, no redirects.

Everything that keeps one remote's credentials and connections from another's is set here, once.
"""

import asyncio
import contextlib
import ipaddress
import os
import re
import socket

import aiohttp
from aiohttp import SocketFactoryType
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError

from remotes.config.addresses import Reach
from remotes.upstream.outcome import Failure, Fault

# Idle connections are dropped before the other side does it: Node and uvicorn close theirs after 5 s, and a POST that meets
# a closing socket cannot be repeated safely.
_KEEPALIVE_S = 4.0
EXCERPT_MAX_BYTES = 4096
_EXCERPT_S = 1.0
_SECONDS = re.compile(r"[0-9]{1,9}")
_SCOPE = re.compile(r'\bscope="([A-Za-z0-9:._/ -]{1,200})"')
# What aiohttp says when the other side left before its body was complete.
_CUT_OFF = (ContentLengthError, TransferEncodingError)


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
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, _CUT_OFF):
            return Failure(Fault.BROKEN, phase, f"the connection to {name} ended in the middle of an answer")
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return Failure(Fault.INVALID, phase, f"{name} sent what is no HTTP answer ({words})")
        case _:
            return Failure(Fault.BROKEN, phase, f"the connection to {name} broke ({words})")


def unexpected_status(name: str, response: aiohttp.ClientResponse, excerpt: bytes) -> Failure:
    """An HTTP error as a Failure; 401 is told apart because a credential may mend it."""
    if response.status == 401:
        return Failure(
            Fault.UNAUTHORIZED, "auth", f"{name} refused our credential (HTTP 401)", excerpt[:EXCERPT_MAX_BYTES], 401
        )
    if lacks_scope(response):
        return Failure(Fault.HTTP_STATUS, "auth", _scope_words(name, response), b"", 403)
    retry_after = response.headers.get("Retry-After", "")
    wait = float(retry_after) if _SECONDS.fullmatch(retry_after) else None
    said = f"{name} answered HTTP {response.status}"
    if 300 <= response.status < 400:
        said += ", a redirect, which is not followed: configure the address it leads to"
    return Failure(Fault.HTTP_STATUS, "http", said, excerpt[:EXCERPT_MAX_BYTES], response.status, wait)


def lacks_scope(response: aiohttp.ClientResponse) -> bool:
    """Whether this is the 403 of a token that is good and does not reach so far (RFC 6750, 3.1)."""
    return response.status == 403 and "insufficient_scope" in response.headers.get("WWW-Authenticate", "")


def _scope_words(name: str, response: aiohttp.ClientResponse) -> str:
    """What is missing comes from the remote and ends up in a command line: plain words alone are repeated."""
    said = _SCOPE.search(response.headers.get("WWW-Authenticate", ""))
    missing = f", which needs the scope {said[1]}" if said else ""
    again = f"mcp remote login {name}" + (f" --scope '{said[1]}'" if said else " --scope …")
    return f"the credential of {name} does not reach so far (HTTP 403){missing}: {again}"


async def read_excerpt(response: aiohttp.ClientResponse, most: int = EXCERPT_MAX_BYTES) -> bytes:
    """The beginning of a body nobody expected. The status has said enough: a body that drips is not waited for."""
    found = b""
    with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        async with asyncio.timeout(_EXCERPT_S):
            while len(found) < most and (chunk := await response.content.read(most - len(found))):
                found += chunk
    return found


def _said(error: Exception) -> str:
    """The error in a few words, without the address it happens to quote (it may hold credentials)."""
    if isinstance(error, aiohttp.ClientOSError) and error.strerror:
        # asyncio's own words quote the address and not the reason.
        if error.errno and error.strerror.startswith("Connect call failed"):
            return os.strerror(error.errno)
        return error.strerror
    return re.sub(r"https?://\S+", "the remote", str(error)) or type(error).__name__
