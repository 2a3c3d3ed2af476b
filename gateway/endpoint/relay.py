"""Sending a request on to the worker whose memory it needs, and that worker's answer back, stream or not, as it comes.

The receiving worker asks for the key again and counts the request against its limits, as if it had come straight to it; so
nothing here is trusted, and nothing is counted twice. A request is sent on once between machines and once inside one.

Nothing here waits for ever: a worker that is silent for longer than its heartbeats allow is given up, and so is a machine that
vanished. A stream that is sent on ends with this worker too, in the same words as its own.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from gateway import access, metrics
from gateway.cluster.neighbours import Neighbours, Place
from gateway.endpoint.gate import RELAYED_FOR
from gateway.endpoint.http import Answer, Message, Receive, Scope, Send, refused, respond
from gateway.endpoint.stream import SHUTDOWN
from gateway.serving import ClientGone
from mcpserver.lib.control import Reachable
from mcpserver.lib.limits import Limits
from mcpserver.lib.sockets import notice_vanished_clients
from mcpserver.protocol import codes, inbound, jsonrpc, sse
from remotes.upstream.http1 import Connection, HttpError, Response, Unreachable

__all__ = ["Relay", "Unreachable", "is_settled"]

log = logging.getLogger("mcp.relay")

HOPS = b"mcp-relayed"
# Two machines that disagree about who lives where must not send a request to and fro.
_BETWEEN_MACHINES, _INSIDE = b"machine", b"worker"
_CONNECT_S = 2.0
# Beyond the heartbeats that are due: a worker that has so much to do that it cannot send them is stalled.
_STALLED_S = 10.0
_AT_ONCE_MAX = 256
_EVENT_STREAM = b"text/event-stream"
_GONE = "the worker that had this request went away: it may have been carried out"
_BUSY = "the worker that this session belongs to takes no requests at the moment"
_SILENT = "the worker that this session belongs to does not answer: the request may have been carried out"
# Of one connection (RFC 9110, 7.6.1), or made anew by whoever writes the message.
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length")
)
_OURS = frozenset((HOPS, RELAYED_FOR))


def is_settled(headers: inbound.Headers) -> bool:
    """Whether a request was sent here by one that knows that it belongs here."""
    return headers.get(HOPS) == _INSIDE


class Relay:
    def __init__(self, neighbours: Neighbours, limits: Callable[[], Limits]) -> None:
        self._neighbours = neighbours
        self._limits = limits
        self._passages: set[_Passage] = set()

    def place(self, scope: Scope, instance: str) -> Place | None:
        """Where a request for a worker is sent; None when it is served here: that is this one, or nobody can be sent to."""
        hops = _hops(scope)
        if hops == _INSIDE or instance == self._neighbours.own:
            return None
        place = self._neighbours.find(instance)
        return None if place is not None and place.url and hops else place

    async def forward(self, place: Place, scope: Scope, body: bytes | None, receive: Receive, send: Send) -> None:
        """Send a request on; raises Unreachable when it provably did not get there."""
        if len(self._passages) >= _AT_ONCE_MAX:
            await respond(send, _unavailable("busy", body))
            return
        passage = _Passage(place, scope, body, send, self._silence_s(scope))
        self._passages.add(passage)
        passage.task = asyncio.ensure_future(passage.run())
        leaving = asyncio.ensure_future(_client_leaves(receive))
        try:
            await asyncio.wait({passage.task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if passage.task.done():
                await passage.end()
        except Unreachable:
            self._neighbours.forget(place)
            raise
        finally:
            self._passages.discard(passage)
            for task in (passage.task, leaving):
                task.cancel()
            await asyncio.gather(passage.task, leaving, return_exceptions=True)

    def leave(self) -> None:
        """This worker stops: streams that run through it end, like its own. Requests run on."""
        for passage in list(self._passages):
            passage.leave()

    def _silence_s(self, scope: Scope) -> float:
        """How long an answer, or the next piece of it, may take. Who takes no stream is sent no heartbeats."""
        limits = self._limits()
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        is_kept_alive = _EVENT_STREAM in accept or b"*/*" in accept
        return 2 * limits.heartbeat_s + _STALLED_S if is_kept_alive else limits.connection_timeout_s


class _Passage:
    """One request on its way, and its answer back."""

    task: "asyncio.Task[None]"

    def __init__(self, place: Place, scope: Scope, body: bytes | None, send: Send, silence_s: float) -> None:
        self._place = place
        self._scope = scope
        self._body = body
        self._send = send
        self._silence_s = silence_s
        self._begun = False
        self._is_stream = False
        self._is_between_events = True
        self._is_leaving = False

    async def run(self) -> None:
        connection = await _connected(self._place)
        try:
            async with asyncio.timeout(self._silence_s):
                response = await connection.exchange(_request(self._place, self._scope, self._body))
            metrics.RELAYED.labels("worker" if self._place.path else "machine").inc()
            await self._pass_on(response)
        finally:
            connection.abort()

    def leave(self) -> None:
        """End the stream between two of its events."""
        self._is_leaving = self._scope["method"] == "GET"
        if self._is_leaving and self._is_between_events:
            self.task.cancel()

    async def end(self) -> None:
        """After `run`: tell the client what there was no answer to tell it with. Raises Unreachable, ClientGone."""
        try:
            await self.task
        except Unreachable:
            raise
        except _Busy:
            await respond(self._send, _unavailable(_BUSY, self._body))
        except TimeoutError:
            await self._broken_off(504, _SILENT)
        except HttpError as error:
            log.warning("a worker went away with a request that was sent on to it: the connection %s", error)
            await self._broken_off(502, _GONE)
        except asyncio.CancelledError:
            if not self._is_leaving:
                raise
            await self._finish(SHUTDOWN)
        else:
            if self._is_leaving and self._is_stream:
                await self._finish(SHUTDOWN)

    async def _pass_on(self, response: Response) -> None:
        _told_elsewhere(response.headers.pop(access.HEADER, b""))
        headers = [(name, value) for name, value in response.headers.items() if name not in _HOP_BY_HOP]
        if b"content-length" in response.headers and response.status != 204:
            headers.append((b"content-length", response.headers[b"content-length"]))
        self._is_stream = response.media_type == _EVENT_STREAM
        self._begun = True
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        while piece := await self._next(response):
            self._is_between_events = piece.endswith(b"\n\n")
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if self._is_leaving and self._is_between_events:
                return
        self._is_leaving = False
        await self._send(_last(b""))

    async def _next(self, response: Response) -> bytes:
        async with asyncio.timeout(self._silence_s):
            return await response.take()

    async def _broken_off(self, status: int, why: str) -> None:
        """Half a document can only be cut off. A stream that belongs to requests says what became of them, and any other one
        ends: its client comes back."""
        about = access.current()
        about.is_told, about.status = False, status  # who served it is not there any more to tell
        if not self._begun:
            await respond(self._send, refused(status, codes.INTERNAL_ERROR, why, id=next(iter(_ids(self._body)), None)))
        elif not self._is_stream:
            raise ClientGone
        else:
            errors = (jsonrpc.error(id, codes.INTERNAL_ERROR, why) for id in _ids(self._body))
            await self._finish(b"".join(map(sse.encode, errors)))

    async def _finish(self, words: bytes) -> None:
        if not self._begun:
            await respond(self._send, _unavailable("the gateway is shutting down", self._body))
        elif self._is_between_events:
            await self._send(_last(words))
        else:
            raise ClientGone  # an event without its end can only be cut off


class _Busy(Exception):
    """There is somebody, who has no time to open."""


class _Once:
    """Each request has a connection of its own: that costs less than looking after warm ones would."""

    def free(self, connection: Connection) -> None:
        connection.close()

    def gone(self, connection: Connection) -> None:
        pass


async def _connected(place: Place) -> Connection:
    """Raises Unreachable: nobody is there."""
    loop = asyncio.get_running_loop()
    try:
        peer = _opened(place.path) if place.path else await _reached(loop, place.url)
    except (OSError, TimeoutError) as error:
        raise Unreachable("tcp", type(error).__name__) from None
    make = loop.create_unix_connection if place.path else loop.create_connection
    _, connection = await make(partial(Connection, _Once(), peer), sock=peer)
    return connection


def _opened(path: str) -> socket.socket:
    """A unix socket is connected at once or not at all; a full queue says that somebody is there."""
    peer = socket.socket(socket.AF_UNIX)
    peer.setblocking(False)
    try:
        with Reachable(Path(path)) as address:
            peer.connect(address)
    except BlockingIOError:
        peer.close()
        raise _Busy from None
    except BaseException:
        peer.close()
        raise
    return peer


async def _reached(loop: asyncio.AbstractEventLoop, url: str) -> socket.socket:
    parts = urlsplit(url)
    peer = socket.socket(socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET)
    peer.setblocking(False)
    try:
        notice_vanished_clients(peer)
        async with asyncio.timeout(_CONNECT_S):
            await loop.sock_connect(peer, (parts.hostname, parts.port))
    except BaseException:
        peer.close()
        raise
    return peer


def _request(place: Place, scope: Scope, body: bytes | None) -> bytes:
    query = scope["query_string"]
    target = scope["path"].encode() + (b"?" + query if query else b"")
    lines = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP and name not in _OURS]
    lines += [(HOPS, _INSIDE if place.path else _BETWEEN_MACHINES), (b"connection", b"close")]
    if place.path:
        lines.append((RELAYED_FOR, access.current().source.encode("latin-1", "replace")))
    if body is not None:
        lines.append((b"content-length", b"%d" % len(body)))
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (scope["method"].encode(), target, head, body or b"")


def _hops(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == HOPS), b"")


def _ids(body: bytes | None) -> list[bytes]:
    """Of the requests in a body; told only when nobody else can answer them any more."""
    try:
        body = body or b""
        messages = jsonrpc.decode_batch(body, len(body)) if jsonrpc.is_batch(body) else [jsonrpc.decode(body)]
    except jsonrpc.Malformed:
        return []
    return [message.id for message in messages if isinstance(message, jsonrpc.Request)]


def _unavailable(why: str, body: bytes | None) -> Answer:
    id = next(iter(_ids(body)), None)
    return refused(503, codes.INTERNAL_ERROR, why, id=id, headers=((b"retry-after", b"1"),))


def _last(words: bytes) -> Message:
    return {"type": "http.response.body", "body": words, "more_body": False}


def _told_elsewhere(id: bytes) -> None:
    """The worker that served it has told of it, under its own id, which the client gets too."""
    about = access.current()
    about.is_told = True
    about.id = id.decode("latin-1") or about.id


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
