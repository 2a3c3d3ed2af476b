"""Messages waiting for one client's stream: bounded, so that a slow reader costs a known amount and nobody else waits for it.

What overflows is dropped and counted: progress, log lines and change notices, which the protocol lets a server skip. Answers are
never put where they could be dropped: `put_answer` always takes them, their number is bounded by the slots.
"""

import asyncio
import weakref
from collections import deque

_MESSAGES_MAX = 256
_BYTES_MAX = 1024 * 1024


# By reference alone: an outbox ends with its stream, and whatever of it lives on by mistake is counted on.
_existing: "dict[int, weakref.ref[Outbox]]" = {}


def waiting_bytes() -> int:
    """What waits in all of them; may be asked from any thread."""
    alive = (reference() for reference in tuple(_existing.values()))
    return sum(outbox._bytes for outbox in alive if outbox is not None)


class Outbox:
    def __init__(self, *, is_copy: bool = False) -> None:
        """`is_copy`: what waits here is kept elsewhere anyway, and counted there."""
        self.dropped = 0
        self._waiting: deque[tuple[bytes, object]] = deque()
        self._sending: object = None
        self._bytes = 0
        self._wake = asyncio.Event()
        self._ended = False
        self._promised = 0
        self._finishing = False
        if not is_copy:
            key = id(self)
            _existing[key] = weakref.ref(self, lambda _: _existing.pop(key, None))

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def is_full(self) -> bool:
        """The client is so far behind that it should not be given more to read."""
        return len(self._waiting) >= _MESSAGES_MAX or self._bytes >= _BYTES_MAX

    def put(self, message: bytes) -> bool:
        """Queue a notification; False when it was dropped."""
        if self._ended or len(self._waiting) >= _MESSAGES_MAX or self._bytes + len(message) > _BYTES_MAX:
            self.dropped += 1
            return False
        self.put_answer(message)
        return True

    def put_answer(self, message: bytes, held: object = None) -> None:
        """Queue what must arrive; `held`, the memory that was taken for it, is kept until the next message is asked for."""
        self._waiting.append((message, held))
        self._bytes += len(message)
        self._wake.set()

    def end(self) -> None:
        """Nothing more comes: the reader gets what is queued, then None."""
        self._ended = True
        self._wake.set()

    def promise(self) -> None:
        """An answer will come; `settle` says that it did, or never will."""
        self._promised += 1

    def settle(self) -> None:
        self._promised -= 1
        if self._finishing and not self._promised:
            self.end()

    def finish(self) -> None:
        """End as soon as every promised answer was put."""
        self._finishing = True
        if not self._promised:
            self.end()

    async def get(self, timeout_s: float) -> bytes | None:
        """The next message; b"" when none came in time; None at the end."""
        self._sending = None
        if not self._waiting and not self._ended:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        if self._waiting:
            message, self._sending = self._waiting.popleft()
            self._bytes -= len(message)
            return message
        return None if self._ended else b""
