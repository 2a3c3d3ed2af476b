"""Remotes that misbehave, as scripts of bytes and timings: raw HTTP/1.1 over real sockets, and processes run by `python -c`.

A script gets each request that arrives and the wire it came on, and sends whatever bytes it likes. `served` adds what every
test wants to know afterwards: what arrived, how often, and that closing left nothing behind.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw

from remotes.config.snapshot import RemoteSpec
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Outcome

MODERN = "2026-07-28"
CAP = 256 * 1024
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}

    @property
    def call(self) -> str:
        """The JSON-RPC method of a POST; the HTTP method and "answer" for what has none."""
        if self.method != "POST":
            return self.method
        return str(self.json.get("method", "answer"))

    @property
    def id(self) -> Any:
        return self.json.get("id")


class Wire:
    """One connection, as the script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
        await self._writer.drain()

    async def answer(
        self, body: object, *, status: int = 200, headers: str = "", kind: str = "application/json"
    ) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n{headers}\r\n"
        await self.send(head.encode("utf-8"), raw)

    async def result(self, request: Request, result: object, *, headers: str = "") -> None:
        await self.answer({"jsonrpc": "2.0", "id": request.id, "result": result}, headers=headers)

    async def error(
        self, request: Request, code: int, message: str = "no", *, status: int = 200, data: object = None
    ) -> None:
        error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        await self.answer({"jsonrpc": "2.0", "id": request.id, "error": error}, status=status)

    async def chunk(self, raw: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(raw), raw))

    async def event(self, message: object, *, name: str = "message") -> None:
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.chunk(b"event: " + name.encode() + b"\ndata: " + raw + b"\n\n")

    async def until_gone(self) -> None:
        """Say nothing until the other side has left."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Request, Wire], Awaitable[None]]


@dataclass
class Served:
    """A listening script and what has arrived at it."""

    port: int
    arrived: list[Request] = field(default_factory=list)
    accepted: int = 0
    open: int = 0
    faults: list[BaseException] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def calls(self) -> list[str]:
        return [request.call for request in self.arrived]

    def count(self, call: str) -> int:
        return self.calls().count(call)

    def last(self, call: str) -> Request:
        return next(request for request in reversed(self.arrived) if request.call == call)

    async def until(self, claim: Callable[["Served"], bool], seconds: float = 5) -> None:
        """Wait until `claim` is true of this server; the test fails with what did arrive."""
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: claim(self)), seconds)
            except TimeoutError:
                raise AssertionError(f"only {self.calls()} arrived, {self.open} connections open") from None

    async def note(self, request: Request | None = None) -> None:
        if request is not None:
            self.arrived.append(request)
        async with self._news:
            self._news.notify_all()


@contextlib.asynccontextmanager
async def served(script: Script, *, port: int = 0) -> AsyncIterator[Served]:
    """Run `script` for every request on a port of its own; everything it holds open ends with the block."""
    state = Served(0)
    running: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        state.accepted += 1
        state.open += 1
        try:
            while (request := await _request(reader)) is not None:
                await state.note(request)
                await script(request, Wire(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:
            state.faults.append(error)
        finally:
            running.discard(task)
            writer.close()
            state.open -= 1
            with contextlib.suppress(asyncio.CancelledError):
                await state.note()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert not state.faults, f"the script itself failed: {state.faults!r}"


async def _request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.strip().split("\r\n")
    method, target, _ = line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, value in (one.split(":", 1) for one in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


# Well-behaved servers of both eras, whose answers a test replaces one by one.

Answers = Mapping[str, Script]
TOOL = {"name": "echo", "description": "says it again", "inputSchema": {"type": "object"}}


def modern(answers: Answers | None = None) -> Script:
    """A 2026-07-28 server with one tool; `answers` replace those of a JSON-RPC method."""

    async def script(request: Request, wire: Wire) -> None:
        own = (answers or {}).get(request.call)
        if own is not None:
            await own(request, wire)
        elif request.call == "server/discover":
            await wire.result(request, discover_result())
        elif request.call == "tools/list":
            await wire.result(
                request, {"tools": [TOOL], "ttlMs": 1000, "cacheScope": "private", "resultType": "complete"}
            )
        elif request.call == "tools/call":
            await wire.result(request, {"content": [], "resultType": "complete"})
        elif request.method == "POST":
            await wire.error(request, -32601, "method not found", status=404)
        else:
            await wire.answer(b"", status=405)

    return script


def discover_result(**changed: object) -> dict[str, object]:
    return {
        "resultType": "complete",
        "supportedVersions": [MODERN],
        "capabilities": {"tools": {}},
        "ttlMs": 1000,
        "cacheScope": "private",
    } | changed


def legacy(answers: Answers | None = None, *, probe: int = 400, session: str = "s-") -> Script:
    """A 2025-11-25 server that mints sessions (`s-1`, `s-2`, …) and answers 404 to those it does not know."""
    minted: list[str] = []

    async def script(request: Request, wire: Wire) -> None:
        known = request.headers.get("mcp-session-id") in minted
        own = (answers or {}).get(request.call)
        if own is not None:
            await own(request, wire)
        elif request.call == "initialize":
            minted.append(f"{session}{len(minted) + 1}")
            await wire.result(request, initialize_result(), headers=f"Mcp-Session-Id: {minted[-1]}\r\n")
        elif request.method == "GET":
            await wire.answer(b"", status=405)
        elif request.method == "DELETE":
            await wire.answer(b"", status=200)
        elif request.call == "server/discover":
            await wire.answer(b"Bad Request: no session", status=probe, kind="text/plain")
        elif not known:
            await wire.answer(b"", status=404)
        elif request.call == "tools/list":
            await wire.result(request, {"tools": [TOOL]})
        elif request.call == "tools/call":
            await wire.result(request, {"content": []})
        else:
            await wire.answer(b"", status=202)

    return script


def initialize_result(**changed: object) -> dict[str, object]:
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "scripted", "version": "1"},
    } | changed


class EventStream:
    """An HTTP+SSE server (2024-11-05): answers to POSTs go down the one stream that is open."""

    def __init__(
        self, answers: Mapping[str, Callable[["EventStream", Request], Awaitable[None]]] | None = None
    ) -> None:
        self.endpoint = "/messages?session_id=1"
        self.wire: Wire | None = None
        self._answers = answers or {}

    async def __call__(self, request: Request, wire: Wire) -> None:
        if request.method == "GET":
            self.wire = wire
            await wire.send(SSE_HEAD)
            await wire.event(self.endpoint.encode(), name="endpoint")
            await wire.until_gone()
        elif request.target == "/mcp":
            await wire.answer(b"", status=405)
        else:
            await wire.answer(b"Accepted", status=202)
            await self._answer(request)

    async def down(self, message: object) -> None:
        """Send one message (bytes as they are) down the stream."""
        assert self.wire is not None
        await self.wire.event(message)

    async def result(self, request: Request, result: object) -> None:
        await self.down({"jsonrpc": "2.0", "id": request.id, "result": result})

    async def _answer(self, request: Request) -> None:
        own = self._answers.get(request.call)
        if own is not None:
            await own(self, request)
        elif request.call == "initialize":
            await self.result(request, initialize_result())
        elif request.call == "tools/list":
            await self.result(request, {"tools": [TOOL]})
        elif request.call == "tools/call":
            await self.result(request, {"content": []})


# Scripts for one answer.


async def silence(request: Request, wire: Wire) -> None:
    await wire.until_gone()


async def reset(request: Request, wire: Wire) -> None:
    wire.reset()


def status(code: int, body: bytes = b"", *, kind: str = "text/plain", headers: str = "") -> Script:
    async def script(request: Request, wire: Wire) -> None:
        await wire.answer(body, status=code, kind=kind, headers=headers)

    return script


def raw(*parts: bytes, close: bool = False) -> Script:
    """Exactly these bytes; `%ID%` becomes the id of the request."""

    async def script(request: Request, wire: Wire) -> None:
        await wire.send(*(part.replace(b"%ID%", str(request.id).encode()) for part in parts))
        if close:
            wire.close()
        else:
            await wire.until_gone()

    return script


def body(content: bytes, *, kind: str = "application/json") -> Script:
    """A 200 with exactly this body; `%ID%` becomes the id of the request."""

    async def script(request: Request, wire: Wire) -> None:
        await wire.answer(content.replace(b"%ID%", str(request.id).encode()), kind=kind)

    return script


# The gateway's side.


def http(server: Served, **changed: Any) -> RemoteSpec:
    values: dict[str, Any] = {"connect_timeout_s": 2.0, "list_timeout_s": 2.0, "timeout_s": 2.0, "url": server.url}
    return RemoteSpec("remote", changed.pop("transport", "http"), **(values | changed))


def process(code: str, **changed: Any) -> RemoteSpec:
    """A remote that is `python -c code`."""
    values: dict[str, Any] = {"connect_timeout_s": 6.0, "list_timeout_s": 2.0, "timeout_s": 2.0, "era": "2025-11-25"}
    command = {"command": sys.executable, "args": ("-I", "-S", "-c", code)}
    return RemoteSpec("remote", "stdio", **(values | command | changed))


@contextlib.asynccontextmanager
async def upstream(spec: RemoteSpec, *, cap: int = CAP, era: str = "") -> AsyncIterator[Upstream]:
    """One remote, closed at the end; closing must leave no task and no file descriptor of ours behind."""
    tasks, files = asyncio.all_tasks(), descriptors()
    one = Upstream(spec, budget=Budget(8 * (cap), read_max_bytes=cap), era=era)
    try:
        yield one
    finally:
        await one.close()
        await _settled(tasks)
    left = {task for task in asyncio.all_tasks() - tasks if "accept" not in repr(task)}
    assert not left, f"closing left tasks behind: {left}"
    assert _ours(descriptors()) <= _ours(files), "closing left a pipe behind"


async def _settled(before: set[asyncio.Task[Any]]) -> None:
    """Give what was cancelled the few turns of the loop that it needs to end."""
    for _ in range(5):
        await asyncio.sleep(0)


def descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def _ours(names: list[str]) -> int:
    return sum(name.startswith("pipe:") for name in names)


async def call(one: Upstream, *, seconds: float = 10.0, method: str = "tools/call", **changed: Any) -> Outcome:
    """One request with a deadline, which it must not overstay: twice the time and more is for busy machines."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    params = changed.pop("params", {"name": Raw(b'"echo"'), "arguments": Raw(b"{}")})
    try:
        return await one.exchange(Exchange(method, params, deadline=started + seconds, **changed))
    finally:
        assert loop.time() - started < 2 * seconds + 3, "the deadline was overstayed"
