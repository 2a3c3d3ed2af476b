"""The answer to one POST: JSON, or an event stream from the moment that something must go out before the answer.

A request that ends quickly and tells nothing, which is nearly every one, costs two sends. One that takes longer is watched:
a client that leaves is noticed, and silence is broken by heartbeats, because intermediaries and clients give up on bodies
without bytes.

The stream of a session's request leaves a trail: its client may lose the connection and read on over another.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from gateway import access
from gateway.endpoint.http import EVENT_STREAM, Answer, Header, Receive, Send, respond
from gateway.endpoint.young import TICK_S, Young
from gateway.serving import ClientGone
from gateway.sessions.outbox import Outbox
from gateway.sessions.resumption import Trail
from mcpserver.protocol import jsonrpc, sse

_young = Young()


class Reply:
    def __init__(
        self,
        send: Send,
        receive: Receive,
        *,
        may_stream: bool,
        heartbeat_s: float,
        headers: Callable[[], tuple[Header, ...]] = tuple,
        open_trail: Callable[[], Trail] | None = None,
    ) -> None:
        self.gone = False
        self.on_gone: Callable[[], None] = lambda: None
        self._send = send
        self._receive = receive
        self._may_stream = may_stream
        self._heartbeat_s = heartbeat_s
        self._headers = headers
        self._open_trail = open_trail
        self._trail: Trail | None = None
        self._outbox: Outbox | None = None
        self._pump: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._about = access.current()
        _young.add(self)

    def notify(self, method: str, params: bytes | None) -> None:
        """Send a notification ahead of the answer, if the client takes streams."""
        if self._is_reachable:
            self._put(jsonrpc.notification(method, params), must_arrive=False)

    def request(self, message: bytes) -> bool:
        """Send a request of ours (or its withdrawal) ahead of the answer; False when it cannot reach the client."""
        if self._is_reachable:
            self._put(message, must_arrive=True)
        return self._is_reachable

    def answer_early(self, body: bytes) -> bool:
        """Send one of several answers ahead of the last; False when there is no stream yet, and it must wait for the others."""
        if self._outbox is None or not self._is_reachable:
            return False
        self._put(body, must_arrive=True)
        return True

    async def finish(self, answer: Answer) -> None:
        """Send the answer; raises ClientGone."""
        await self._finish(answer, (answer.body,))

    async def finish_batch(self, bodies: Sequence[bytes]) -> None:
        """Send the answers that did not go out early; raises ClientGone. There may be none: all were cancelled."""
        await self._finish(Answer(200, b"[" + b",".join(bodies) + b"]") if bodies else Answer(202, b"", ()), bodies)

    async def end(self) -> None:
        """End without an answer: the client cancelled. Nothing is left to come back for."""
        if self._trail is not None:
            self._trail.withdraw()
        await self._finish(Answer(202, b"", ()), ())

    async def abandon(self) -> None:
        """Nobody reads any more."""
        _young.discard(self)
        self._stop_watching()
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientGone):
                await self._pump

    @property
    def _is_reachable(self) -> bool:
        """Whether the client reads, or has what it needs to come back and read."""
        if not self.gone:
            return self._may_stream
        return self._trail is not None and not self._trail.is_deserted

    async def _finish(self, answer: Answer, messages: Sequence[bytes]) -> None:
        _young.discard(self)
        try:
            if self._pump is None or self._outbox is None:
                if more := self._headers():
                    answer = Answer(answer.status, answer.body, (*answer.headers, *more))
                await respond(self._send, answer)
                return
            for message in messages:
                self._put(message, must_arrive=True)
            (self._trail or self._outbox).end()
            await self._pump
        finally:
            self._stop_watching()

    def _put(self, message: bytes, *, must_arrive: bool) -> None:
        stream = self._stream()
        if self._trail is not None:
            put = self._trail.put_answer if must_arrive else self._trail.put
            put(message)
        else:
            put = stream.put_answer if must_arrive else stream.put
            put(sse.encode(message))

    def _stream(self) -> Outbox:
        if self._outbox is None:
            self._outbox = self._followed() if self._open_trail is not None else Outbox()
            self._pump = asyncio.create_task(self._run(self._outbox))
        return self._outbox

    def _followed(self) -> Outbox:
        assert self._open_trail is not None
        self._trail = self._open_trail()
        outbox = self._trail.follow()
        if self._trail.opening:
            outbox.put_answer(self._trail.opening)
        return outbox

    async def _run(self, outbox: Outbox) -> None:
        try:
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": [*EVENT_STREAM, *self._headers()]}
            )
            while (message := await outbox.get(self._heartbeat_s)) is not None:
                await self._send({"type": "http.response.body", "body": message or sse.HEARTBEAT, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientGone:
            self._left()

    def grown_old(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Notice a client that leaves; break a long silence."""
        leaving = asyncio.ensure_future(self._leave())
        try:
            # Silence counts from the request's first moment, which is two ticks ago at the most.
            done, _ = await asyncio.wait([leaving], timeout=max(0.0, self._heartbeat_s - 2 * TICK_S))
            if not done and self._may_stream:
                self._stream()
            await leaving
        finally:
            leaving.cancel()

    async def _leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self._left()

    def _left(self) -> None:
        if not self.gone:
            self.gone = self._about.is_gone = True
            if self._trail is not None and self._outbox is not None:
                self._trail.leave(self._outbox)
                self._outbox.end()
            self.on_gone()

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
