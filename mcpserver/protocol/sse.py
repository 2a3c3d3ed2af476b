"""Server-sent events, written and read (WHATWG HTML, "Server-sent events"; MCP transports of every revision)."""

from collections.abc import Iterator
from dataclasses import dataclass

from mcpserver.protocol.jsonrpc import one_line

HEARTBEAT = b": heartbeat\n\n"


class TooLong(Exception):
    """One event grew past the cap; the stream cannot be trusted any further."""


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: bytes
    id: str | None = None
    retry_ms: int | None = None


def encode(message: bytes, *, name: bytes = b"message", id: bytes | None = None) -> bytes:
    """One event holding one message."""
    head = b"event: " + name + b"\n"
    if id is not None:
        head += b"id: " + id + b"\n"
    return head + b"data: " + one_line(message) + b"\n\n"


class Splitter:
    """Bytes as they come from a socket in, whole events out; never holds more than `cap` bytes of an unfinished one."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._buffer = bytearray()
        self._scanned = 0
        self._held = 0
        self._data: list[bytes] = []
        self._name = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._seen_any = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield each event completed by `chunk`; raises TooLong."""
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
        if chunk:
            self._after_cr = False
        self._buffer += chunk
        while (line := self._next_line()) is not None:
            event = self._take(line)
            if event is not None:
                yield event
        if len(self._buffer) + self._held > self._cap:
            raise TooLong(f"an event is larger than {self._cap} bytes")

    def _next_line(self) -> bytes | None:
        buffer, start = self._buffer, self._scanned
        newline = buffer.find(b"\n", start)
        carriage = buffer.find(b"\r", start, newline if newline >= 0 else len(buffer))
        end = carriage if carriage >= 0 else newline
        if end < 0:
            self._scanned = len(buffer)
            return None
        line = bytes(buffer[:end])
        skip = end + 1
        if buffer[end] == 13:
            if skip == len(buffer):
                self._after_cr = True
            elif buffer[skip] == 10:
                skip += 1
        del buffer[:skip]
        self._scanned = 0
        if not self._seen_any:
            self._seen_any = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._complete()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._held += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit():
            self._retry = int(value)
        return None

    def _complete(self) -> Event | None:
        data, name, retry = self._data, self._name, self._retry
        self._data, self._name, self._retry, self._held = [], "", None, 0
        if not data:
            return None
        return Event(name or "message", b"\n".join(data), self._id, retry)
