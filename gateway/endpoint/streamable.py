"""Revisions 2025-03-26, 2025-06-18 and 2025-11-25: a session opened by `initialize`, POSTs inside it, one GET stream beside it.

A client that leaves does not cancel (basic/transports, "Sending Messages"): its request runs on to its deadline. Cancelling is
a notification; ending is DELETE. What its streams said is kept for it meanwhile (`resumption`).
"""

import asyncio
import logging
from functools import partial
from typing import Any

from gateway.admission.slots import Full
from gateway.calls import Served
from gateway.catalog.joined import SERVER
from gateway.endpoint import stream
from gateway.endpoint.asker import answered
from gateway.endpoint.http import JSON, Answer, Receive, Send, refused, respond
from gateway.endpoint.reply import Reply
from gateway.endpoint.served import answer_of, internal_error, no_slot, serve_posted, stopping
from gateway.runtime import Runtime, list_changed
from gateway.serving import ClientGone
from gateway.sessions.resumption import Trail, is_of_session
from gateway.sessions.sessions import Ongoing, Session
from keys.principal import Principal
from mcpserver.protocol import codes, inbound, jsonrpc, sse, versions
from mcpserver.protocol.inbound import Call

log = logging.getLogger("mcp.endpoint")

SESSION = b"mcp-session-id"
LAST_EVENT = b"last-event-id"
# What is asked for in these holds beyond their answer.
_LASTING = frozenset(("logging/setLevel", "resources/subscribe", "resources/unsubscribe"))
NO_SESSION = "this session does not exist or has ended: send initialize"
# An empty stream would do, but some clients do not take an error for the answer and would come back for ever. In HTML's
# "Server-sent events" this status tells them not to.
_NO_MORE = Answer(204, b"", ())
# Not 404, which would tell the client that its session is gone.
_NOT_KEPT = "nothing is kept from that event on: its stream has ended, or is too old"


async def post(
    runtime: Runtime,
    principal: Principal,
    message: jsonrpc.Message,
    headers: inbound.Headers,
    receive: Receive,
    send: Send,
) -> None:
    if isinstance(message, jsonrpc.Request) and message.method == "initialize":
        await respond(send, await _initialize(runtime, principal, message))
        return
    session = session_of(runtime, principal, headers)
    if isinstance(session, Answer):
        await respond(send, session)
    elif isinstance(message, jsonrpc.Request):
        if session.is_taken_over:
            await runtime.take_over(session, principal)
        await _request(runtime, principal, session, message, headers, receive, send)
        if message.method in _LASTING:
            runtime.asked(session)
    else:
        if isinstance(message, jsonrpc.Notification):
            notified(runtime, session, message)
        else:
            answered(session, message)
        await respond(send, Answer(202, b"", ()))


async def get(runtime: Runtime, principal: Principal, headers: inbound.Headers, receive: Receive, send: Send) -> None:
    """The stream for messages outside any request, or the rest of a stream that was cut off."""
    if SESSION not in headers:
        await respond(
            send, refused(405, codes.INVALID_REQUEST, "a GET needs a session", headers=((b"allow", b"POST"),))
        )
        return
    session = session_of(runtime, principal, headers)
    if isinstance(session, Answer):
        await respond(send, session)
        return
    if not accepts(headers, b"text/event-stream"):
        await respond(send, refused(406, codes.INVALID_REQUEST, "a GET must accept text/event-stream"))
        return
    if session.is_taken_over:
        await runtime.take_over(session, principal)
    last = headers.get(LAST_EVENT, b"")
    found = runtime.trails.find(session.id, last) if last else None
    if found is not None and found[0].is_call:
        await _rest_of_call(runtime, principal, *found, receive, send)
    elif found is None and last and not is_of_session(last):
        await respond(send, refused(400, codes.INVALID_REQUEST, _NOT_KEPT))
    else:
        await _between_calls(runtime, principal, session, found, receive, send)


