"""The supervisor's control socket, on its own selector loop: the frames of `lib.control`, without asyncio.

An answer may come later (`stop` is answered when everything has stopped), so a request arrives with a `Reply` to keep. What a
request means is the arbiter's business. The socket is 0600: whoever reaches it may stop the gateway, and nothing else.
"""

import json
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcpserver.lib.control import LENGTH, Reachable

NAME = "supervisor.sock"
# What workers have counted is the largest: a hundred bytes for each of their series.
REQUEST_MAX_BYTES = 8 * 1024 * 1024
CONVERSATIONS_MAX = 32
SEND_TIMEOUT_S = 2.0


class Reply:
    """One peer: its request as it comes in, its answer once."""

    def __init__(self, door: "Door", peer: socket.socket) -> None:
        self._door = door
        self._peer = peer
        self._buffer = bytearray()
        self.is_asked = False

    def __call__(self, document: dict[str, Any]) -> None:
        """Answer and hang up. A peer that left, or that does not read, has lost its answer."""
        payload = json.dumps(document).encode()
        try:
            self._peer.settimeout(SEND_TIMEOUT_S)
            self._peer.sendall(LENGTH.pack(len(payload)) + payload)
        except OSError:
            pass
        finally:
            self._door.forget(self)
            self._peer.close()

    def read(self) -> None:
        try:
            part = self._peer.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.hang_up()
            return
        self._buffer += part
        request = self._whole_request()
        if request is not None and not self.is_asked:
            self.is_asked = True
            self._door.asked(request, self)

    def hang_up(self) -> None:
        self._door.forget(self)
        self._peer.close()

    def fileno(self) -> int:
        return self._peer.fileno()

    def _whole_request(self) -> dict[str, Any] | None:
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(self._buffer[: LENGTH.size])
        if length > REQUEST_MAX_BYTES:
            self.hang_up()
            return None
        if len(self._buffer) < LENGTH.size + length:
            return None
        try:
            request = json.loads(self._buffer[LENGTH.size : LENGTH.size + length])
        except ValueError:
            request = {}
        return request if isinstance(request, dict) else {}


class Door:
    """Listens at `path` as long as it is open."""

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, on_request: Callable[[dict[str, Any], Reply], None]
    ) -> None:
        self._path = path
        self._selector = selector
        self._replies: list[Reply] = []
        self.asked = on_request
        self._listener = _listening(path)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for reply in list(self._replies):
            reply.hang_up()

    def forget(self, reply: Reply) -> None:
        if reply in self._replies:
            self._replies.remove(reply)
            self._selector.unregister(reply)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        peer.setblocking(False)
        if len(self._replies) >= CONVERSATIONS_MAX:
            # Whoever connected first and never asked makes room.
            silent = next((reply for reply in self._replies if not reply.is_asked), None)
            if silent is None:
                peer.close()
                return
            silent.hang_up()
        reply = Reply(self, peer)
        self._replies.append(reply)
        self._selector.register(reply, selectors.EVENT_READ, reply.read)


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    # The file has its mode from its first moment on.
    mask = os.umask(0o177)
    try:
        with Reachable(path) as address:
            listener.bind(address)
    finally:
        os.umask(mask)
    listener.listen(8 * CONVERSATIONS_MAX)  # Room for a burst between two turns of the loop.
    return listener
