"""What several workers and machines share through Redis: who lives where, how many streams each key has open in all, how
many requests a minute the keys make that have a rate (`tally`), and who has a session whose own worker is gone (`moves`).

Leases, not counters: what a worker that was killed held comes free by itself within 90 seconds. Redis is asked when a stream
opens, and for no call of a key without a rate. While it is away each worker counts for itself and goes on with the neighbours it
knew last; both are told in status, and come right by themselves when Redis is back.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.admission.slots import Full
from gateway.cluster import said
from gateway.cluster.moves import Moves
from gateway.cluster.neighbours import Neighbours
from gateway.cluster.news import News
from gateway.cluster.shelf import Shelf
from gateway.cluster.store import Store
from gateway.cluster.tally import Tally

LEASE_S = 90
RENEW_S = 25.0
# A worker that has not said for so long that it lives does not.
ALIVE_S = 15
# Leases that ended while Redis was away: they are given back when it is there again, or end by themselves.
_UNFREED_MAX = 1000

# KEYS: the key's streams, all streams. ARGV: the lease's name, most per key, most in all, seconds. Redis' own clock counts.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
for _, name in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
  -- Longer than a lease can be: of before this clock was set back. Who holds it renews it soon.
  redis.call('ZREMRANGEBYSCORE', name, now + ARGV[4] + 1, '+inf')
end
local mine, all = redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])
if mine >= tonumber(ARGV[2]) then return {1, mine} end
if all >= tonumber(ARGV[3]) then return {2, all} end
for _, name in ipairs(KEYS) do
  redis.call('ZADD', name, now + tonumber(ARGV[4]), ARGV[1])
  redis.call('EXPIRE', name, 2 * tonumber(ARGV[4]))
end
return {0, mine + 1}
"""
# KEYS: the same, in pairs. ARGV: seconds, then one lease's name for each pair.
_RENEW = """
local time = redis.call('TIME')
local ends = time[1] + time[2] / 1000000 + ARGV[1]
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], ends, ARGV[1 + math.floor((i + 1) / 2)])
  redis.call('EXPIRE', KEYS[i], 2 * tonumber(ARGV[1]))
end
"""
_FREE = "for _, name in ipairs(KEYS) do redis.call('ZREM', name, ARGV[1]) end"
# KEYS: when each worker is to be forgotten, its address. ARGV: this worker, its address, seconds. Says whether this worker was
# known, then all addresses.
_TELL = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local lives = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #lives, 2 do
  local ends = tonumber(lives[i + 1])
  if ends > now + ARGV[3] + 1 or ends < now - 4 * ARGV[3] then
    -- Too far off for somebody whom all the others looked after: this clock was set. It has a life from now.
    redis.call('ZADD', KEYS[1], now + ARGV[3], lives[i])
  elseif ends <= now then
    redis.call('ZREM', KEYS[1], lives[i])
    redis.call('HDEL', KEYS[2], lives[i])
  end
