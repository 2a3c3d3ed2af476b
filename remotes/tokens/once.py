"""A piece of work that many may want at the same time and that is done once for all of them.

Each waits no longer than its own deadline; the work goes on for the others, and to its end when nobody waits any more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

log = logging.getLogger("mcp.tokens")

T = TypeVar("T")


class Once(Generic[T]):
    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    @property
    def under_way(self) -> bool:
        return self._task is not None

    def begin(self) -> Awaitable[T]:
        """The work that is under way, or now begins."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(self._over)
        return self._task

    async def joined(self, deadline: float) -> T:
        """Its result; TimeoutError at the loop's time `deadline`."""
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(self.begin())

    async def close(self, patience_s: float) -> None:
        """Let it end; cancel it when that takes too long."""
        task = self._task
        if task is None:
            return
        await asyncio.wait({task}, timeout=patience_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _over(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("keeping a token failed", exc_info=error)  # perhaps nobody waits for it any more
