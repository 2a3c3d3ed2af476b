"""Open a connection to a remote, whatever it speaks: the era and transport are pinned, remembered, or found out.

Source: specification 2026-07-28, basic/transports/streamable-http and stdio, "Backward Compatibility". The rule for both: ask
`server/discover` first; only a recognised modern answer means modern; everything else falls back to `initialize`; over HTTP, a
400, 404 or 405 to that falls back to HTTP+SSE. A network error or a 5xx decides nothing.
"""

import asyncio

import msgspec
from msgspec import Raw

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.versions import HANDSHAKE, MODERN, NEWEST_HANDSHAKE
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.budget import Budget
from remotes.upstream.connection import Connection, Greeting, Listener, discovered, greeting
from remotes.upstream.credential import NO_CREDENTIAL, Credential
from remotes.upstream.duplex import Duplex
from remotes.upstream.envelope import CLIENT_INFO, Exchange
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal
from remotes.upstream.record import Places, Record
from remotes.upstream.sessions import Sessions
from remotes.upstream.sse import open_sse
from remotes.upstream.stateless import Stateless
from remotes.upstream.stdio import open_stdio

_MODERN_ERRORS = (codes.UNSUPPORTED_VERSION, codes.MISSING_CAPABILITY, codes.HEADER_MISMATCH)
_NO_SUCH_ENDPOINT = (400, 404, 405)


class Attempt(msgspec.Struct, frozen=True):
    """What every step of one connect needs. `capabilities` are declared to a handshake remote; `deadline` is the loop's."""

    spec: RemoteSpec
    origin: Origin | None
    listener: Listener
    deadline: float
    budget: Budget
    capabilities: Raw
    credential: Credential
    record: Record


async def connect(
    spec: RemoteSpec,
    origin: Origin | None,
    listener: Listener,
    *,
    era: str,
    budget: Budget,
    capabilities: bytes = b"{}",
    credential: Credential = NO_CREDENTIAL,
    record: Record | None = None,
) -> Connection:
    """An open, greeted connection within `spec.connect_timeout_s`; raises Failed.

    `era` is the revision remembered from before ("" when unknown); the configuration's pin comes first. `record` is where a
    process is written down; without one it stands alone.
    """
    deadline = asyncio.get_running_loop().time() + spec.connect_timeout_s
    record = Record(Places(2)) if record is None else record
    attempt = Attempt(spec, origin, listener, deadline, budget, Raw(capabilities), credential, record)
    known = spec.era if spec.era != "auto" else era
    if spec.transport == "stdio":
        return await _stdio(attempt, known)
    return await _http(attempt, known)


async def _http(attempt: Attempt, known: str) -> Connection:
    spec, origin = attempt.spec, attempt.origin
    if spec.transport == "sse" or known == "2024-11-05":
        return await _event_stream(attempt)
    assert origin is not None, "a remote with an address needs its origin"
    if known in ("", MODERN):
        stateless = Stateless(spec, origin, attempt.listener, attempt.budget, attempt.credential)
        verdict = await _discover(stateless, attempt.deadline)
        if isinstance(verdict, Greeting):
            stateless.greeting = verdict
            return stateless
        if known == MODERN:
            raise Failed(_not_modern(spec, verdict))
        if verdict is not None and _decides_nothing(verdict):
            raise Failed(verdict)
    sessions = Sessions(spec, origin, attempt.listener, attempt.budget, attempt.credential)
    try:
        sessions.greeting = await _initialize(sessions, attempt, "http")
    except Failed as failed:
        if spec.era == "auto" and failed.failure.status in _NO_SUCH_ENDPOINT:
            return await _event_stream(attempt)
        raise
    await _confirm(sessions, attempt)
    sessions.listen()
    return sessions


async def _event_stream(attempt: Attempt) -> Connection:
    assert attempt.origin is not None, "a remote with an address needs its origin"
    channel = await open_sse(
        attempt.spec,
        attempt.origin,
        attempt.listener,
        attempt.credential,
        deadline=attempt.deadline,
        budget=attempt.budget,
    )
    return await _greeted(channel, attempt, "sse")


async def _stdio(attempt: Attempt, known: str) -> Connection:
    if known in ("", MODERN):
        connection = await _stdio_asked_first(attempt, known)
        if connection is not None:
            return connection
    return await _greeted(await _process(attempt), attempt, "stdio")


async def _process(attempt: Attempt) -> Duplex:
    return await open_stdio(attempt.spec, attempt.listener, budget=attempt.budget, record=attempt.record)


async def _stdio_asked_first(attempt: Attempt, known: str) -> Connection | None:
    """Ask for the modern era; None when only a fresh process can tell, because the question was too much for this one."""
    channel = await _process(attempt)
    try:
        verdict = await (_discover(channel, attempt.deadline) if known else _either(channel, attempt))
        if isinstance(verdict, Greeting):
            if not verdict.modern:
                await _confirm(channel, attempt)
            channel.greeting = verdict
            return channel
    except BaseException:
        await channel.close()
        raise
    if verdict is None and known != MODERN:  # it said no and lives
        return await _greeted(channel, attempt, "stdio")
    await channel.close()
    if known == MODERN:
        raise Failed(_not_modern(attempt.spec, verdict))
    if verdict is not None and verdict.fault is Fault.NOT_SENT:
        raise Failed(verdict)
    return None