async def _between_calls(
    runtime: Runtime,
    principal: Principal,
    session: Session,
    found: tuple[Trail, int] | None,
    receive: Receive,
    send: Send,
) -> None:
    """Serve the session's own stream, where it was left or afresh; a newer one takes the place of an older one."""
    slots, is_first = runtime.slots, session.stream is None
    if is_first and (full := await slots.open_stream(principal)) is not None:
        await respond(send, no_slot(full, None))
        return
    if session.stream is not None:
        session.stream.end()  # its slot passes on: a key with no slot to spare can reconnect
        if is_first:  # it came while this one waited for a slot, which is now one too many
            slots.close_stream(principal.key_id)
    trail, after = found or (_fresh_trail(runtime, session), 0)
    outbox = session.stream = trail.follow(after)
    first = sse.HEARTBEAT if found else sse.HEARTBEAT + trail.opening
    session.subscriber.catch_up()
    try:
        if await stream.run(outbox, send, receive, runtime.limits, first=first):
            await stream.close(send, stream.SHUTDOWN if runtime.draining else b"")
    except ClientGone:
        log.debug("the client of a session's stream left")
    finally:
        trail.leave(outbox)
        if session.stream is outbox:
            session.stream = None
            slots.close_stream(principal.key_id)


def _fresh_trail(runtime: Runtime, session: Session) -> Trail:
    """Announcements go to this one from now on, and to no other of the session."""
    if session.trail is not None:
        session.trail.close()
    trail = session.trail = runtime.trails.of_session(session.id, session.key_id, primed=is_primed(session))
    trail.on_over = lambda: runtime.close_stream(trail)
    runtime.tell(trail, session.key_id, list_changed)
    return trail


async def _rest_of_call(
    runtime: Runtime, principal: Principal, trail: Trail, after: int, receive: Receive, send: Send
) -> None:
    """What a call said since its client was cut off, then what it says, to its answer."""
    if not trail.has_more(after):
        await respond(send, _NO_MORE)
        return
    slots = runtime.slots
    if (full := await slots.open_stream(principal)) is not None:
        await respond(send, no_slot(full, None))
        return
    outbox = trail.follow(after)
    try:
        if await stream.run(outbox, send, receive, runtime.limits, first=sse.HEARTBEAT):
            await stream.close(send)
    except ClientGone:
        log.debug("the client of a resumed call left again")
    finally:
        trail.leave(outbox)
        slots.close_stream(principal.key_id)


async def delete(runtime: Runtime, principal: Principal, headers: inbound.Headers, send: Send) -> None:
    session = session_of(runtime, principal, headers)
    if isinstance(session, Session):
        runtime.end_session(session)
        runtime.homes.ended(session.id)
        session = Answer(204, b"", ())
    await respond(send, session)


def initialized(runtime: Runtime, principal: Principal, message: jsonrpc.Request) -> tuple[str, bytes, bytes]:
    """The revision that a handshake settles on, the client's capabilities, and the result; raises Malformed."""
    params = jsonrpc.fields(message.params)
    proposed = jsonrpc.text(params.get("protocolVersion"))
    if proposed is None:
        raise jsonrpc.Malformed(codes.INVALID_PARAMS, "initialize needs protocolVersion, a string", message.id)
    capabilities = bytes(params.get("capabilities") or b"{}")
    jsonrpc.fields(capabilities, "capabilities")
    revision = versions.negotiate(proposed)
    result: dict[str, Any] = {
        "protocolVersion": revision,
        "capabilities": runtime.pipeline.capabilities(modern=False),
        "serverInfo": SERVER,
    }
    if instructions := runtime.pipeline.remote_instructions(runtime.snapshot, principal):
        result["instructions"] = instructions
    return revision, capabilities, jsonrpc.result(message.id, jsonrpc.encode(result))


def is_primed(session: Session) -> bool:
    """Whether streams begin with an event that has no message: clients of earlier revisions parse every event as one."""
    return session.revision >= "2025-11-25"


