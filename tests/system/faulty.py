"""Remotes that are well until a test makes them ill, over every transport and era, and that count what they execute.

They run on a loop in a thread of their own, beside the gateway's process; what they say is in tests/component/upstreams.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.component import upstreams
from tests.component.upstreams import EventStream, Request, Script, Served, Wire, reset, silence, status

T = TypeVar("T")

STDIO = """
import json, os, sys, pathlib
folder = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    message = json.loads(line)
    method, fault = message.get("method"), (folder / "fault").read_text()
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        with open(folder / "executed", "a") as journal: journal.write("x")
        if fault == "reset": os._exit(3)
        if fault == "hang": continue
        result = {"content": []}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


class Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Peer:
    """One HTTP remote. `fault` is a word: see `be`."""

    def __init__(self, background: Background, kind: str) -> None:
        self.kind = kind
        self.executed = 0
        self._fault = ""
        self._background = background
        self._stream = EventStream({"tools/call": self._called_on_stream})
        scripts: dict[str, Script] = {"modern": upstreams.modern(), "legacy": upstreams.legacy(), "sse": self._stream}
        self._well = scripts[kind]
        self._open: contextlib.AsyncExitStack | None = None
        self._full: contextlib.ExitStack | None = None
        self.port = 0
        self._listen()

    @property
    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"url": f"http://127.0.0.1:{self.port}/mcp"}
        return entry | ({"type": "sse"} if self.kind == "sse" else {})

    def be(self, fault: str) -> None:
        """ "" well; hang, reset, 500, html: answers to tools/call; mute: says nothing to anybody; refuse; backlog."""
        self._fault = fault
        if fault in ("refuse", "backlog"):
            self.stop()
        if fault == "backlog":
            self._full = contextlib.ExitStack()
            self._full.enter_context(full_backlog(self.port))
        if not fault and self._open is None:
            if self._full is not None:
                self._full.close()
                self._full = None
            self._listen()

    def stop(self) -> None:
        if self._open is not None:
            self._background.run(self._open.aclose())
            self._open = None

    def _listen(self) -> None:
        self._open = contextlib.AsyncExitStack()
        served: Served = self._background.run(
            self._open.enter_async_context(upstreams.served(self._script, port=self.port))
        )
        self.port = served.port

    async def _script(self, request: Request, wire: Wire) -> None:
        if self._fault == "mute":
            await wire.until_gone()
        elif request.call == "tools/call" and self.kind != "sse":
            self.executed += 1
            await self._answer(request, wire)
        else:
            await self._well(request, wire)

    async def _answer(self, request: Request, wire: Wire) -> None:
        match self._fault:
            case "hang":
                await silence(request, wire)
            case "reset":
                await reset(request, wire)
            case "500":
                await status(500)(request, wire)
            case "html":
                await wire.answer(b"<html>sorry</html>", kind="text/html")
            case _:
                await self._well(request, wire)

    async def _called_on_stream(self, stream: EventStream, request: Request) -> None:
        self.executed += 1
        if self._fault == "reset":
            assert stream.wire is not None
            with contextlib.suppress(OSError):  # another call has done it
                stream.wire.reset()
        elif not self._fault:
            await stream.result(request, {"content": []})


class Process:
    """One stdio remote."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.entry = {"command": sys.executable, "args": ["-I", "-S", "-c", STDIO, str(folder)], "era": "2025-11-25"}
        self.be("")

    @property
    def executed(self) -> int:
        journal = self._folder / "executed"
        return len(journal.read_text()) if journal.exists() else 0

    def be(self, fault: str) -> None:
        fresh = self._folder / "fault.new"
        fresh.write_text(fault)
        fresh.replace(self._folder / "fault")

    def stop(self) -> None:
        """Ends with its gateway."""


@contextlib.contextmanager
def full_backlog(port: int) -> Iterator[None]:
    """A port whose queue of connections is full: further ones are neither accepted nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield
