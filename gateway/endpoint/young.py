"""Requests that have not been open for long. Nearly all end before they grow old, so growing old is not worth a timer each.

One timer for all of them, and only while there are any: who is still here after two of its ticks is told.
"""

import asyncio
from typing import Protocol

# Tools that take a tenth of a second are common; being watched costs a request a quarter more.
TICK_S = 0.2


class Aging(Protocol):
    def grown_old(self) -> None:
        """It has been open for one to two ticks."""


class Young:
    def __init__(self) -> None:
        self._newest: set[Aging] = set()
        self._older: set[Aging] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: Aging) -> None:
        self._newest.add(request)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def discard(self, request: Aging) -> None:
        self._newest.discard(request)
        self._older.discard(request)

    def _tick(self) -> None:
        grown, self._older, self._newest = self._older, self._newest, set()
        is_idle = not self._older
        self._timer = None if is_idle else asyncio.get_running_loop().call_later(TICK_S, self._tick)
        for request in grown:
            request.grown_old()
