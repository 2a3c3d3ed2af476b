"""Revision 2024-11-05's transport: answers and notifications come down one stream, everything else goes up as POSTs.

The handshake inside may settle on any handshake revision. The stream is the session: when it is lost, what was asked on it is
cancelled. Source: specification 2024-11-05, basic/transports "HTTP with SSE".
"""

import asyncio
import logging
import secrets

import msgspec

from gateway import access
from gateway.admission.slots import Full
from gateway.calls import Served
from gateway.endpoint import batch, stream
from gateway.endpoint.asker import answered, asker
from gateway.endpoint.http import Answer, Receive, Send, refused, respond
from gateway.endpoint.served import STOPPING, cut_short, no_slot, serve
from gateway.endpoint.streamable import initialized, notified, read_call
from gateway.runtime import Runtime, list_changed
from gateway.serving import ClientGone
from gateway.sessions.outbox import Outbox
from gateway.sessions.sessions import Ongoing, Session
from gateway.sessions.subscriptions import Subscriber
from keys.principal import Principal
from mcpserver.protocol import codes, jsonrpc, sse
from mcpserver.protocol.inbound import Call

log = logging.getLogger("mcp.endpoint")

# JSON-RPC has batches, and no revision before 2025-06-18 takes them out.
_BATCHES = ("2024-11-05", batch.REVISION)
_ACCEPTED = Answer(202, b"Accepted", ((b"content-type", b"text/plain"),))


class Line(msgspec.Struct, eq=False):
    """One open stream and the session on it."""

    id: str
    principal: Principal
    outbox: Outbox = msgspec.field(default_factory=Outbox)
    session: Session | None = None
    tasks: set[asyncio.Task[None]] = set()

    def told(self, kind: str) -> bytes | None:
        """The news that a list changed; nothing comes before the handshake (lifecycle)."""
        return sse.encode(list_changed(kind)) if self.session is not None else None


