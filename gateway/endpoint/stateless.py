"""Revision 2026-07-28: every POST stands alone. No session, no GET, no DELETE; the client leaving is the cancellation.

Source: specification 2026-07-28, basic/transports/streamable-http, basic/patterns/cancellation and subscriptions.
"""

import asyncio
import logging
from functools import partial
from typing import Any

import msgspec

from gateway.admission.slots import Full
from gateway.calls import Served
from gateway.endpoint import stream
from gateway.endpoint.http import Answer, Receive, Send, refused, respond
from gateway.endpoint.reply import Reply
from gateway.endpoint.served import answer_of, internal_error, no_slot, serve, stopping
from gateway.runtime import Runtime
from gateway.serving import ClientGone
from gateway.sessions.subscriptions import URIS_MAX, Subscriber, TooMany
from keys.principal import Principal
from mcpserver.protocol import codes, inbound, jsonrpc, sse
from mcpserver.protocol.inbound import SUBSCRIPTION_ID, Call, Rejection

log = logging.getLogger("mcp.endpoint")

_WANTED = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}


async def post(
    runtime: Runtime,
    principal: Principal,
    message: jsonrpc.Message,
    headers: inbound.Headers,
    doubled: bytes | None,
    receive: Receive,
    send: Send,
) -> None:
    if isinstance(message, jsonrpc.Notification):
        await respond(send, Answer(202, b"", ()))
        return
    if isinstance(message, jsonrpc.Response):
        await respond(send, refused(400, codes.INVALID_REQUEST, "a client of 2026-07-28 sends no responses"))
        return
    call = inbound.read_modern(message, headers, doubled)
    if isinstance(call, Rejection):
        await respond(send, Answer(call.status, call.body()))
    elif call.method == "subscriptions/listen":
        await _listen(runtime, principal, call, receive, send)
    else:
        await _request(runtime, principal, call, headers, receive, send)


async def _request(
    runtime: Runtime, principal: Principal, call: Call, headers: inbound.Headers, receive: Receive, send: Send
) -> None:
    reply = Reply(
        send,
        receive,
        may_stream=b"text/event-stream" in headers.get(b"accept", b""),
        heartbeat_s=runtime.limits.heartbeat_s,
        headers=partial(runtime.rates.headers, principal),
    )
    task = asyncio.current_task()
    assert task is not None
    reply.on_gone = lambda: _cancel(task)
    try:
        served = await serve(runtime, principal, call, reply.notify, headers, transport="http")
        reply.on_gone = lambda: None
        await reply.finish(_answer(call, served))
    except asyncio.CancelledError:
        if reply.gone:
            await reply.abandon()
            return
        await reply.finish(stopping(call))
        raise
    except ClientGone:
        await reply.abandon()
    except Exception:
        log.exception("serving %s failed", call.method)
        await reply.finish(internal_error(call))


def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()


def _answer(call: Call, served: Served | Full) -> Answer:
    if isinstance(served, Full):
        return no_slot(served, call.id)
    return answer_of(served, codes.MODERN_STATUS.get(served.code, 200))


async def _listen(runtime: Runtime, principal: Principal, call: Call, receive: Receive, send: Send) -> None:
    """A stream of changes, each marked with the subscription's id; its graceful end is the request's result."""
    try:
        wanted = jsonrpc.fields(call.params.get("notifications"), "notifications")
        uris = _uris(wanted.get("resourceSubscriptions"))
    except jsonrpc.Malformed as error:
        await respond(send, refused(400, error.code, error.message, id=call.id))
        return
    slots = runtime.slots
    if (no := await slots.open_stream(principal)) is not None:
        await respond(send, no_slot(no, call.id))
        return
    granted: dict[str, Any] = {name: True for name in _WANTED if bytes(wanted.get(name, b"")) == b"true"}
    kinds = {_WANTED[name] for name in granted}
    mark = {"_meta": {SUBSCRIPTION_ID: msgspec.Raw(call.id)}}

    def announce(kind: str) -> bytes | None:
        if kind not in kinds:
            return None
        return sse.encode(jsonrpc.notification(f"notifications/{kind}/list_changed", jsonrpc.encode(mark)))

    outbox = runtime.open_stream(principal.key_id, announce)
    subscriber = Subscriber(
        principal.key_id, lambda message: outbox.put(sse.encode(message)), lambda: True, meta=mark["_meta"]
    )
    try:
        if uris:
            granted["resourceSubscriptions"] = await _watched(runtime, principal, subscriber, uris)
        acknowledged = jsonrpc.encode(mark | {"notifications": granted})
        first = sse.encode(jsonrpc.notification("notifications/subscriptions/acknowledged", acknowledged))
        if await stream.run(outbox, send, receive, runtime.limits, first=first):
            result = jsonrpc.encode({"resultType": "complete"} | mark)
            await stream.close(send, sse.encode(jsonrpc.result(call.id, result)))
    except ClientGone:
        log.debug("a listener left")
    finally:
        runtime.subscriptions.close(subscriber)
        runtime.close_stream(outbox)
        slots.close_stream(principal.key_id)


async def _watched(runtime: Runtime, principal: Principal, subscriber: Subscriber, uris: list[str]) -> list[str]:
    """Those of the resources whose changes will be told: they exist for this key, and their remote can tell."""
    await runtime.catalog.ready()
    await runtime.catalog.recall(uris[:URIS_MAX])
    located = ((uri, runtime.catalog.located(uri, principal)) for uri in uris[:URIS_MAX])
    places = {uri: place for uri, place in located if place is not None}
    try:
        refused = await runtime.subscriptions.add(subscriber, places)
    except TooMany:
        return []
    return [uri for uri in places if uri not in refused]


def _uris(raw: msgspec.Raw | None) -> list[str]:
    return [] if raw is None else list(dict.fromkeys(jsonrpc.strings(raw, "resourceSubscriptions")))
