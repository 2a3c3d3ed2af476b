"""Batches: an array of messages in one POST, which revision 2025-03-26 has and no later one.

Each request of a batch is one as if it had come alone: it takes its own slot, runs beside the others and can be cancelled by its
id. Answers go out together as an array, or each as an event where the answer to the POST has become a stream.
Source: specification 2025-03-26, basic/index "Batching" and basic/transports "Sending Messages"; JSON-RPC 2.0, section 6.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from gateway.calls import Served
from gateway.endpoint.asker import answered
from gateway.endpoint.http import Answer, Receive, Send, refused, respond
from gateway.endpoint.reply import Reply
from gateway.endpoint.served import internal_error, no_slot, serve_posted, stopping
from gateway.endpoint.streamable import accepts, is_primed, notified, read_call, session_of
from gateway.runtime import Runtime
from gateway.serving import ClientGone
from gateway.sessions.sessions import Ongoing, Session
from keys.principal import Principal
from mcpserver.protocol import codes, inbound, jsonrpc
from mcpserver.protocol.inbound import Call

log = logging.getLogger("mcp.endpoint")

LONGEST = 100
REVISION = "2025-03-26"
Serve = Callable[[Call], "asyncio.Task[None]"]


async def post(
    runtime: Runtime, principal: Principal, body: bytes, headers: inbound.Headers, receive: Receive, send: Send
) -> None:
    session = session_of(runtime, principal, headers)
    if isinstance(session, Answer):
        await respond(send, session)
        return
    if session.revision != REVISION:
        await respond(send, not_taken(f"a session of {session.revision}"))
        return
    try:
        messages = read(body)
    except jsonrpc.Malformed as error:
        await respond(send, refused(400, error.code, error.message, id=error.id))
        return
    if any(isinstance(message, jsonrpc.Request) for message in messages):
        await _requests(runtime, principal, session, messages, headers, receive, send)
        return
    for message in messages:
        told(runtime, session, message)
    await respond(send, Answer(202, b"", ()))


def read(body: bytes) -> list[jsonrpc.Message]:
    """The messages of a batch; raises Malformed, also for a handshake among them (lifecycle, "Initialization")."""
    messages = jsonrpc.decode_batch(body, LONGEST)
    if any(isinstance(message, jsonrpc.Request) and message.method == "initialize" for message in messages):
        raise jsonrpc.Malformed(codes.INVALID_REQUEST, "initialize cannot be part of a batch")
    return messages


def told(runtime: Runtime, session: Session, message: jsonrpc.Message) -> None:
    """Take what asks for no answer."""
    if isinstance(message, jsonrpc.Notification):
        notified(runtime, session, message)
    elif isinstance(message, jsonrpc.Response):
        answered(session, message)


def not_taken(by: str) -> Answer:
    return refused(400, codes.INVALID_REQUEST, f"{by} takes one message at a time, no batch")


async def _requests(
    runtime: Runtime,
    principal: Principal,
    session: Session,
    messages: list[jsonrpc.Message],
    headers: inbound.Headers,
    receive: Receive,
    send: Send,
) -> None:
    reply = Reply(
        send,
        receive,
        may_stream=accepts(headers, b"text/event-stream"),
        heartbeat_s=runtime.limits.heartbeat_s,
        headers=partial(runtime.rates.headers, principal),
        open_trail=lambda: runtime.trails.of_call(session.id, session.key_id, primed=is_primed(session)),
    )
    waiting: list[bytes] = []

    held: list[object] = []

    def take(body: bytes, memory: object = None) -> None:
        held.append(memory)
        if not reply.answer_early(body):
            waiting.append(body)

    one = partial(_one, runtime, principal, session, headers, reply, take)
    calls = _started(runtime, session, messages, lambda call: asyncio.create_task(one(call)), take)
    try:
        await asyncio.gather(*(ongoing.task for _, ongoing in calls), return_exceptions=True)
        await reply.finish_batch(waiting)
    except asyncio.CancelledError:  # by the server, which is shutting down; gather has passed it on
        left = [call for call, ongoing in calls if ongoing.task.cancelled() and not ongoing.cancelled]
        await reply.finish_batch([*waiting, *(stopping(call).body for call in left)])
        raise
    except ClientGone:
        await reply.abandon()
    finally:
        for call, ongoing in calls:
            session.forget(call.id, ongoing)


def _started(
    runtime: Runtime, session: Session, messages: Iterable[jsonrpc.Message], serve: Serve, take: Callable[[bytes], None]
) -> list[tuple[Call, Ongoing]]:
    """Take the messages in their order; what is under way now, in a task each."""
    calls: list[tuple[Call, Ongoing]] = []
    for message in messages:
        if not isinstance(message, jsonrpc.Request):
            told(runtime, session, message)
            continue
        call = read_call(session, message)
        if isinstance(call, bytes):
            take(call)
            continue
        ongoing = session.open_calls[call.id] = Ongoing(serve(call))
        calls.append((call, ongoing))
    return calls


async def _one(
    runtime: Runtime,
    principal: Principal,
    session: Session,
    headers: inbound.Headers,
    reply: Reply,
    take: Callable[[bytes, object], None],
    call: Call,
) -> None:
    try:
        served = await serve_posted(runtime, principal, session, call, reply, headers)
        body = served.body if isinstance(served, Served) else no_slot(served, call.id).body
        held = served.held if isinstance(served, Served) else None
    except Exception:
        log.exception("serving %s failed", call.method)
        body, held = internal_error(call).body, None
    take(body, held)
