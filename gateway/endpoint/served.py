"""One request served: a slot around it, the pipeline inside, one line in the log and one count in the metrics at its end."""

import msgspec

from gateway import access, metrics
from gateway.admission.rates import TooOften
from gateway.admission.slots import Full
from gateway.calls import Served, Visit
from gateway.endpoint.asker import asker
from gateway.endpoint.http import JSON, Answer
from gateway.endpoint.reply import Reply
from gateway.record import Verdict
from gateway.runtime import Runtime
from gateway.sessions.sessions import Session
from gateway.sessions.subscriptions import Subscriber
from keys.principal import Principal
from mcpserver.protocol import codes, inbound, jsonrpc, versions
from mcpserver.protocol.inbound import Call
from remotes.upstream.envelope import Ask, Notify

STOPPING = "the gateway is shutting down"


class Level(msgspec.Struct):
    level: str = ""


_level = msgspec.json.Decoder(Level)


async def serve(
    runtime: Runtime,
    principal: Principal,
    call: Call,
    notify: Notify,
    headers: inbound.Headers,
    *,
    transport: str,
    ask: Ask | None = None,
    session_id: str = "",
    subscriber: Subscriber | None = None,
) -> Served | Full:
    """Serve one request. Cancelling it cancels the remote's work and is logged as such."""
    monotonic = runtime.clock.monotonic
    began = monotonic()
    visit = Visit(call, principal, runtime.snapshot, _filtered(call, notify), headers, ask, session_id, subscriber)
    verdict, code, answer_bytes, has_slot, traced = Verdict.CANCELLED, 0, 0, False, None
    try:
        if principal.grant.is_limited and (full := await runtime.rates.take(principal)) is not None:
            raise TooOften(full)
        if (full := runtime.slots.requests.take(principal.key_id)) is not None:
            if (full := await _turn(runtime, visit, full)) is not None:
                metrics.REFUSED.labels("requests").inc()
                verdict, code = Verdict.REFUSED, codes.INTERNAL_ERROR
                return full
            visit.waited_s = monotonic() - began
        has_slot = True
        traced = runtime.tracing.request(call, headers) if runtime.tracing is not None else None
        served = await runtime.pipeline.serve(visit)
        verdict, code, answer_bytes = served.verdict, served.code, len(served.body)
        return served
    except TooOften as refused:
        metrics.REFUSED.labels("rate").inc()
        verdict, code = Verdict.REFUSED, codes.INTERNAL_ERROR
        return refused.full
    except Exception:
        verdict, code = Verdict.FAILED, codes.INTERNAL_ERROR
        raise
    finally:
        seconds = monotonic() - began
        if has_slot:
            runtime.slots.requests.give_back(principal.key_id, visit.remote)
            runtime.recent.note(call.method, visit.remote, verdict, seconds, visit.name)
        for errand in visit.errands:
            errand.notify = None
        if traced is not None:
            traced.end(visit, transport, verdict, code, access.current().id)
        runtime.record.tell(visit, transport, verdict, code, answer_bytes, seconds)


async def _turn(runtime: Runtime, visit: Visit, full: Full) -> Full | None:
    """A slot for a request over its key's limit, soon and within its own time; or why there is none."""
    remote, time_s = runtime.pipeline.time_for(visit)
    seconds = min(runtime.limits.slot_wait_s, time_s)
    return await runtime.slots.requests.wait(visit.principal.key_id, full, seconds, remote)


async def serve_posted(
    runtime: Runtime, principal: Principal, session: Session, call: Call, reply: Reply, headers: inbound.Headers
) -> Served | Full:
    """Serve one request that a session's client posted: it is told and asked on the stream of its own answer."""
    return await serve(
        runtime,
        principal,
        call,
        reply.notify,
        headers,
        transport="http",
        ask=asker(session, reply.request, runtime.limits.answer_wait_s, runtime.neighbours.own),
        session_id=session.id,
        subscriber=session.subscriber,
    )


def _filtered(call: Call, notify: Notify) -> Notify:
    """Log messages pass at or above the level that was asked for; a 2026-07-28 request that asked for none gets none."""
    wanted = call.log_level
    if wanted is None and not call.modern:
        return notify

    def hand_on(method: str, params: bytes | None) -> None:
        is_log = method == "notifications/message"
        if not is_log or (wanted is not None and versions.loud_enough(_level_of(params), wanted)):
            notify(method, params)

    return hand_on


def _level_of(params: bytes | None) -> str:
    try:
        return _level.decode(params or b"{}").level
    except jsonrpc.UNREADABLE:
        return ""


def no_slot(full: Full, id: bytes | None) -> Answer:
    """Why a request or stream finds no slot, in a body that no client mistakes for an older server's."""
    retry_after = (b"retry-after", b"%d" % full.retry_after_s)
    return Answer(full.status, jsonrpc.error(id, codes.INTERNAL_ERROR, full.message), (JSON, retry_after))


def answer_of(served: Served, status: int) -> Answer:
    """The answer as it travels; when to ask again stands in its header as well, for clients that are programs."""
    if served.retry_after_s:
        return Answer(status, served.body, (JSON, (b"retry-after", b"%d" % served.retry_after_s)))
    return Answer(status, served.body)


def stopping(call: Call) -> Answer:
    """The answer to what did not end within the grace of a shutdown."""
    return Answer(503, cut_short(call.id), (JSON, (b"retry-after", b"5")))


def cut_short(id: bytes, why: str = STOPPING) -> bytes:
    return jsonrpc.error(id, codes.INTERNAL_ERROR, why)


def internal_error(call: Call) -> Answer:
    return Answer(500, jsonrpc.error(call.id, codes.INTERNAL_ERROR, "the gateway failed; its log says more"))
