"""Open a connection to a remote, whatever it speaks: the era and transport are pinned, remembered, or found out.

Source: specification 2026-07-28, basic/transports/streamable-http and stdio, "Backward Compatibility". The rule for both: ask
`server/discover` first; only a recognised modern answer means modern; everything else falls back to `initialize`; over HTTP, a
400, 404 or 405 to that falls back to HTTP+SSE. A network error or a 5xx decides nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from msgspec import Raw

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.versions import HANDSHAKE, MODERN, NEWEST_HANDSHAKE
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import http as streamable
from remotes.upstream.connection import Connection, Greeting, Listener, discovered, greeting
from remotes.upstream.duplex import Duplex
from remotes.upstream.envelope import CLIENT_INFO, Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal
from remotes.upstream.sse import open_sse
from remotes.upstream.stdio import open_stdio

_MODERN_ERRORS = (codes.UNSUPPORTED_VERSION, codes.MISSING_CAPABILITY, codes.HEADER_MISMATCH)
_NO_SUCH_ENDPOINT = (400, 404, 405)
_CAPABILITIES = Raw(b"{}")


async def connect(
    spec: RemoteSpec, http: aiohttp.ClientSession | None, listener: Listener, *, era: str, max_bytes: int
) -> Connection:
    """An open, greeted connection within `spec.connect_timeout_s`; raises Failed.

    `era` is the revision remembered from before ("" when unknown); the configuration's pin comes first.
    """
    deadline = asyncio.get_running_loop().time() + spec.connect_timeout_s
    known = spec.era if spec.era != "auto" else era
    if spec.transport == "stdio":
        return await _stdio(spec, listener, known, deadline, max_bytes)
    assert http is not None, "an HTTP remote needs a client session"
    return await _http(spec, http, listener, known, deadline, max_bytes)


async def _http(
    spec: RemoteSpec, http: aiohttp.ClientSession, listener: Listener, known: str, deadline: float, max_bytes: int
) -> Connection:
    if spec.transport == "sse" or known == "2024-11-05":
        return await _event_stream(spec, http, listener, deadline, max_bytes)
    if known in ("", MODERN):
        stateless = streamable.Stateless(spec, http, listener, max_bytes)
        verdict = await _discover(stateless, deadline)
        if isinstance(verdict, Greeting):
            stateless.greeting = verdict
            return stateless
        if known == MODERN:
            raise Failed(verdict or _not_modern(spec))
        if verdict is not None and _decides_nothing(verdict):
            raise Failed(verdict)
    sessions = streamable.Sessions(spec, http, listener, max_bytes)
    try:
        sessions.greeting = await _initialize(sessions, spec, "http", deadline)
    except Failed as failed:
        if spec.era == "auto" and failed.failure.status in _NO_SUCH_ENDPOINT:
            return await _event_stream(spec, http, listener, deadline, max_bytes)
        raise
    await sessions.notify("notifications/initialized")
    sessions.listen()
    return sessions


async def _event_stream(
    spec: RemoteSpec, http: aiohttp.ClientSession, listener: Listener, deadline: float, max_bytes: int
) -> Connection:
    channel = await open_sse(spec, http, listener, deadline=deadline, event_max_bytes=max_bytes)
    return await _greeted(channel, lambda: _initialize(channel, spec, "sse", deadline))


async def _stdio(spec: RemoteSpec, listener: Listener, known: str, deadline: float, max_bytes: int) -> Connection:
    if known in ("", MODERN):
        connection = await _stdio_asked_first(spec, listener, known, deadline, max_bytes)
        if connection is not None:
            return connection
    channel = await open_stdio(spec, listener, line_max_bytes=max_bytes)
    return await _greeted(channel, lambda: _initialize(channel, spec, "stdio", deadline))


async def _stdio_asked_first(
    spec: RemoteSpec, listener: Listener, known: str, deadline: float, max_bytes: int
) -> Connection | None:
    """Ask for the modern era; None when only a fresh process can tell, because the question was too much for this one."""
    channel = await open_stdio(spec, listener, line_max_bytes=max_bytes)
    # A third of the time is for a server that stays silent until it is initialised.
    patience = deadline if known else min(deadline, asyncio.get_running_loop().time() + spec.connect_timeout_s / 3)
    try:
        verdict = await _discover(channel, patience)
    except BaseException:
        await channel.close()
        raise
    if isinstance(verdict, Greeting):
        channel.greeting = verdict
        return channel
    if verdict is None and known != MODERN:  # it said no and lives
        return await _greeted(channel, lambda: _initialize(channel, spec, "stdio", deadline))
    await channel.close()
    if known == MODERN:
        raise Failed(verdict or _not_modern(spec))
    if verdict is not None and verdict.fault is Fault.NOT_SENT:
        raise Failed(verdict)
    return None


async def _greeted(channel: Duplex, handshake: Callable[[], Awaitable[Greeting]]) -> Connection:
    try:
        channel.greeting = await handshake()
        await channel.notify("notifications/initialized")
    except BaseException:
        await channel.close()
        raise
    return channel


async def _discover(connection: streamable.Stateless | Duplex, deadline: float) -> Greeting | Failure | None:
    """Who is there, if it is modern; None for a clear no; a Failure where nothing usable came back."""
    transport = "http" if isinstance(connection, streamable.Stateless) else "stdio"
    connection.greeting = Greeting(transport, MODERN, {})  # the question is written in the era it asks about
    outcome = await connection.request(Exchange("server/discover", {}, deadline=deadline, capabilities=_CAPABILITIES))
    match outcome:
        case Answer():
            return discovered(transport, outcome.result)
        case Refusal() if jsonrpc.error_body(outcome.error).code in _MODERN_ERRORS:
            return _incompatible(outcome)
        case Refusal():
            return None
        case Failure():
            return outcome


def _incompatible(refusal: Refusal) -> Failure | None:
    """A modern server that does not speak our revision; None when it offers an earlier one as well."""
    error = jsonrpc.error_body(refusal.error)
    offered = bytes(error.data) if isinstance(error.data, Raw) else b""
    if any(f'"{revision}"'.encode() in offered for revision in HANDSHAKE):
        return None
    return Failure(Fault.INVALID, "handshake", f"no revision in common: {error.message}", offered[:4096], 200)


async def _initialize(
    connection: streamable.Sessions | Duplex, spec: RemoteSpec, transport: str, deadline: float
) -> Greeting:
    proposed = spec.era if spec.era in HANDSHAKE else NEWEST_HANDSHAKE
    params = {
        "protocolVersion": Raw(jsonrpc.encode(proposed)),
        "capabilities": _CAPABILITIES,
        "clientInfo": CLIENT_INFO,
    }
    outcome: Outcome = await connection.request(Exchange("initialize", params, deadline=deadline))
    match outcome:
        case Answer():
            found = greeting(transport, outcome.result)
            if found.revision not in HANDSHAKE:
                raise Failed(
                    Failure(Fault.INVALID, "handshake", f"{spec.name} chose {found.revision}, which nobody proposed")
                )
            return found
        case Refusal():
            said = jsonrpc.error_body(outcome.error)
            raise Failed(
                Failure(
                    Fault.INVALID,
                    "handshake",
                    f"{spec.name} refused to initialize: {said.message} ({said.code})",
                    outcome.error[:4096],
                    outcome.status,
                )
            )
        case Failure():
            raise Failed(outcome)


def _decides_nothing(failure: Failure) -> bool:
    """A network error or a 5xx says nothing about the era; a 4xx or an unreadable answer says: not modern."""
    if failure.fault is Fault.HTTP_STATUS:
        return failure.status >= 500 or failure.status == 429
    return failure.fault is not Fault.INVALID


def _not_modern(spec: RemoteSpec) -> Failure:
    return Failure(Fault.INVALID, "handshake", f"{spec.name} does not speak {MODERN}, which its configuration pins")
