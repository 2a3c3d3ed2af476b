"""One HTTP/1.1 connection to a remote: one request at a time, and its answer as it comes in.

Answers never mix: a connection serves again only after an answer that was complete, said where it ends and left nothing behind;
everything else closes it. A caller that leaves before the end closes it too, which is how a remote learns of it. Never follows a
redirect, never keeps a cookie, never sends a request twice. Where connections come from is told in `origin`.

Bytes wait here up to a bound, then the remote has to wait; what is decompressed is counted where it is taken (`Response.take`).
"""

import asyncio
import socket
from typing import Protocol, cast

import httptools

from remotes.upstream.inflating import Inflating, NotInflatable

# Of one answer's head, and of anything else in it that is neither head nor body.
HEAD_MAX_BYTES = 64 * 1024
# What waits in an answer to be taken before the remote is made to wait.
_HELD_MAX_BYTES = 256 * 1024
# Answers before the answer, which may come unasked (RFC 9110, 15.2). 101 changes the protocol, and nobody proposed that.
_INTERIM = (100, 102, 103)
_COMPRESSED = (b"", b"identity")


class HttpError(Exception):
    """Why there is no answer, in words that hold no address."""


class Unreachable(HttpError):
    """There is no connection, so nothing was sent; `phase` is the step that failed: dns, tcp, tls or send."""

    def __init__(self, phase: str, words: str) -> None:
        super().__init__(words)
        self.phase = phase


class Short(Unreachable):
    """This machine has not what a connection takes: nothing is known of the remote."""


class Broken(HttpError):
    """The connection ended under a request that was sent, or may have been. Its words go on from "the connection"."""


class NotHttp(HttpError):
    """What came is no answer in HTTP/1."""


class TooLarge(HttpError):
    """The body grew past what its reader takes."""


