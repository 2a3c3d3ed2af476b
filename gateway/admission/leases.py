"""How many calls one remote has at once, whichever of its sessions they are on; who comes too many waits in a short queue.

Waiting spends the call's own deadline. A queue that is full, or a turn that never comes, is "busy": an answer about us, not about
the remote. Lists, pings and what we tell remotes of our own accord need no lease: calls that hang must not stop them.
"""

import asyncio
from collections import deque

from gateway import metrics
from mcpserver.lib.limits import Limits
from remotes.upstream.outcome import Failure, Fault

RETRY_AFTER_S = 1.0


class Leases:
    def __init__(self, limits: Limits) -> None:
        self._active: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self.follow(limits)

    def follow(self, limits: Limits) -> None:
        """Allow so many from now on; those for whom there is room now have it at once."""
        self._max = limits.max_in_flight_per_remote
        for remote, queue in self._waiting.items():
            while queue and self._active.get(remote, 0) < self._max:
                turn = queue.popleft()
                if not turn.done():
                    self._active[remote] = self._active.get(remote, 0) + 1
                    turn.set_result(None)

    def take(self, remote: str) -> bool:
        """A lease, if one is free; it is given back exactly once."""
        active = self._active.get(remote, 0)
        if active >= self._max:
            return False
        self._active[remote] = active + 1
        return True

    async def wait(self, remote: str, deadline: float) -> Failure | None:
        """A lease when its turn comes, first come first served; or why there is none."""
        queue = self._waiting.setdefault(remote, deque())
        if len(queue) >= self._max:
            return self._busy(remote, f"{self._max} calls are open and {len(queue)} wait")
        loop = asyncio.get_running_loop()
        turn, began = loop.create_future(), loop.time()
        queue.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            self._leave(remote, queue, turn)
            return self._busy(remote, f"{self._max} calls are open, and this one's time ended before its turn")
        except asyncio.CancelledError:
            self._leave(remote, queue, turn)
            raise
        finally:
            metrics.QUEUED.labels(remote).observe(loop.time() - began)
        return None

    def give_back(self, remote: str) -> None:
        """To whoever waits longest, or to all."""
        queue = self._waiting.get(remote)
        active = self._active[remote]
        while queue and active <= self._max:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        if active > 1:
            self._active[remote] = active - 1
        else:
            del self._active[remote]
            self._waiting.pop(remote, None)

    def _leave(self, remote: str, queue: deque[asyncio.Future[None]], turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.give_back(remote)  # its turn came in the same moment
        elif turn in queue:
            queue.remove(turn)

    def _busy(self, remote: str, why: str) -> Failure:
        metrics.BUSY.labels(remote).inc()
        return Failure(Fault.BUSY, "lease", why, retry_after_s=RETRY_AFTER_S)