end
local known = redis.call('HEXISTS', KEYS[2], ARGV[1])
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return {known, redis.call('HGETALL', KEYS[2])}
"""


class Cluster:
    """`address` is where other machines reach this one."""

    def __init__(
        self,
        store: Store,
        neighbours: Neighbours,
        address: str,
        monotonic: Callable[[], float],
        *,
        lease_s: int = LEASE_S,
        of_workers: int = 1,
    ) -> None:
        """`of_workers`: how many this machine is to have."""
        self._lease_s = lease_s
        self.tally = Tally(store, monotonic)
        self._store = store
        self._neighbours = neighbours
        self._address = address
        self.moves = Moves(store, self._registry()[1])
        self.news = News(store, neighbours.own)
        self.links, self.tasks = Shelf(store, "links"), Shelf(store, "tasks")
        self._host = socket.gethostname()
        self._of_workers = of_workers
        self._take, self._renew, self._free, self._tell = map(store.script, (_TAKE, _RENEW, _FREE, _TELL))
        self._say = store.script(said.SAY)
        self._numbers = itertools.count()
        self._held: dict[str, list[str]] = {}
        self._renew_at = 0.0
        self._freeing: set[asyncio.Task[None]] = set()
        self._unfreed: list[tuple[str, str]] = []

    async def take(self, key_id: str, per_key: int, total: int) -> Full | None:
        """Lease a stream among all workers, or say why not. Redis away: granted, as this worker's own count has been."""
        name = f"{self._neighbours.own}.{next(self._numbers)}"
        arguments = [name, per_key, total, self._lease_s]
        try:
            verdict = await self._store.ask(self._take, self._names(key_id), arguments)
        except asyncio.CancelledError:
            self._free_soon(key_id, name)  # it may have been granted
            raise
        if verdict is None or verdict[0] == 0:
            self._held.setdefault(key_id, []).append(name)
            return None
        if verdict[0] == 1:
            return Full(429, 5, f"this key has {verdict[1]} open streams, its limit is {per_key}")
        return Full(429, 5, f"the gateway has {verdict[1]} open streams, its limit is {total}")

    def give_back(self, key_id: str) -> None:
        names = self._held.get(key_id)
        if not names:
            return
        name = names.pop()
        if not names:
            del self._held[key_id]
        self._free_soon(key_id, name)

    async def tick(self) -> None:
        """To be called every few seconds: say that we live, hear who else does, keep what we hold."""
        was_away = self._store.is_away
        url = "" if self._neighbours.is_leaving else self._address
        words = [self._neighbours.own, url, ALIVE_S]
        told = await self._store.ask(self._tell, self._registry(), words, anyway=True)
        if told is None:
            self._neighbours.is_blind = True
            return
        is_known, urls = told
        self._neighbours.heard(dict(zip(urls[::2], urls[1::2], strict=True)))
        unfreed, self._unfreed = self._unfreed, []
        for key_id, name in unfreed:
            await self._given_back(key_id, name)
        now = asyncio.get_running_loop().time()
        if self._held and (was_away or not is_known or now >= self._renew_at):  # unknown: Redis has lost its memory
            self._renew_at = now + RENEW_S
            pairs = [(key_id, name) for key_id, names in self._held.items() for name in names]
            keys = [one for key_id, _ in pairs for one in self._names(key_id)]
            await self._store.ask(self._renew, keys, [self._lease_s, *(name for _, name in pairs)])
            for key_id, name in pairs:
                if name not in self._held.get(key_id, ()):
                    self._free_soon(key_id, name)  # it was closed meanwhile, and is leased again by this

    async def say(self, document: Mapping[str, Any]) -> None:
        """Leave word of how this worker is, for who asks about all; replaced by the next."""
        await self._left_word(said.packed(document))

    async def leave(self) -> None:
        """Others need not wait to notice: nothing new is sent here."""
        await self._store.ask(self._tell, self._registry(), [self._neighbours.own, "", ALIVE_S])

    async def close(self) -> None:
        for key_id, names in list(self._held.items()):
            for _ in list(names):
                self.give_back(key_id)
        await asyncio.gather(*self._freeing, self._left_word(""), return_exceptions=True)
        await self.tally.close()
        await self.moves.close()
        await self.news.close()
        await self._store.close()

    def facts(self) -> dict[str, Any]:
        workers, machines = self._neighbours.count()
        word = "down" if self._store.is_away else "ok"
        counted = {"errors": self._store.errors, "workers": workers, "nodes": machines}
        return {"redis": word, **counted, "of_workers": self._of_workers, "address": self._address, "host": self._host}

    async def _left_word(self, text: str) -> None:
        await self._store.ask(self._say, said.names(self._store.prefix), [self._neighbours.own, text, said.KEPT_S])

    def _free_soon(self, key_id: str, name: str) -> None:
        task = asyncio.ensure_future(self._given_back(key_id, name))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def _given_back(self, key_id: str, name: str) -> None:
        if await self._store.ask(self._free, self._names(key_id), [name]) is None:
            self._unfreed = [*self._unfreed[-_UNFREED_MAX:], (key_id, name)]

    def _names(self, key_id: str) -> list[str]:
        return [f"{self._store.prefix}:streams:{key_id}", f"{self._store.prefix}:streams"]

    def _registry(self) -> list[str]:
        return [f"{self._store.prefix}:workers", f"{self._store.prefix}:addresses"]


def address(host: str, port: int, redis_url: str) -> str:
    """Where the other machines of a cluster reach this one, unless the operator says it: the address it has towards Redis."""
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"
    parts = urlsplit(redis_url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting sends nothing; it chooses a route
        try:
            probe.connect((parts.hostname or "127.0.0.1", parts.port or 6379))
            return f"http://{probe.getsockname()[0]}:{port}"
        except OSError:
            return f"http://127.0.0.1:{port}"
