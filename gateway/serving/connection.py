"""One client connection: Twisted's HTTP channel with total deadlines and refusals that reach the client.

Stock Twisted waits for ever for a client that drips, and closes without a word where it refuses. It never decides here how
long is too long (`rules`), and knows nothing of applications (`request`).
"""
# mypy: disallow-untyped-calls=False
# (Twisted's channel has no annotations.)

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from gateway import access
from gateway.serving.rules import (
    FULL,
    HEAD_TOO_LARGE,
    TLS,
    TOO_SLOW,
    Phase,
    Refusal,
    Verdict,
    bad_request,
    too_large,
)

if TYPE_CHECKING:
    from gateway.serving.server import Server

# Of what a refused client asked for.
_TOLD_MAX = 256


_TLS_HANDSHAKE = b"\x16\x03"
_FOLDS = (b" ", b"\t")


class Transport(tcp.Server):
    """Notices a reset that arrives together with data.

    uvloop reports a socket's error once, and stops watching it. Twisted then reads the data, and would never come to read
    the error: the connection and its request would stay for ever.
    """

    def doRead(self) -> Any:
        ended = super().doRead()
        if ended is None and self.connected and self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return main.CONNECTION_LOST
        return ended


class Connection(HTTPChannel):
    # Twisted's own idle timer stays off: every byte would reset it, so a drip would keep the connection for ever.
    timeOut = None
    transport: Any
    _networkProducer: Any

    def __init__(self, server: "Server", *, is_told_full: bool = False) -> None:
        super().__init__()
        self.server = server
        self._is_told_full = is_told_full
        self.phase = Phase.NEW
        self.since = time.monotonic()
        self._writable: asyncio.Future[None] | None = None
        self._dropped_bytes = 0
        self._ahead_bytes = 0

    # Phases.

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = time.monotonic()

    def connectionMade(self) -> None:
        self.server.room.enter(self, is_told_full=self._is_told_full)
        super().connectionMade()
        if self._is_told_full:
            self.refuse(FULL)

    def dataReceived(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        elif self.phase is Phase.NEW:
            self._enter(Phase.HEAD)
            if data.startswith(_TLS_HANDSHAKE):
                self.refuse(TLS)
                return
        try:
            super().dataReceived(data)
        except ValueError:
            # A Content-Length of thousands of digits is more than int() takes.
            self.refuse(bad_request())

    def lineReceived(self, line: bytes, /) -> None:
        # A header folded over two lines is read differently by different proxies: that is where requests are smuggled.
        if line[:1] in _FOLDS:
            self.refuse(bad_request())
        else:
            super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > self.server.limits.max_request_size:
            # Before `100 Continue`, which would invite the body.
            self.refuse(too_large(self.server.limits.max_request_size))
        elif self._has_odd_framing():
            self.refuse(bad_request("unsupported Transfer-Encoding"))
        else:
            if self.length != 0:
                self._enter(Phase.BODY)
            super().allHeadersReceived()

    def _has_odd_framing(self) -> bool:
        """Proxies disagree about `identity` and about chunks in HTTP/1.0: that is where requests are smuggled."""
        encodings = self.requests[-1].requestHeaders.getRawHeaders(b"transfer-encoding")
        return encodings is not None and (self.length is not None or len(encodings) > 1 or self._version != b"HTTP/1.1")

    def rawDataReceived(self, data: bytes, /) -> None:
        if not self._handlingRequest:
            super().rawDataReceived(data)
            return
        self._dataBuffer.append(data)
        self._came_ahead(data)

    def _finishRequestBody(self, data: bytes, /) -> None:
        self._came_ahead(data)
        super()._finishRequestBody(data)

    def _came_ahead(self, data: bytes) -> None:
        """Requests wait for their turn, most of them with the kernel: Twisted would read on with every answer that it gives,
        and without end while the client does not read them."""
        self._ahead_bytes += len(data)
        if self._ahead_bytes > self._optimisticEagerReadSize:
            self._networkProducer.pauseProducing()

    def allContentReceived(self) -> None:
        if self.phase is Phase.REFUSED:
            return
        self._enter(Phase.ANSWERING)
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        # First, as what follows may already read the next pipelined request.
        self._enter(Phase.IDLE)
        self._ahead_bytes = 0
        super().requestDone(request)

    def loseConnection(self) -> None:
        self._enter(Phase.CLOSING)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._wake_writers()
        self.server.forget_connection(self)

    # Deadlines.

    def obey(self, verdict: Verdict) -> None:
        match verdict:
            case Verdict.CLOSE:
                self.loseConnection()
            case Verdict.REFUSE:
                self.refuse(TOO_SLOW)
            case Verdict.ABORT:
                self.abort()

    def give_way(self) -> None:
        """Make room for another: a goodbye where nothing is on its way, and no answer that would be waited for."""
        if self.phase is Phase.NEW or self.phase is Phase.IDLE:
            self.loseConnection()
        else:
            self.abort()

    def abort(self) -> None:
        """End it now, with whatever is unsent. `connectionLost` follows on a later turn of the loop."""
        self.transport.abortConnection()

    # Refusals: answer, half-close, go on reading for a while. A client that writes first and reads later (Node) would
    # otherwise meet a reset instead of the answer.

    def refuse(self, refusal: Refusal) -> None:
        if self.phase is Phase.REFUSED or self.phase is Phase.CLOSING:
            return
        self._enter(Phase.REFUSED)
        self.persistent = False
        self.clearLineBuffer()
        # A parser further up the stack may hold more of the same bytes: they go nowhere. (Instance attributes, so that a
        # plain request pays nothing for this.)
        self.dataReceived = self._drop  # type: ignore[method-assign]
        self.lineReceived = self.rawDataReceived = _ignore  # type: ignore[method-assign]
        # As long as it is registered, Twisted keeps the half-close back for what a producer might still write.
        self._networkProducer.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.write(refusal.closing_answer(self._told(refusal)))
        self.transport.loseWriteConnection()

    def _told(self, refusal: Refusal) -> str:
        """The line about it, and its id. About whoever connected: what a proxy says of others stands in headers."""
        path = getattr(self, "_path", b"").partition(b"?")[0]
        what = b"%b %b" % (getattr(self, "_command", b""), path) if path else b"no request"
        source = getattr(self.getPeer(), "host", "")
        return access.refused(what[:_TOLD_MAX].decode("latin-1"), source, refusal.status, refusal.message)

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > self.server.deadlines.refused_max_bytes:
            self.abort()

    def _respondToBadRequestAndDisconnect(self) -> None:
        large = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        self.refuse(HEAD_TOO_LARGE if large else bad_request())

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HEAD_TOO_LARGE)

    # Back-pressure.

    @property
    def is_blocked(self) -> bool:
        """More than Twisted's buffer (64 KiB) waits for the client to read."""
        return self._waitingForTransport

    @property
    def unsent_bytes(self) -> int:
        return len(self.transport.dataBuffer) + int(self.transport._tempDataLen)

    async def writable(self, timeout_s: float) -> bool:
        """Wait until all is written or the connection is gone; False when neither came in time."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()
        # `wait` leaves the future alone when this caller is cancelled: another may wait for it too.
        done, _ = await asyncio.wait((self._writable,), timeout=timeout_s)
        return bool(done)

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._wake_writers()

    def _wake_writers(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None:
            waiting.set_result(None)


def _ignore(data: bytes) -> None:
    """What arrives after a refusal and was already on its way through the parser."""
