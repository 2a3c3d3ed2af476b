"""What every peer server needs around the SDK it shows: a socket of its own, an announcement, a key, a journal.

Runs in any environment that has uvicorn, whatever its `mcp`. A peer announces itself on an inherited descriptor
(`--ready-fd`), so that a test waits for an event and never for a while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def options(description: str, *, eras: tuple[str, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--transport", choices=["stdio", "http", "sse"], default="stdio")
    parser.add_argument("--era", choices=eras, default=eras[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; the announcement says which")
    parser.add_argument(
        "--ready-fd", type=int, help='write {"port": …} here once connections are served; default stderr'
    )
    parser.add_argument("--key", help="answer 401 unless this key comes as Bearer or X-API-Key")
    parser.add_argument("--json", action="store_true", help="answer Streamable HTTP with JSON instead of a stream")
    parser.add_argument("--stateless", action="store_true", help="hand out no session ids")
    parser.add_argument("--name", help="the name the server says it has")
    return parser


def serve(application: Application, chosen: argparse.Namespace) -> None:
    """Serve until SIGTERM. Open streams get one second: a test that ends must not wait for them."""
    listener = socket.create_server((chosen.host, chosen.port), backlog=256)
    guarded = require_key(application, chosen.key) if chosen.key else application
    config = uvicorn.Config(guarded, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    asyncio.run(AnnouncedServer(config, chosen.ready_fd).serve(sockets=[listener]))


class AnnouncedServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready_fd: int | None) -> None:
        super().__init__(config)
        self.ready_fd = ready_fd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        assert sockets is not None
        port = sockets[0].getsockname()[1]
        os.write(2 if self.ready_fd is None else self.ready_fd, json.dumps({"port": port}).encode() + b"\n")
        if self.ready_fd is not None:
            os.close(self.ready_fd)


def require_key(application: Application, key: str) -> Application:
    accepted = {(b"authorization", f"Bearer {key}".encode()), (b"x-api-key", key.encode())}

    async def guarded(
        scope: Scope, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or accepted & {(name, value) for name, value in scope["headers"]}:
            await application(scope, receive, send)
        else:
            await refuse(send, 401, {"error": "unauthorized"}, [(b"www-authenticate", b"Bearer")])

    return guarded


async def refuse(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    document: dict[str, Any],
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = json.dumps(document).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def journal(event: str, **facts: Any) -> None:
    """Append one line to PEER_JOURNAL: what really happened here, for a test to count."""
    path = os.environ.get("PEER_JOURNAL")
    if not path:
        return
    line = json.dumps({"event": event, "pid": os.getpid(), "at": time.monotonic(), **facts}).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line)  # one write with O_APPEND: lines of several processes do not mix
    finally:
        os.close(descriptor)