class Flow(Protocol):
    """The connection, as far as an answer that comes on it is concerned."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Response:
    """One answer: its head, and its body piece by piece. `close` is owed to it, whether it was read to its end or not."""

    __slots__ = ("_error", "_flow", "_held", "_inflating", "_is_paused", "_waiting", "headers", "is_complete", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes], flow: Flow) -> None:
        self.status = status
        self.headers = headers
        self.is_complete = False
        self._flow = flow
        self._held: bytes | bytearray = b""
        self._error: HttpError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._is_paused = False
        encoding = headers.get(b"content-encoding", b"").lower()
        self._inflating = None if encoding in _COMPRESSED else Inflating(encoding)

    def header(self, name: bytes) -> str:
        """A header by its name in small letters; empty when it was not sent."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def media_type(self) -> bytes:
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

    async def take(self) -> bytes:
        """The next piece of the body, decompressed; empty at its end. All bytes of all answers pass here. Raises HttpError."""
        while True:
            if self._inflating is not None and (piece := self._inflated(b"")):
                return piece
            if self._held:
                held = self._all_held()
                if self._inflating is None:
                    return held
                if piece := self._inflated(held):
                    return piece
                continue
            if self._error is not None:
                # Another of its kind: one that is kept here would keep the frames that it passes through, and what they hold.
                raise type(self._error)(*self._error.args)
            if self.is_complete:
                if self._inflating is not None and not self._inflating.is_whole:
                    raise Broken("ended before its compressed body did")
                return b""
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    @property
    def is_taken(self) -> bool:
        """Whether nothing more of the body will come."""
        return self.is_complete and not self._held and self._inflating is None

    async def read(self, most: int) -> bytes:
        """The whole body; raises TooLarge as soon as it is more than `most` bytes."""
        whole = await self.take()
        if not self.is_taken:  # seldom: it came in several pieces
            parts = bytearray(whole)
            while len(parts) <= most and (piece := await self.take()):
                parts += piece
            whole = bytes(parts)
        if len(whole) > most:
            raise TooLarge(f"more than {most} bytes")
        return whole

    def close(self) -> None:
        """Nobody wants the rest: a connection on which more would come is of no further use."""
        if not self.is_complete:
            self._flow.abort()

    def _all_held(self) -> bytes:
        held, self._held = self._held, b""
        self.flow_on()
        return bytes(held)

    def _inflated(self, held: bytes) -> bytes:
        assert self._inflating is not None
        try:
            return self._inflating.take(held)
        except NotInflatable as error:
            raise NotHttp(str(error)) from None

    # What the connection tells.

    def came(self, data: bytes) -> None:
        if not self._held:
            self._held = data
            return
        if isinstance(self._held, bytes):
            self._held = bytearray(self._held)
        self._held += data
        if len(self._held) > _HELD_MAX_BYTES and not self._is_paused:
            self._is_paused = True
            self._flow.pause()

    def flow_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._flow.resume()

    def ended(self, error: HttpError | None) -> None:
        self.is_complete = error is None
        self._error = error
        self.stirred()

    def stirred(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class Keeper(Protocol):
    """Where a connection belongs."""

    def free(self, connection: "Connection") -> None:
        """It may be used again."""

    def gone(self, connection: "Connection") -> None:
        """It has ended."""


class Connection(asyncio.Protocol):
    """The callbacks of asyncio and of the parser meet here; the order of both is that of the bytes."""

    def __init__(self, keeper: Keeper, connected: socket.socket) -> None:
        self.idle_since = 0.0
        self._keeper = keeper
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        # As servers send it: line ends without CR, and spaces after the size of a chunk, are read by everybody.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._transport: asyncio.Transport
        self._waiting: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._error: HttpError | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._idle_bytes = 0
        self._has_moved = False
        self._is_reusable = False

    async def exchange(self, request: bytes) -> Response:
        """Send a whole request; its answer as soon as the head is there. Raises HttpError."""
        if not self.is_open:
            raise self._error if isinstance(self._error, NotHttp) else Unreachable("send", "it was closed at once")
        waiting: asyncio.Future[Response] = self._loop.create_future()
        self._waiting = waiting
        self._transport.write(request)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.cancelled() or not waiting.done():
                self.abort()
            elif waiting.exception() is None:
                waiting.result().close()
            raise

    @property
    def is_open(self) -> bool:
        return self._error is None and not self._transport.is_closing()

    @property
    def is_silent(self) -> bool:
        """Whether the kernel has nothing from the other side, not even the end that the loop has yet to see."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def abort(self) -> None:
        """End it now, whatever is under way."""
        self._fail(Broken("was closed on our side"))

    def close(self) -> None:
        """End it while nothing is under way."""
        self._transport.close()

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio's.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        if self._waiting is None and self._response is None:
            self._fail(NotHttp("it spoke without being asked"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._response is None or not self._response.is_complete:
                self._fail(_cause(error))
                return
            self._is_reusable = False
        self._account(len(data))
        response = self._response
        if response is None:
            return
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            response.stirred()
        elif not waiting.done():
            waiting.set_result(response)
        if response.is_complete:
            response.flow_on()  # the next answer on this connection does not wait for this one to be taken
            self._finish()

    def eof_received(self) -> None:
        """The other side is done, and so are we: `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        response = self._response
        if response is not None and exc is None and self._error is None and _ends_with_the_connection(response):
            self._response = None
            response.ended(None)
        self._fail(Broken(_ending(exc, begun=response is not None or self._idle_bytes > 0)))
        self._keeper.gone(self)

    # The parser's.

    def on_message_begin(self) -> None:
        if self._response is not None:
            self._is_reusable = False  # something follows the answer, and nobody asked for it

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_MAX_BYTES:
            raise NotHttp(f"its head is larger than {HEAD_MAX_BYTES} bytes")
        if self._response is None:  # else a trailer, which nothing in MCP needs
            name = name.lower()
            before = self._headers.get(name)
            self._headers[name] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._response is not None:
            return
        if status in _INTERIM:
            self._headers = {}
            return
        self._has_moved = True
        if not 200 <= status < 600:
            raise NotHttp(f"status {status}")
        if self._headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise NotHttp("an unknown Transfer-Encoding")
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise NotHttp("an unknown version of HTTP")
        try:
            self._response = Response(status, self._headers, self)
        except NotInflatable as error:
            raise NotHttp(str(error)) from None
        self._headers = {}

    def on_body(self, data: bytes) -> None:
        self._has_moved = True
        if self._response is not None and not self._response.is_complete:
            self._response.came(data)

    def on_message_complete(self) -> None:
        response = self._response
        if response is not None and not response.is_complete:
            self._is_reusable = self._parser.should_keep_alive()
            response.is_complete = True

    # Ends.

    def _account(self, fed: int) -> None:
        """Heads, trailers and chunk extensions that never end are fed to the parser only up to the bound."""
        self._idle_bytes = 0 if self._has_moved else self._idle_bytes + fed
        self._has_moved = False
        if self._idle_bytes > HEAD_MAX_BYTES:
            self._fail(NotHttp(f"its head is larger than {HEAD_MAX_BYTES} bytes"))

    def _finish(self) -> None:
        """The answer is complete: the connection serves again, or ends."""
        self._response = None
        self._head_bytes = self._idle_bytes = 0
        if self._is_reusable and self._transport.get_write_buffer_size() == 0 and not self._transport.is_closing():
            self._is_reusable = False
            self._keeper.free(self)
        else:
            self._transport.close()

    def _fail(self, error: HttpError) -> None:
        self._error = self._error or error
        waiting, self._waiting = self._waiting, None
        response, self._response = self._response, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(self._error)
        if response is not None and not response.is_complete:
            response.ended(self._error)
        self._transport.abort()


def _cause(error: Exception) -> HttpError:
    """What the parser stumbled over: the other side's fault, or one that a callback of ours found."""
    if not isinstance(error, httptools.HttpParserCallbackError):
        return NotHttp(str(error))
    if isinstance(error.__context__, HttpError):
        return error.__context__
    raise error


def _ending(exc: Exception | None, *, begun: bool) -> str:
    how = "was reset" if exc is not None else "ended"
    return f"{how} in the middle of an answer" if begun else f"{how} without a byte of an answer"


def _ends_with_the_connection(response: Response) -> bool:
    return b"content-length" not in response.headers and b"transfer-encoding" not in response.headers