def notified(runtime: Runtime, session: Session, message: jsonrpc.Notification) -> None:
    """What a client tells: a cancellation, or that its roots changed."""
    if message.method == "notifications/roots/list_changed":
        runtime.roots_changed(session)
    if message.method != "notifications/cancelled":
        return
    try:
        id = jsonrpc.fields(message.params).get("requestId")
    except jsonrpc.Malformed:
        return  # basic/utilities/cancellation: an invalid one is ignored
    ongoing = session.open_calls.get(bytes(id).strip()) if id is not None else None
    if ongoing is not None:
        ongoing.cancel()


def read_call(session: Session, message: jsonrpc.Request) -> Call | bytes:
    """The call, or the JSON-RPC error that answers it."""
    if message.method not in versions.HANDSHAKE_METHODS:
        return jsonrpc.error(message.id, codes.METHOD_NOT_FOUND, f"unknown method {message.method}")
    try:
        call = inbound.read_handshake(message, session.revision, session.capabilities, session.log_level)
        return _level_set(session, call) if call.method == "logging/setLevel" else call
    except jsonrpc.Malformed as error:
        return jsonrpc.error(message.id, error.code, error.message)


def _level_set(session: Session, call: Call) -> bytes:
    level = jsonrpc.text(call.params.get("level"))
    if level not in versions.LOG_LEVELS:
        why = f"level must be one of {', '.join(versions.LOG_LEVELS)}"
        return jsonrpc.error(call.id, codes.INVALID_PARAMS, why)
    session.log_level = level
    return jsonrpc.result(call.id, b"{}")


async def _initialize(runtime: Runtime, principal: Principal, message: jsonrpc.Request) -> Answer:
    try:
        revision, capabilities, body = initialized(runtime, principal, message)
    except jsonrpc.Malformed as error:
        return refused(400, error.code, error.message, id=message.id)
    if principal.grant.is_limited and (full := await runtime.rates.take(principal)) is not None:
        return no_slot(full, message.id)
    session = runtime.sessions.open(principal, revision, capabilities)
    return Answer(200, body, (JSON, (SESSION, session.id.encode()), *runtime.rates.headers(principal)))


def session_of(runtime: Runtime, principal: Principal, headers: inbound.Headers) -> Session | Answer:
    """The session that a request names and its key opened, or why there is none."""
    id = headers.get(SESSION)
    if id is None:
        return refused(400, codes.INVALID_REQUEST, "header Mcp-Session-Id is missing: send initialize first")
    session = runtime.sessions.find(id.decode("latin-1"), principal)
    return session or refused(404, codes.INVALID_REQUEST, NO_SESSION)


async def _request(
    runtime: Runtime,
    principal: Principal,
    session: Session,
    message: jsonrpc.Request,
    headers: inbound.Headers,
    receive: Receive,
    send: Send,
) -> None:
    call = read_call(session, message)
    if isinstance(call, bytes):
        await respond(send, Answer(200, call))
        return
    reply = Reply(
        send,
        receive,
        may_stream=accepts(headers, b"text/event-stream"),
        heartbeat_s=runtime.limits.heartbeat_s,
        headers=partial(runtime.rates.headers, principal),
        open_trail=lambda: runtime.trails.of_call(session.id, session.key_id, primed=is_primed(session)),
    )
    task = asyncio.current_task()
    assert task is not None
    ongoing = session.open_calls[call.id] = Ongoing(task)
    try:
        served = await serve_posted(runtime, principal, session, call, reply, headers)
        session.forget(call.id, ongoing)
        await reply.finish(_answer(call, served))
    except asyncio.CancelledError:
        if not ongoing.cancelled:
            await reply.finish(stopping(call))
            raise
        task.uncancel()
        await reply.end()
    except ClientGone:
        await reply.abandon()
    except Exception:
        log.exception("serving %s failed", call.method)
        await reply.finish(internal_error(call))
    finally:
        session.forget(call.id, ongoing)


def _answer(call: Call, served: Served | Full) -> Answer:
    return no_slot(served, call.id) if isinstance(served, Full) else answer_of(served, 200)


def accepts(headers: inbound.Headers, type: bytes) -> bool:
    accept = headers.get(b"accept", b"")
    return type in accept or b"*/*" in accept
