"""The memory that answers may take in one worker, all together: who reads one asks for its bytes, and waits while they are spent.

Small answers ask for nothing, and their number is bounded elsewhere. One remote gets half of it at most, so that it cannot make
its neighbours wait. Bytes are held as long as somebody keeps the `Held` that was taken for them: it travels with the answer, and
the last one to drop it gives them back, whatever way that came about.

Answers that wait for each other's bytes would wait for ever, so one at a time may go on beyond the total. Hence there is always
one that does not wait, which ends with its call; and never more is held than the total and one answer. What is kept for later
(`Keeper`) gives way to what is read now.
"""

import asyncio
from collections import deque
from typing import Protocol

import msgspec

from remotes.upstream.outcome import Failed, Failure, Fault

# Up to here an answer asks for nothing: at most 100 requests are in flight.
FREE_BYTES = 64 * 1024
# A caller whose time is up hears that memory was short, and not that its remote was slow: so it stops waiting a moment before.
_BEFORE_THE_END_S = 0.02


class Keeper(Protocol):
    """Somebody who keeps answers for later."""

    @property
    def bytes(self) -> int: ...

    def give_way(self, need_bytes: int) -> None:
        """Forget the oldest until so many bytes are free."""


class _Waiting(msgspec.Struct, eq=False):
    held: "Held"
    size: int
    granted: asyncio.Future[None]


class Held:
    """The bytes of one answer. Given back with the last reference to it."""

    __slots__ = ("_budget", "bytes", "remote")

    def __init__(self, budget: "Budget", remote: str) -> None:
        self._budget = budget
        self.remote = remote
        self.bytes = 0

    def covers(self, size: int) -> bool:
        """Take what is missing up to `size`, if that is possible now."""
        return size <= self.bytes or size <= FREE_BYTES or self._budget.grants(self, size)

    async def grow(self, size: int, deadline: float | None = None) -> None:
        """Take what is missing up to `size`, and wait for it if need be; raises Failed (crowded) when `deadline` comes first."""
        if not self.covers(size):
            await self._budget.wait(self, size, deadline)

    @property
    def taken(self) -> "Held | None":
        """What there is to keep with the answer: nothing, where it was small."""
        return self if self.bytes else None

    def shrink(self) -> None:
        """Give everything back: nothing is kept of what was read."""
        if self.bytes:
            self._budget.give_back(self)

    def __del__(self) -> None:
        self.shrink()


class Budget:
    def __init__(self, max_bytes: int, *, read_max_bytes: int) -> None:
        """`read_max_bytes`: of one answer. Both may change while answers are read."""
        self.max_bytes = max_bytes
        self.read_max_bytes = read_max_bytes
        self.bytes = 0
        self.waited = 0
        """How many answers had to wait so far."""
        self.keepers: list[Keeper] = []
        self._of_remote: dict[str, int] = {}
        self._beyond: int | None = None  # by its id: a reference would keep it
        self._waiting: deque[_Waiting] = deque()

    @property
    def kept_bytes(self) -> int:
        return sum(keeper.bytes for keeper in self.keepers)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def held(self, remote: str) -> Held:
        return Held(self, remote)

    def settle(self) -> None:
        """For a `Keeper` that grew: what is read now comes first."""
        self._make_room(self.bytes + self.kept_bytes - self.max_bytes)

    def grants(self, held: Held, size: int) -> bool:
        """For `Held`: take it now, or not."""
        more = size - held.bytes
        over = self.bytes + self.kept_bytes + more - self.max_bytes
        if over > 0:
            self._make_room(over)
        fits = self.bytes + more <= self.max_bytes and self._of(held.remote) + more <= self.max_bytes // 2
        if not fits and self._beyond not in (None, id(held)):
            return False
        if not fits:
            self._beyond = id(held)
        self._add(held, more)
        return True

    async def wait(self, held: Held, size: int, deadline: float | None) -> None:
        """For `Held`: until it is granted."""
        self.waited += 1
        one = _Waiting(held, size, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        try:
            async with asyncio.timeout_at(None if deadline is None else deadline - _BEFORE_THE_END_S):
                await one.granted
        except TimeoutError:
            raise Failed(crowded(held.remote)) from None
        finally:
            if one in self._waiting:
                self._waiting.remove(one)

    def give_back(self, held: Held) -> None:
        """For `Held`."""
        left = self._of_remote[held.remote] - held.bytes
        if left:
            self._of_remote[held.remote] = left
        else:
            del self._of_remote[held.remote]
        self.bytes -= held.bytes
        held.bytes = 0
        if self._beyond == id(held):
            self._beyond = None
        self._serve()

    def _serve(self) -> None:
        """Grant what is possible now, in the order in which it was asked for."""
        for one in tuple(self._waiting):
            if not one.granted.done() and self.grants(one.held, one.size):
                self._waiting.remove(one)
                one.granted.set_result(None)

    def _make_room(self, over: int) -> None:
        for keeper in self.keepers:
            if over <= 0:
                return
            before = keeper.bytes
            keeper.give_way(over)
            over -= before - keeper.bytes

    def _add(self, held: Held, more: int) -> None:
        self.bytes += more
        self._of_remote[held.remote] = self._of(held.remote) + more
        held.bytes += more

    def _of(self, remote: str) -> int:
        return self._of_remote.get(remote, 0)


def crowded(remote: str) -> Failure:
    """Why an answer was not read to its end in time."""
    why = f"{remote} answered, but too many large answers were under way to take in another; it may have done its work"
    return Failure(Fault.CROWDED, "answer", why, retry_after_s=1.0)
