"""The control socket: how commands and sibling processes ask a running process what only its memory knows.

One unix socket per process in MCP_RUN_DIR, mode 0600, so that only the operator's own user reaches it. A request and its
answer are one JSON object each, framed by a 4-byte big-endian length: payloads relayed as raw bytes may hold newlines.
Nothing here starts a command or changes the configuration.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcpserver.lib.errors import Exit, GatewayError

FRAME_MAX_BYTES = 64 * 1024 * 1024
LENGTH = struct.Struct(">I")

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def ask(path: Path, request: dict[str, Any], *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Send one request and wait for its answer; GatewayError `not_running` when nobody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(timeout_s)
        try:
            with Reachable(path) as address:
                peer.connect(address)
            payload = json.dumps(request).encode()
            peer.sendall(LENGTH.pack(len(payload)) + payload)
            (length,) = LENGTH.unpack(_read_exactly(peer, LENGTH.size))
            answer: dict[str, Any] = json.loads(_read_exactly(peer, length))
        except TimeoutError:
            raise GatewayError("timeout", f"{path.name} did not answer within {timeout_s:g} s") from None
        except (OSError, EOFError) as error:
            raise GatewayError(
                "not_running",
                f"nothing answers at {path.name} ({type(error).__name__})",
                hint="start the gateway with: mcpserver start",
                exit_code=Exit.NOT_RUNNING,
            ) from None
    return answer


def tell(path: Path, request: dict[str, Any]) -> None:
    """Send one request and do not wait for its answer, nor for a listener that has no time; raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.setblocking(False)
        with Reachable(path) as address:
            peer.connect(address)
        payload = json.dumps(request).encode()
        peer.sendall(LENGTH.pack(len(payload)) + payload)


async def listen(path: Path, handler: Handler) -> asyncio.AbstractServer:
    """Answer requests at `path` until the returned server is closed; an old socket file there is replaced."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            if length > FRAME_MAX_BYTES:
                return
            answer = await _answered(handler, await reader.readexactly(length))
            writer.write(LENGTH.pack(len(answer)) + answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    return await asyncio.start_unix_server(serve, sock=bound(path))


def bound(path: Path) -> socket.socket:
    """A socket bound to `path`, mode 0600; what lay there before is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with Reachable(path) as address:
        listener.bind(address)
    path.chmod(0o600)
    return listener


async def _answered(handler: Handler, payload: bytes) -> bytes:
    try:
        request = json.loads(payload)
        document = await handler(request)
    except GatewayError as error:
        document = error.document()
    except (ValueError, KeyError, TypeError) as error:
        document = {"ok": False, "error": "bad_request", "message": f"{type(error).__name__}: {error}"}
    return json.dumps(document).encode()


class Reachable:
    """An address for `path` that fits a unix socket's 108 bytes: long folders are reached through a descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) < 100:
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)


def _read_exactly(peer: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = peer.recv(min(1 << 20, length - len(parts)))
        if not part:
            raise EOFError("the answer ended early")
        parts += part
    return bytes(parts)
