"""One request and its application: the body under its cap in memory, awaited writes, an end that is noticed at once.

Daphne stores any body before the application runs, writes without asking whether the client reads, and answers for a broken
application up to a second later. The scope and its checks stay Daphne's.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from daphne.http_protocol import WebRequest
from twisted.web.http import _MalformedChunkedDataError

from gateway import access
from gateway.serving.lifecycle import ClientGone
from gateway.serving.rules import (
    FAILED,
    PIECES_MAX,
    SLICE_BYTES,
    STOPPING,
    TOO_MANY_PIECES,
    Refusal,
    bad_request,
    origin_form,
    slices,
    too_large,
)

if TYPE_CHECKING:
    from gateway.serving.connection import Connection
    from gateway.serving.server import Server

log = logging.getLogger(__name__)

Message = dict[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_DISCONNECT = {"type": "http.disconnect"}


class Inbox:
    """What the application receives: its body, then the disconnect, as often as it asks. Lighter than a queue."""

    __slots__ = ("_ended", "_messages", "_waiting")

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        self._ended = False

    def put_nowait(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._ended = True
        else:
            self._messages.append(message)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def get(self) -> Message:
        while not self._messages:
            if self._ended:
                return dict(_DISCONNECT)
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        return self._messages.popleft()


class Request(WebRequest):  # type: ignore[misc]
    channel: "Connection"
    server: "Server"
    task: asyncio.Task[None]
    _response_started: bool
    _pieces = 0
    uri: bytes
    path: bytes

    def __init__(self, channel: "Connection", queued: object) -> None:
        # Forms are not ours: parsing them costs more than the rest of Twisted's work for a request.
        super().__init__(channel, queued, parsePOSTFormSubmission=False)

    # In.

    def gotLength(self, length: int | None) -> None:
        # In memory, whatever its length: the cap is known, and a full disk must not break requests.
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        limit = self.server.limits.max_request_size
        self._pieces += 1
        if self.content.tell() + len(data) > limit:
            self._refuse_body(too_large(limit))
        elif self._pieces > PIECES_MAX:
            self._refuse_body(TOO_MANY_PIECES)
        else:
            self.content.write(data)

    def _refuse_body(self, refusal: Refusal) -> None:
        self.content = BytesIO()
        self.channel.refuse(refusal)
        raise _MalformedChunkedDataError  # or what was received with it would be taken apart to its end, for nobody

    def process(self) -> Any:
        # The first would let a client set the root path, the second would reach Daphne's websockets.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        self.requestHeaders.removeHeader(b"upgrade")
        if not self.uri.startswith(b"/") and not self._understands_target():
            self.channel.refuse(bad_request("the request's target cannot be served here"))
            return None
        return super().process()

    def _understands_target(self) -> bool:
        target = origin_form(self.method, self.uri, self.requestHeaders.getRawHeaders(b"host", []))
        if target is None:
            return False
        self.uri = target
        self.path = target.partition(b"?")[0]
        return True

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """Daphne's word for a request that it will not pass on."""
        self.channel.refuse(bad_request(body) if status < 500 else FAILED)

    # Out.

    @property
    def is_over(self) -> bool:
        return bool(self.finished or self._disconnected)

    async def run(self, application: Application, scope: Message, inbox: Inbox) -> None:
        """The application from its first step to its end, whatever the end is."""
        try:
            await application(scope, inbox.get, self.send)
            if not self.is_over:
                log.error("the application ended without an answer on %s %s", scope["method"], scope["path"])
        except ClientGone:
            pass
        except asyncio.CancelledError:
            self._make_up_for(STOPPING if self.server.is_draining else FAILED, scope)
            return
        except Exception:
            log.exception("the application failed on %s %s", scope["method"], scope["path"])
        finally:
            self.server.forget_request(self)
        self._make_up_for(FAILED, scope)

    def _make_up_for(self, refusal: Refusal, scope: Message) -> None:
        """Answer in the application's place; where it had begun to, only an early end can tell the client."""
        if self.is_over:
            return
        if self._response_started:
            self.channel.loseConnection()
            return
        headers = refusal.headers
        if id := scope.get("request_id"):
            headers.append((access.HEADER, id.encode()))
        self._begin({"status": refusal.status, "headers": headers})
        self.write(refusal.body)
        self.finish()

    async def send(self, message: Message) -> None:
        if self._disconnected:
            raise ClientGone
        match message["type"]:
            case "http.response.start":
                self._begin(message)
            case "http.response.body":
                await self._continue(message.get("body", b""), more=message.get("more_body", False))
            case other:
                raise ValueError(f"cannot send {other!r} over HTTP")

    def _begin(self, message: Message) -> None:
        if self._response_started:
            raise ValueError("the response has already been started")
        self._response_started = True
        self.setResponseCode(message["status"])
        for name, value in message.get("headers", ()):
            self.responseHeaders.addRawHeader(name, value)
        if self.server.is_draining:
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])
            self.channel.persistent = False

    async def _continue(self, body: bytes, *, more: bool) -> None:
        if not self._response_started or self.finished:
            raise ValueError("a body without a response that is open")
        if len(body) <= SLICE_BYTES and not self.channel.is_blocked:
            self.write(body)
        else:
            for part in slices(body):
                await self._until_writable()
                self.write(part)
            # The end is announced only when the rest is on its way: a finished request has nobody to call back.
            await self._until_writable()
        if not more:
            self.finish()

    async def _until_writable(self) -> None:
        while not self._disconnected and self.channel.is_blocked:
            if not await self.channel.writable(self.server.limits.stale_s):
                log.info("cut off a client that read nothing for %g s", self.server.limits.stale_s)
                self.channel.abort()
                raise ClientGone
        if self._disconnected:
            raise ClientGone
