"""The answer to one POST: JSON, or an event stream from the moment that something must go out before the answer.

A request that ends quickly and tells nothing, which is nearly every one, costs two sends. One that takes longer is watched:
a client that leaves is noticed, and silence is broken by heartbeats, because intermediaries and clients give up on bodies
without bytes.
"""

import asyncio
import contextlib
from collections.abc import Callable

from gateway.endpoint.http import EVENT_STREAM, Answer, Header, Receive, Send, respond
from gateway.outbox import Outbox
from gateway.serving import ClientGone
from mcpserver.protocol import jsonrpc, sse

# A request older than this is worth a watcher.
_SLOW_S = 0.05


class Reply:
    def __init__(
        self, send: Send, receive: Receive, *, may_stream: bool, heartbeat_s: float, headers: tuple[Header, ...] = ()
    ) -> None:
        self.gone = False
        self.on_gone: Callable[[], None] = lambda: None
        self._send = send
        self._receive = receive
        self._may_stream = may_stream
        self._heartbeat_s = heartbeat_s
        self._headers = headers
        self._outbox: Outbox | None = None
        self._pump: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_SLOW_S, self._slow)

    def notify(self, method: str, params: bytes | None) -> None:
        """Send a notification ahead of the answer, if the client takes streams."""
        if self._may_stream and not self.gone:
            self._stream().put(sse.encode(jsonrpc.notification(method, params)))

    def request(self, message: bytes) -> bool:
        """Send a request of ours (or its withdrawal) ahead of the answer; False when it cannot reach the client."""
        if not self._may_stream or self.gone:
            return False
        self._stream().put_answer(sse.encode(message))
        return True

    async def finish(self, answer: Answer) -> None:
        """Send the answer; raises ClientGone."""
        self._timer.cancel()
        try:
            if self._pump is None or self._outbox is None:
                await respond(self._send, Answer(answer.status, answer.body, (*answer.headers, *self._headers)))
                return
            self._outbox.put_answer(sse.encode(answer.body))
            self._outbox.end()
            await self._pump
        finally:
            self._stop_watching()

    async def end(self) -> None:
        """End without an answer: the client cancelled."""
        self._timer.cancel()
        try:
            if self._pump is None or self._outbox is None:
                await respond(self._send, Answer(202, b"", self._headers))
                return
            self._outbox.end()
            await self._pump
        finally:
            self._stop_watching()

    async def abandon(self) -> None:
        """Nobody reads any more."""
        self._timer.cancel()
        self._stop_watching()
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientGone):
                await self._pump

    def _stream(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox()
            self._pump = asyncio.create_task(self._run(self._outbox))
        return self._outbox

    async def _run(self, outbox: Outbox) -> None:
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": [*EVENT_STREAM, *self._headers]})
            while (message := await outbox.get(self._heartbeat_s)) is not None:
                await self._send({"type": "http.response.body", "body": message or sse.HEARTBEAT, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientGone:
            self._left()

    def _slow(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Notice a client that leaves; break a long silence."""
        leaving = asyncio.ensure_future(self._leave())
        try:
            done, _ = await asyncio.wait([leaving], timeout=self._heartbeat_s)
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
            self.gone = True
            self.on_gone()

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
