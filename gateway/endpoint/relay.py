"""Sending a request on to the worker whose memory it needs, and that worker's answer back, stream or not, as it comes.

The receiving worker asks for the key again and counts the request against its limits, as if it had come straight to it; so
nothing here is trusted, and nothing is counted twice. A request is sent on once between machines and once inside one.
"""

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from gateway import metrics
from gateway.endpoint.http import Receive, Scope, Send, refused, respond
from gateway.neighbours import Neighbours, Place
from mcpserver.lib.control import Reachable
from mcpserver.protocol import codes
from remotes.upstream.http1 import Connection, HttpError, Response, Unreachable

__all__ = ["Relay", "Unreachable"]

log = logging.getLogger("mcp.relay")

HOPS = b"mcp-relayed"
# Two machines that disagree about who lives where must not send a request to and fro.
_BETWEEN_MACHINES, _INSIDE = b"machine", b"worker"
_CONNECT_S = 2.0
_AT_ONCE_MAX = 256
# Of one connection (RFC 9110, 7.6.1), or made anew by whoever writes the message.
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", HOPS)
)


class Relay:
    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._open = 0

    def wanted(self, scope: Scope, owner: str, key: str, *, settled: bool) -> Place | None:
        """Where a request of `owner` belongs; None when it is served here.

        `key` is what the owner's worker is succeeded by, if it is gone. `settled`: only the owner can do anything with it (an
        answer to its question, the rest of its stream), so it goes there even while that one is leaving.
        """
        hops = next((value for name, value in scope["headers"] if name == HOPS), b"")
        if hops == _INSIDE or owner == self._neighbours.own:
            return None
        place = self._neighbours.find(owner)
        if place is None or (place.is_leaving and not settled):
            place = None if settled else self._neighbours.heir(key)
        return None if place is not None and place.url and hops else place

    async def forward(self, place: Place, scope: Scope, body: bytes | None, receive: Receive, send: Send) -> None:
        """Send a request on; raises Unreachable when it provably did not get there."""
        if self._open >= _AT_ONCE_MAX:
            await respond(send, refused(503, codes.INTERNAL_ERROR, "busy", headers=((b"retry-after", b"1"),)))
            return
        self._open += 1
        exchange = asyncio.ensure_future(self._exchange(place, scope, body, send))
        leaving = asyncio.ensure_future(_client_leaves(receive))
        try:
            await asyncio.wait({exchange, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if exchange.done():
                exchange.result()
        finally:
            self._open -= 1
            for task in (exchange, leaving):
                task.cancel()
            await asyncio.gather(exchange, leaving, return_exceptions=True)

    async def _exchange(self, place: Place, scope: Scope, body: bytes | None, send: Send) -> None:
        try:
            connection = await _connected(place)
        except (OSError, TimeoutError) as error:
            self._neighbours.forget(place)
            raise Unreachable("tcp", type(error).__name__) from None
        try:
            response = await connection.exchange(_request(place, scope, body))
            metrics.RELAYED.labels("worker" if place.path else "machine").inc()
            await _pass_on(response, send)
        except Unreachable:
            self._neighbours.forget(place)
            raise
        except HttpError as error:
            log.warning("a worker went away with a request that was sent on to it: the connection %s", error)
            why = "the worker that had this request went away: it may have been carried out"
            await respond(send, refused(502, codes.INTERNAL_ERROR, why))
        finally:
            connection.abort()


class _Once:
    """Each request has a connection of its own: that costs less than looking after warm ones would."""

    def free(self, connection: Connection) -> None:
        connection.close()

    def gone(self, connection: Connection) -> None:
        pass


async def _connected(place: Place) -> Connection:
    loop = asyncio.get_running_loop()
    peer = await _reached(loop, place)
    make = loop.create_unix_connection if place.path else loop.create_connection
    _, connection = await make(partial(Connection, _Once(), peer), sock=peer)
    return connection


async def _reached(loop: asyncio.AbstractEventLoop, place: Place) -> socket.socket:
    parts = urlsplit(place.url)
    family = socket.AF_UNIX if place.path else socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    peer = socket.socket(family)
    peer.setblocking(False)
    try:
        async with asyncio.timeout(_CONNECT_S):
            if place.path:
                with Reachable(Path(place.path)) as address:
                    await loop.sock_connect(peer, address)
            else:
                await loop.sock_connect(peer, (parts.hostname, parts.port))
    except BaseException:
        peer.close()
        raise
    return peer


def _request(place: Place, scope: Scope, body: bytes | None) -> bytes:
    query = scope["query_string"]
    target = scope["path"].encode() + (b"?" + query if query else b"")
    lines = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
    lines += [(HOPS, _INSIDE if place.path else _BETWEEN_MACHINES), (b"connection", b"close")]
    if body is not None:
        lines.append((b"content-length", b"%d" % len(body)))
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (scope["method"].encode(), target, head, body or b"")


async def _pass_on(response: Response, send: Send) -> None:
    headers = [(name, value) for name, value in response.headers.items() if name not in _HOP_BY_HOP]
    if b"content-length" in response.headers and response.status != 204:
        headers.append((b"content-length", response.headers[b"content-length"]))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    try:
        while piece := await response.take():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except HttpError as error:
        log.warning("a worker went away in the middle of an answer: the connection %s", error)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
