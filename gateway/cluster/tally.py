"""Requests a minute, counted among all workers and machines: one short script in Redis for each request of a key with a rate.

Exact: what is granted is counted in the same moment, by the clock of Redis, so all workers together never grant more. While one
question is under way the next ones wait and go together, so that a worker has one open at a time, however many calls it serves.
Bounded by who asks: requests in flight are.

Redis away: `ask` says so, and the worker counts for itself (`admission.rates`). What it granted alone is told with its next
question; and where Redis has lost a minute that this worker knows of, what it knows becomes the count again.
"""

import asyncio
from collections.abc import Callable, Sequence

from gateway.admission.rates import MINUTE_S, Question
from gateway.cluster.store import Store

_TOGETHER_MAX = 200

_Waiting = tuple[Sequence[Question], "asyncio.Future[list[bool] | None]"]

# KEYS: minutes. ARGV: of each, the most (0: it is only looked at), what is known of it, how much of that is not told yet, and
# the milliseconds it has left. Says of each: whether one was counted, how many there are, the milliseconds that are left.
_COUNT = """
local said = {}
for i, name in ipairs(KEYS) do
  local most, known, untold, left = unpack(ARGV, 4 * i - 3, 4 * i)
  local used = tonumber(redis.call('GET', name))
  if used == nil then
    used = 0
    if tonumber(known) > 0 and tonumber(left) > 0 then
      used = tonumber(known)
      redis.call('SET', name, known, 'PX', left)
    end
  elseif tonumber(untold) > 0 then
    used = redis.call('INCRBY', name, untold)
  end
  local granted = 0
  if used < tonumber(most) then
    used, granted = redis.call('INCR', name), 1
    if redis.call('PTTL', name) < 0 then redis.call('PEXPIRE', name, 60000) end
  end
  for _, one in ipairs({granted, used, math.max(0, redis.call('PTTL', name))}) do said[#said + 1] = one end
end
return said
"""


class Tally:
    def __init__(self, store: Store, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._count = store.script(_COUNT)
        self._waiting: list[_Waiting] = []
        self._trip: asyncio.Task[None] | None = None

    async def ask(self, questions: Sequence[Question]) -> list[bool] | None:
        """Count one in each window that has room, and bring all of them up to date; None when Redis is away."""
        if self._store.is_away:
            return None
        answer: asyncio.Future[list[bool] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((questions, answer))
        if self._trip is None:
            self._trip = asyncio.create_task(self._ask_all(), name="tally")
        return await answer

    async def close(self) -> None:
        if self._trip is not None:
            await self._trip

    async def _ask_all(self) -> None:
        together: list[_Waiting] = []
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:_TOGETHER_MAX], self._waiting[_TOGETHER_MAX:]
                _answer(together, await self._asked([one for questions, _ in together for one in questions]))
        finally:  # also where this ended before its time: nobody is left waiting
            self._trip = None
            _answer([*together, *self._waiting], None)
            self._waiting = []

    async def _asked(self, questions: list[Question]) -> list[bool] | None:
        now = self._monotonic()
        untold: list[int] = []
        args: list[int] = []
        for window, most in questions:
            left_s = window.left_s(now)
            untold.append(window.untold if left_s else 0)
            args += (most, window.used if left_s else 0, untold[-1], int(left_s * 1000))
            window.untold = 0  # it may be asked about twice
        names = [f"{self._store.prefix}:rate:{window.name}" for window, _ in questions]
        said = await self._store.ask(self._count, names, args)
        now = self._monotonic()
        if said is None:
            for (window, _), missed in zip(questions, untold, strict=True):
                window.untold += missed
            return None
        for (window, _), used, left_ms in zip(questions, said[1::3], said[2::3], strict=True):
            window.used, window.began = used, now - MINUTE_S + left_ms / 1000
        return [bool(granted) for granted in said[::3]]


def _answer(together: Sequence[_Waiting], granted: Sequence[bool] | None) -> None:
    said = iter(granted or ())
    for questions, answer in together:
        own = None if granted is None else [next(said) for _ in questions]
        if not answer.done():
            answer.set_result(own)