async def _either(channel: Duplex, attempt: Attempt) -> Greeting | Failure | None:
    """Discover; after a third of the time in silence initialize as well, and after two thirds give this process up.

    It may be one that stays silent until it is initialised, or one that takes its time to start (`npx` and `uvx` may be
    downloading), which would not get further if it were started anew. One that starts late answers in order.
    """
    third_s = attempt.spec.connect_timeout_s / 3
    until = min(attempt.deadline, asyncio.get_running_loop().time() + 2 * third_s)
    asking = {asyncio.ensure_future(_discover(channel, until))}
    try:
        done, _ = await asyncio.wait(asking, timeout=third_s)
        if done:
            return done.pop().result()
        asking.add(asyncio.ensure_future(_initialized(channel, attempt, until)))
        failure: Failure | None = None
        for answer in asyncio.as_completed(asking):
            verdict = await answer
            if isinstance(verdict, Greeting):
                return verdict
            failure = failure or verdict
        return failure
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _initialized(channel: Duplex, attempt: Attempt, until: float) -> Greeting | Failure:
    try:
        return await _initialize(channel, msgspec.structs.replace(attempt, deadline=until), "stdio")
    except Failed as failed:
        return failed.failure


async def _greeted(channel: Duplex, attempt: Attempt, transport: str) -> Connection:
    try:
        channel.greeting = await _initialize(channel, attempt, transport)
        await _confirm(channel, attempt)
    except BaseException:
        await channel.close()
        raise
    return channel


async def _confirm(connection: Sessions | Duplex, attempt: Attempt) -> None:
    try:
        async with asyncio.timeout_at(attempt.deadline):
            await connection.notify("notifications/initialized")
    except TimeoutError:
        why = f"{attempt.spec.name} did not take notifications/initialized in time"
        raise Failed(Failure(Fault.TIMEOUT, "handshake", why)) from None


async def _discover(connection: Stateless | Duplex, deadline: float) -> Greeting | Failure | None:
    """Who is there, if it is modern; None for a clear no; a Failure where nothing usable came back."""
    transport = "http" if isinstance(connection, Stateless) else "stdio"
    connection.greeting = Greeting(transport, MODERN, {})  # the question is written in the era it asks about
    outcome = await connection.request(Exchange("server/discover", {}, deadline=deadline))
    if isinstance(outcome, Refusal) and _offers(outcome, MODERN):  # refused the version and lists it: ask again, once
        outcome = await connection.request(Exchange("server/discover", {}, deadline=deadline))
    match outcome:
        case Answer():
            return discovered(transport, outcome.result)
        case Refusal() if jsonrpc.error_body(outcome.error).code in _MODERN_ERRORS:
            _incompatible(outcome)
            return None
        case Refusal(error, status) if _overloaded(status):
            return Failure(Fault.HTTP_STATUS, "http", f"the remote answered HTTP {status}", error[:4096], status)
        case Refusal():
            return None
        case Failure():
            return outcome


def _incompatible(refusal: Refusal) -> None:
    """Raises Failed for a modern server that does not speak our revision; no more when it offers an earlier one as well."""
    if not any(_offers(refusal, revision) for revision in HANDSHAKE):
        error = jsonrpc.error_body(refusal.error)
        why = f"no revision in common: {error.message} ({error.code})"
        raise Failed(Failure(Fault.INVALID, "handshake", why, refusal.error[:4096]))


def _offers(refusal: Refusal, revision: str) -> bool:
    """Whether a refused version comes with the word that this one would do (-32022, `data.supported`)."""
    error = jsonrpc.error_body(refusal.error)
    if error.code != codes.UNSUPPORTED_VERSION or not isinstance(error.data, Raw):
        return False
    try:
        supported = jsonrpc.items(jsonrpc.fields(error.data, "data").get("supported"))
    except jsonrpc.Malformed:
        return False
    return any(jsonrpc.text(one) == revision for one in supported)


async def _initialize(connection: Sessions | Duplex, attempt: Attempt, transport: str) -> Greeting:
    spec = attempt.spec
    proposed = spec.era if spec.era in HANDSHAKE else NEWEST_HANDSHAKE
    connection.greeting = Greeting(transport, "", {})  # no era yet, whatever was asked before
    params = {
        "protocolVersion": Raw(jsonrpc.encode(proposed)),
        "capabilities": attempt.capabilities,
        "clientInfo": CLIENT_INFO,
    }
    outcome: Outcome = await connection.request(Exchange("initialize", params, deadline=attempt.deadline))
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
        return _overloaded(failure.status)
    return failure.fault is not Fault.INVALID


def _overloaded(status: int) -> bool:
    return status >= 500 or status == 429


def _not_modern(spec: RemoteSpec, verdict: Failure | None) -> Failure:
    """Why insisting on the modern era failed: a clear no in our words, anything else as it came."""
    if verdict is not None and verdict.status not in _NO_SUCH_ENDPOINT:
        return verdict
    why = f"{spec.name} does not speak {MODERN}, which its configuration pins"
    return Failure(Fault.INVALID, "handshake", why, status=verdict.status if verdict is not None else 0)