class LegacySse:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lines: dict[str, Line] = {}

    async def get(self, principal: Principal, receive: Receive, send: Send) -> None:
        slots = self._runtime.slots
        if (full := await slots.open_stream(principal)) is not None:
            await respond(send, no_slot(full, None))
            return
        line = Line(f"{self._runtime.neighbours.own}.{secrets.token_hex(16)}", principal)
        self._lines[line.id] = line
        outbox = line.outbox = self._runtime.open_stream(principal.key_id, line.told)
        # Relative: clients refuse another origin, and a proxy in front has a name that we do not know.
        first = sse.encode(f"/messages/?session_id={line.id}".encode(), name=b"endpoint")
        try:
            if await stream.run(outbox, send, receive, self._runtime.limits, first=first):
                last = stream.SHUTDOWN if self._runtime.draining else b""
                await stream.close(send, _unanswered(line, "this stream has ended: open a new one") + last)
        except ClientGone:
            log.debug("the client of an event stream left")
        except asyncio.CancelledError:  # the grace of a shutdown is over
            await stream.close(send, _unanswered(line, STOPPING) + stream.SHUTDOWN)
            raise
        finally:
            del self._lines[line.id]
            self._runtime.pool.end_session(line.id)
            if line.session is not None:
                self._runtime.subscriptions.close(line.session.subscriber)
            for task in list(line.tasks):
                task.cancel()
            self._runtime.close_stream(outbox)
            slots.close_stream(principal.key_id)

    async def post(self, principal: Principal, session_id: str, body: bytes, send: Send) -> None:
        line = self._lines.get(session_id)
        if line is None or line.principal.key_id != principal.key_id:
            await respond(send, refused(404, codes.INVALID_REQUEST, "this session does not exist: open /sse"))
            return
        line.principal = principal  # as it is now: what the key may use can change while the stream is open
        try:
            answer = self._take_all(line, body) if jsonrpc.is_batch(body) else self._take(line, jsonrpc.decode(body))
        except jsonrpc.Malformed as error:
            answer = refused(400, error.code, error.message, id=error.id)
        await respond(send, answer)

    def _take(self, line: Line, message: jsonrpc.Message) -> Answer:
        if isinstance(message, jsonrpc.Request):
            return self._requested(line, message)
        if line.session is not None:
            if isinstance(message, jsonrpc.Notification):
                notified(self._runtime, line.session, message)
            else:
                answered(line.session, message)
        return _ACCEPTED

    def _take_all(self, line: Line, body: bytes) -> Answer:
        """A batch, where the revision has them; what is wrong with one of its requests comes down the stream like an answer."""
        if line.session is None or line.session.revision not in _BATCHES:
            return batch.not_taken("this session")
        for message in batch.read(body):
            answer = self._take(line, message)
            if answer.status != _ACCEPTED.status:
                line.outbox.put_answer(sse.encode(answer.body))
        return _ACCEPTED

    def _requested(self, line: Line, message: jsonrpc.Request) -> Answer:
        if line.outbox.is_full:
            full = Full(429, 1, "this client does not read its stream")
            return no_slot(full, message.id)
        if message.method == "initialize":
            revision, capabilities, body = initialized(self._runtime, line.principal, message)
            line.session = self._opened(line, revision, capabilities)
            line.outbox.put_answer(sse.encode(body))
            return _ACCEPTED
        if line.session is None:
            # Down the stream, where its client looks: one that first asks for another era takes a status for the end.
            early = jsonrpc.error(message.id, codes.INVALID_REQUEST, "send initialize first")
            line.outbox.put_answer(sse.encode(early))
            return _ACCEPTED
        if message.id in line.session.open_calls:
            return refused(400, codes.INVALID_REQUEST, "a request with this id is under way", id=message.id)
        call = read_call(line.session, message)
        if isinstance(call, bytes):
            line.outbox.put_answer(sse.encode(call))
        else:
            self._start(line, line.session, call)
        return _ACCEPTED

    def _opened(self, line: Line, revision: str, capabilities: bytes) -> Session:
        if line.session is not None:
            self._runtime.subscriptions.close(line.session.subscriber)
        session = self._runtime.sessions.unlisted(line.principal, revision, capabilities)
        session.id = line.id  # whose upstream sessions they are

        def put(message: bytes) -> bool:
            return line.outbox.put(sse.encode(message))

        session.hears = Subscriber(session.key_id, put, lambda: True)
        return session

    def _start(self, line: Line, session: Session, call: Call) -> None:
        access.current().is_told = True  # when it is served, which is after this request's end
        task = asyncio.create_task(self._serve(line, session, call))
        ongoing = session.open_calls[call.id] = Ongoing(task)
        line.tasks.add(task)
        line.outbox.promise()
        # Here and not inside: a task that is cancelled before its first step never gets to its own `finally`.
        task.add_done_callback(lambda done: session.forget(call.id, ongoing))
        task.add_done_callback(lambda done: line.outbox.settle())
        task.add_done_callback(line.tasks.discard)

    async def _serve(self, line: Line, session: Session, call: Call) -> None:
        """Serve one request; its answer goes down the stream."""

        def notify(method: str, params: bytes | None) -> None:
            line.outbox.put(sse.encode(jsonrpc.notification(method, params)))

        def put(message: bytes) -> bool:
            line.outbox.put_answer(sse.encode(message))
            return not line.outbox.ended

        try:
            served = await serve(
                self._runtime,
                line.principal,
                call,
                notify,
                {},
                transport="sse",
                ask=asker(session, put, self._runtime.limits.answer_wait_s, self._runtime.neighbours.own),
                session_id=line.id,
                subscriber=session.subscriber,
            )
            held = served.held if isinstance(served, Served) else None
            line.outbox.put_answer(sse.encode(_body(call, served)), held)
        except Exception:
            log.exception("serving %s failed", call.method)
            why = "the gateway failed; its log says more"
            line.outbox.put_answer(sse.encode(jsonrpc.error(call.id, codes.INTERNAL_ERROR, why)))


def _unanswered(line: Line, why: str) -> bytes:
    """What is open on the stream gets its answer all the same."""
    ids = line.session.open_calls if line.session is not None else ()
    return b"".join(sse.encode(cut_short(id, why)) for id in ids)


def _body(call: Call, served: Served | Full) -> bytes:
    if isinstance(served, Full):
        return jsonrpc.error(call.id, codes.INTERNAL_ERROR, served.message)
    return served.body
