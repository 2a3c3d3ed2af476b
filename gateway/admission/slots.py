"""How much may happen at once: requests in flight and open streams, per key and in all.

A refusal costs nothing: it is decided from two counters before anything is started. A request over its key's limit may wait for
its turn, for a moment, with as many others of its key as may be in flight: callers who send fifty at once mean no harm. No key
waits behind another's requests, and no remote behind another that has taken all of a key's slots and gives none back: beyond its
limit a key has a few for each remote. Requests are bounded in each worker, whose memory that protects; streams in this worker and
(where there are several) among all of them.
"""

import asyncio
from collections import deque
from typing import Protocol

import msgspec

from gateway import metrics
from keys.principal import Principal
from mcpserver.lib.limits import Limits

RETRY_AFTER_S = 5
KEY_STATUS = 429
# Beyond its limit a key may have that part of it at each remote, and in all.
_BEYOND_EACH = 8
_BEYOND_MAX = 2


class Full(msgspec.Struct, frozen=True):
    """Why there is no slot: the HTTP status, how long to wait, and which limit was met."""

    status: int
    retry_after_s: int
    message: str


class _Turn(msgspec.Struct, frozen=True, eq=False):
    come: asyncio.Future[None]
    remote: str


class Counter:
    """One kind of slot."""

    def __init__(self, what: str, *, total_status: int) -> None:
        self.per_key: dict[str, int] = {}
        self.active = 0
        self.refused = 0
        self.max = 0
        self._max_per_key = 0
        self.shut: Full | None = None
        """Why nothing of this kind is begun at present, whoever asks."""
        self._what = what
        self._total_status = total_status
        self.waiting = 0
        self._waiting: dict[str, deque[_Turn]] = {}
        self._beyond: dict[str, dict[str, int]] = {}

    def allow(self, per_key: int, total: int) -> None:
        self._max_per_key, self.max = per_key, total
        self._pass_on()

    def take(self, key_id: str, own_max: int | None = None) -> Full | None:
        """Take a slot, or say why there is none; a slot that was taken is given back exactly once. `own_max`: the key's own."""
        if self.shut is not None:
            self.refused += 1
            return self.shut
        held = self.per_key.get(key_id, 0)
        if held >= (most := self._max_per_key if own_max is None else own_max):
            self.refused += 1
            return Full(KEY_STATUS, RETRY_AFTER_S, f"this key has {held} {self._what}, its limit is {most}")
        if self.active >= self.max:
            self.refused += 1
            return Full(
                self._total_status,
                RETRY_AFTER_S,
                f"the gateway has {self.active} {self._what}, its limit is {self.max}",
            )
        self.per_key[key_id] = held + 1
        self.active += 1
        return None

    async def wait(self, key_id: str, full: Full, seconds: float, remote: str = "") -> Full | None:
        """After `take` said `full`: a slot when its turn comes, first come first served; or why there is none.

        What takes no time, `seconds` 0, has it at once beyond its key's limit, and what goes to a `remote` where few of its key's
        requests went beyond it. Who is cancelled while it waits leaves the queue.
        """
        if full.status != KEY_STATUS:
            return full
        if seconds <= 0:
            self._add(key_id)
        elif not (self._has_taken(key_id, remote) or await self._turn(key_id, seconds, remote)):
            return full
        self.refused -= 1
        return None

    async def _turn(self, key_id: str, seconds: float, remote: str) -> bool:
        if len(self._waiting.get(key_id, ())) >= self._max_per_key or self.waiting >= self.max:
            return False
        queue = self._waiting.setdefault(key_id, deque())
        come = asyncio.get_running_loop().create_future()
        turn = _Turn(come, remote)
        queue.append(turn)
        self.waiting += 1
        try:
            await asyncio.wait((come,), timeout=seconds)
        except asyncio.CancelledError:
            if come.done():  # its turn came in the same moment
                self.give_back(key_id, remote)
            raise
        finally:
            self.waiting -= 1
            if not come.done():
                queue.remove(turn)
            if not queue and self._waiting.get(key_id) is queue:
                del self._waiting[key_id]
        return come.done()

    def give_back(self, key_id: str, remote: str = "") -> None:
        """`remote`: where the request went, as far as it came."""
        self.active -= 1
        held = self.per_key[key_id] - 1
        if held:
            self.per_key[key_id] = held
        else:
            del self.per_key[key_id]
        if self._beyond:
            self._let_back(key_id, remote, held)
        if self._waiting:
            self._pass_on()

    def _let_back(self, key_id: str, remote: str, held: int) -> None:
        """One that ended at a remote makes room for the next there; a key that is within its limit again has nothing beyond."""
        beyond = self._beyond.get(key_id, {})
        if beyond.get(remote):
            beyond[remote] -= 1
        if held <= self._max_per_key:
            self._beyond.pop(key_id, None)

    def _pass_on(self) -> None:
        """To whoever waits longest of each key that has room. Only keys at their own limit have anybody waiting."""
        for key_id, queue in self._waiting.items():
            for turn in [turn for turn in queue if self._has_taken(key_id, turn.remote)]:
                queue.remove(turn)
                turn.come.set_result(None)

    def _has_taken(self, key_id: str, remote: str) -> bool:
        """Take a slot, if there is one for a request to this remote."""
        if self.active >= self.max:
            return False
        held, most = self.per_key.get(key_id, 0), self._max_per_key
        if held >= most:
            beyond = self._beyond.get(key_id, {}).get(remote, 0)
            room = min(most // _BEYOND_EACH - beyond, most + most // _BEYOND_MAX - held)
            if not remote or room <= 0:
                return False
            self._beyond.setdefault(key_id, {})[remote] = beyond + 1
        self._add(key_id)
        return True

    def _add(self, key_id: str) -> None:
        self.per_key[key_id] = self.per_key.get(key_id, 0) + 1
        self.active += 1


class Cluster(Protocol):
    """Streams among all workers (`gateway.cluster.shared`)."""

    async def take(self, key_id: str, per_key: int, total: int) -> Full | None: ...

    def give_back(self, key_id: str) -> None: ...


class Slots:
    def __init__(self, limits: Limits) -> None:
        self.requests = Counter("requests in flight", total_status=503)
        self.streams = Counter("open streams", total_status=429)
        self.cluster: Cluster | None = None
        """Counts streams among all workers, where there are several."""
        self.follow(limits)

    async def open_stream(self, principal: Principal) -> Full | None:
        """Take a slot for a stream, here and among all workers, or say why there is none."""
        key_id, own_max = principal.key_id, principal.grant.max_connections
        full = self.streams.take(key_id, own_max)
        if full is not None:
            return _told(full)
        if self.cluster is None:
            return None
        per_key = self._per_key if own_max is None else own_max
        try:
            full = await self.cluster.take(key_id, per_key, self.streams.max)
        except BaseException:
            self.streams.give_back(key_id)
            raise
        if full is not None:
            self.streams.refused += 1
            self.streams.give_back(key_id)
            return _told(full)
        return None

    def close_stream(self, key_id: str) -> None:
        self.streams.give_back(key_id)
        if self.cluster is not None:
            self.cluster.give_back(key_id)

    def follow(self, limits: Limits) -> None:
        """Take other limits from now on; what is open stays open."""
        self.requests.allow(limits.max_in_flight_per_key, limits.max_requests_in_flight)
        self._per_key = limits.max_connections_per_key
        self.streams.allow(limits.max_connections_per_key, limits.max_total_connections)


def _told(full: Full) -> Full:
    metrics.REFUSED.labels("streams").inc()
    return full
