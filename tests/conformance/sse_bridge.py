"""The conformance tool speaks Streamable HTTP only; this lets it use an HTTP+SSE endpoint (2024-11-05).

A session of the tool is one GET /sse. A request is posted to the address that stream named, and its answer, which comes
down the stream, becomes the answer to the tool's own POST. What belongs to no request goes to the tool's GET stream.
Adds the key and maps names like proxy.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import aiohttp
from aiohttp import web

from tests.conformance.names import Names
from tests.conformance.proxy import ends

CARRIED = ("Host", "Origin")  # the tool sends bad ones, and wants to see them refused
SESSION = "Mcp-Session-Id"
OPENING_S = 10.0
STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}

Messages = asyncio.Queue[bytes | None]  # None: the session is over


class Refused(Exception):
    """The server's answer is not a stream, or not 202: the tool gets it as it is."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body


@dataclass
class Session:
    """One stream of the server, and the tool's requests that wait on it."""

    stream: aiohttp.ClientResponse
    names: Names
    address: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    waiting: dict[Any, Messages] = field(default_factory=dict)
    unrelated: Messages = field(default_factory=asyncio.Queue)

    async def read(self) -> None:
        held = b""
        async for part in self.stream.content.iter_any():
            held += part
            while (end := ends(held)) is not None:
                self._take(held[:end])
                held = held[end:]

    def _take(self, event: bytes) -> None:
        lines = event.decode().splitlines()
        kind = next((line[6:].strip() for line in lines if line.startswith("event:")), "message")
        data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
        if kind == "endpoint":
            self.address.set_result(data)
        elif data:
            self._deliver(json.loads(data), self.names.answer(data.encode()))

    def _deliver(self, message: dict[str, Any], body: bytes) -> None:
        """To the request it answers; else to the newest that is open, since HTTP+SSE does not say which it is about."""
        open_ones = list(self.waiting.values())
        answered = self.waiting.get(message.get("id")) if "method" not in message else None
        (answered or (open_ones[-1] if open_ones else self.unrelated)).put_nowait(body)


class Bridge:
    def __init__(self, url: str, key: str | None, names: Names) -> None:
        self._url, self._names = url, names
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._sessions: dict[str, tuple[Session, asyncio.Task[None]]] = {}
        self._client: aiohttp.ClientSession

    async def post(self, request: web.Request) -> web.StreamResponse:
        body, method = self._names.request(await request.read())
        try:
            identifier, session = await self._session(request, method)
            message = json.loads(body)
            if method is None or "id" not in message:
                status, words = await self._send(session, request, body)
                return web.Response(status=status, body=b"" if status == 202 else words)
            return await self._asked(request, identifier, session, (message["id"], body))
        except Refused as refused:
            return web.Response(status=refused.status, body=refused.body, content_type="application/json")
        except KeyError:
            return web.Response(status=404)

    async def get(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get(SESSION) not in self._sessions:
            return web.Response(status=404 if SESSION in request.headers else 405)
        session, _ = self._sessions[request.headers[SESSION]]
        response = web.StreamResponse(headers=STREAM)
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the tool has left
            while (message := await session.unrelated.get()) is not None:
                await response.write(event(message))
        return response

    async def delete(self, request: web.Request) -> web.Response:
        found = self._sessions.pop(request.headers.get(SESSION, ""), None)
        if found is None:
            return web.Response(status=404)
        self._close(*found)
        return web.Response(status=200)

    async def _session(self, request: web.Request, method: str | None) -> tuple[str, Session]:
        if method != "initialize":
            identifier = request.headers[SESSION]
            return identifier, self._sessions[identifier][0]
        session = Session(await self._client.get(self._url, headers=self._carried(request)), self._names)
        if session.stream.status != 200:
            raise Refused(session.stream.status, await session.stream.read())
        reading = asyncio.create_task(session.read())
        identifier = secrets.token_hex(16)
        self._sessions[identifier] = session, reading
        await asyncio.wait_for(asyncio.shield(session.address), OPENING_S)
        return identifier, session

    async def _asked(
        self, request: web.Request, identifier: str, session: Session, asked: tuple[Any, bytes]
    ) -> web.StreamResponse:
        number, body = asked
        messages = session.waiting[number] = asyncio.Queue()
        try:
            status, words = await self._send(session, request, body)
            if status != 202:
                raise Refused(status, words)
            response = web.StreamResponse(headers=STREAM | {SESSION: identifier})
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                while (message := await messages.get()) is not None:
                    await response.write(event(message))
                    if "method" not in json.loads(message):
                        break
            return response
        finally:
            session.waiting.pop(number, None)

    async def _send(self, session: Session, request: web.Request, body: bytes) -> tuple[int, bytes]:
        headers = self._carried(request) | {"Content-Type": "application/json"}
        address = urljoin(self._url, session.address.result())
        async with self._client.post(address, data=body, headers=headers) as answer:
            return answer.status, await answer.read()

    def _carried(self, request: web.Request) -> dict[str, str]:
        return self._headers | {name: request.headers[name] for name in CARRIED if name in request.headers}

    @staticmethod
    def _close(session: Session, reading: asyncio.Task[None]) -> None:
        reading.cancel()
        session.stream.close()
        for messages in (session.unrelated, *session.waiting.values()):
            messages.put_nowait(None)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """The bridge; its port."""
        application = web.Application()
        application.add_routes(
            [web.post("/mcp", self.post), web.get("/mcp", self.get), web.delete("/mcp", self.delete)]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        endless = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=endless) as self._client:
            try:
                yield runner.addresses[0][1]
            finally:
                for found in self._sessions.values():
                    self._close(*found)
                await runner.cleanup()


def event(message: bytes) -> bytes:
    return b"event: message\ndata: " + message + b"\n\n"
