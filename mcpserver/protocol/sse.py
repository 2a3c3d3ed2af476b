"""Server-sent events, written and read (WHATWG HTML, "Server-sent events"; MCP transports of every revision)."""

from collections.abc import Iterator
from dataclasses import dataclass

from mcpserver.protocol.jsontext import one_line

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


def priming(id: bytes, retry_ms: int) -> bytes:
    """The event without a message that tells a client what to come back with, and how long to wait before it does."""
    return b"id: " + id + b"\nretry: %d\ndata:\n\n" % retry_ms


class Splitter:
    """Bytes as they come from a socket in, whole events out; never holds more than `cap` bytes of an unfinished one."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._buffer = bytearray()
        self._held = 0
        self._data: list[bytes] = []
        self._name = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._seen_any = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield each event completed by `chunk`; raises TooLong."""
        for line in self._lines(chunk):
            event = self._take(line)
            if event is not None:
                yield event
        if len(self._buffer) + self._held > self._cap:
            raise TooLong(f"an event is larger than {self._cap} bytes")

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` ends, in time linear in its length whichever line ends a remote chooses (LF, CR, CRLF)."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            self._buffer += chunk
            return []
        whole = bytes(self._buffer) + chunk[:end]
        self._buffer = bytearray(chunk[end:])
        self._after_cr = chunk[-1:] == b"\r"
        if not self._seen_any:
            self._seen_any = True
            whole = whole.removeprefix(b"\xef\xbb\xbf")
        return whole.splitlines()

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
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)
        return None

    def _complete(self) -> Event | None:
        data, name, retry = self._data, self._name, self._retry
        self._data, self._name, self._retry, self._held = [], "", None, 0
        if not data:
            return None
        return Event(name or "message", b"\n".join(data), self._id, retry)
