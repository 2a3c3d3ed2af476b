"""Sending a request on to the worker whose memory it needs, and that worker's answer back, stream or not, as it comes.

The receiving worker asks for the key again and counts the request against its limits, as if it had come straight to it; so
nothing here is trusted, and nothing is counted twice. A request is sent on once between machines and once inside one.
"""

import asyncio
import logging

import aiohttp

from gateway import metrics
from gateway.endpoint.http import Receive, Scope, Send, refused, respond
from gateway.neighbours import Neighbours, Place
from mcpserver.protocol import codes

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


class Unreachable(Exception):
    """Nobody opens there; nothing was sent."""


class Relay:
    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._clients: dict[Place, aiohttp.ClientSession] = {}
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

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def _exchange(self, place: Place, scope: Scope, body: bytes | None, send: Send) -> None:
        hops = _INSIDE if place.path else _BETWEEN_MACHINES
        headers = [
            (name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name not in _HOP_BY_HOP
        ]
        query = scope["query_string"].decode("latin-1")
        address = (place.url or "http://worker") + scope["path"] + (f"?{query}" if query else "")
        try:
            response = await self._client(place).request(
                scope["method"],
                address,
                data=body,
                headers=[*headers, (HOPS.decode(), hops.decode())],
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            self._neighbours.forget(place)
            raise Unreachable from error
        except (aiohttp.ClientError, ConnectionError) as error:
            log.warning("a worker went away with a request that was sent on to it: %s", type(error).__name__)
            why = "the worker that had this request went away: it may have been carried out"
            await respond(send, refused(502, codes.INTERNAL_ERROR, why))
            return
        metrics.RELAYED.labels("worker" if place.path else "machine").inc()
        async with response:
            await _pass_on(response, send)

    def _client(self, place: Place) -> aiohttp.ClientSession:
        client = self._clients.get(place)
        if client is None:
            connector = aiohttp.UnixConnector(place.path, limit=0) if place.path else aiohttp.TCPConnector(limit=0)
            client = self._clients[place] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return client


async def _pass_on(response: aiohttp.ClientResponse, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in response.raw_headers if name.lower() not in _HOP_BY_HOP]
    length = response.headers.get("Content-Length")
    if length is not None and response.status != 204:
        headers.append((b"content-length", length.encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    try:
        async for chunk in response.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (aiohttp.ClientError, ConnectionError) as error:
        log.warning("a worker went away in the middle of an answer: %s", type(error).__name__)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
