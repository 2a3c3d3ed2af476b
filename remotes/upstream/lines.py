"""Lines out of a stream of bytes, with a cap: what is longer is passed over, and only its two ends are kept.

Pure. The ends are what tells whose answer it was, so that one answer that is too large fails one call and not a whole process.
"""

import re

import msgspec

# Serialisers write the id near one end of a message or the other.
ENDS_BYTES = 256
_AT_HEAD = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,19})\s*,\s*"(?:result|error)"')
_AT_TAIL = re.compile(rb'"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,19})\s*\}\s*$')


class Oversized(msgspec.Struct, frozen=True):
    """A line over the cap: its first and its last bytes."""

    head: bytes
    tail: bytes

    @property
    def number(self) -> int | None:
        """The request that it answers, where one of its ends says so."""
        found = _AT_HEAD.match(self.head) or _AT_TAIL.search(self.tail)
        return int(found[1]) if found else None


class Lines:
    """Feed it chunks; what is left when the stream ends is no line."""

    def __init__(self, max_bytes: int) -> None:
        self.passed_over = 0
        """Bytes of the line that is being passed over; 0 when it is none."""
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._head = b""

    @property
    def pending(self) -> int:
        """Bytes in memory of the line that has not ended yet."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        found: list[bytes | Oversized] = []
        self._buffer += chunk
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            found.append(self._ended(bytes(self._buffer[:end])))
            del self._buffer[: end + 1]
            self._scanned = 0
        if self.passed_over or len(self._buffer) > self._max_bytes:
            self._pass_over()
        self._scanned = len(self._buffer)
        return found

    def _ended(self, line: bytes) -> bytes | Oversized:
        if not self.passed_over and len(line) <= self._max_bytes:
            return line
        head = self._head if self.passed_over else line[:ENDS_BYTES]
        self.passed_over, self._head = 0, b""
        return Oversized(head, line[-ENDS_BYTES:])

    def _pass_over(self) -> None:
        if not self.passed_over:
            self._head = bytes(self._buffer[:ENDS_BYTES])
        surplus = max(0, len(self._buffer) - ENDS_BYTES)
        self.passed_over += surplus
        del self._buffer[:surplus]
