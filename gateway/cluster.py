"""What several workers and machines share through Redis: who lives where, and how many streams each key has open in all.

Leases, not counters: what a worker that was killed held comes free by itself within 90 seconds. Redis is asked when a stream
opens, never for a call. While it is away each worker counts for itself and goes on with the neighbours it knew last; both are
told in status, and come right by themselves when Redis is back.
"""

import asyncio
import hashlib
import itertools
import logging
import socket
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.exceptions import RedisError

from gateway.neighbours import Neighbours
from gateway.slots import Full

log = logging.getLogger("mcp.cluster")

LEASE_S = 90
RENEW_S = 25.0
# A worker that has not said for so long that it lives does not.
ALIVE_S = 15
# Redis answers in a millisecond, or something is wrong with it; then it is left alone for a while.
_TIMEOUT_S = 1.0
_PAUSE_S = 5.0
_AWAY = (RedisError, OSError, TimeoutError)

# KEYS: the key's streams, all streams. ARGV: the lease's name, most per key, most in all, seconds. Redis' own clock counts.
_TAKE = """
local now = tonumber(redis.call('TIME')[1])
for _, name in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', name, '-inf', now) end
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
local ends = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[1])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], ends, ARGV[1 + math.floor((i + 1) / 2)])
  redis.call('EXPIRE', KEYS[i], 2 * tonumber(ARGV[1]))
end
"""
# KEYS: when each worker is to be forgotten, its address. ARGV: this worker, its address, seconds.
_TELL = """
local now = tonumber(redis.call('TIME')[1])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do redis.call('HDEL', KEYS[2], gone) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return redis.call('HGETALL', KEYS[2])
"""


class Cluster:
    """`address` is where other machines reach this one; `secret` tells gateways apart that share one Redis."""

    def __init__(self, url: str, secret: bytes, neighbours: Neighbours, address: str) -> None:
        self.errors = 0
        self.is_away = False
        self._neighbours = neighbours
        self._address = address
        self._redis = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=True
        )
        self._prefix = f"mcp:{hashlib.sha256(secret + b'cluster').hexdigest()[:12]}"
        self._take: Any = self._redis.register_script(_TAKE)
        self._renew: Any = self._redis.register_script(_RENEW)
        self._tell: Any = self._redis.register_script(_TELL)
        self._numbers = itertools.count()
        self._held: dict[str, list[str]] = {}
        self._quiet_until = 0.0
        self._renew_at = 0.0
        self._freeing: set[asyncio.Task[None]] = set()

    async def take(self, key_id: str, per_key: int, total: int) -> Full | None:
        """Lease a stream among all workers, or say why not. Redis away: granted, as this worker's own count has been."""
        name = f"{self._neighbours.own}.{next(self._numbers)}"
        arguments = [name, per_key, total, LEASE_S]
        verdict = await self._asked(self._take, keys=self._names(key_id), args=arguments)
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
        task = asyncio.ensure_future(self._free(key_id, name))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def tick(self) -> None:
        """To be called every few seconds: say that we live, hear who else does, keep what we hold."""
        told = await self._asked(self._tell, keys=self._registry(), args=[self._neighbours.own, self._address, ALIVE_S])
        if told is not None:
            self._neighbours.heard(dict(zip(told[::2], told[1::2], strict=True)))
        now = asyncio.get_running_loop().time()
        if self._held and (now >= self._renew_at) and not self.is_away:
            self._renew_at = now + RENEW_S
            pairs = [(key_id, name) for key_id, names in self._held.items() for name in names]
            keys = [one for key_id, _ in pairs for one in self._names(key_id)]
            await self._asked(self._renew, keys=keys, args=[LEASE_S, *(name for _, name in pairs)])

    async def leave(self) -> None:
        """Others need not wait to notice: nothing new is sent here, and what was leased is free."""
        await self._asked(self._tell, keys=self._registry(), args=[self._neighbours.own, "", ALIVE_S])

    async def close(self) -> None:
        for key_id, names in list(self._held.items()):
            for _ in list(names):
                self.give_back(key_id)
        await asyncio.gather(*self._freeing, return_exceptions=True)
        await self._redis.aclose()

    def facts(self) -> dict[str, Any]:
        workers, machines = self._neighbours.count()
        return {"redis": "down" if self.is_away else "ok", "errors": self.errors, "workers": workers, "nodes": machines}

    async def _free(self, key_id: str, name: str) -> None:
        async def freed(**_: Any) -> int:
            async with self._redis.pipeline(transaction=False) as pipe:
                for one in self._names(key_id):
                    pipe.zrem(one, name)
                await pipe.execute()
            return 1

        await self._asked(freed)

    async def _asked(self, script: Any, **arguments: Any) -> Any:
        """What a script says; None when Redis is away, which is noted once and tried again after a pause."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._quiet_until:
            return None
        try:
            async with asyncio.timeout(2 * _TIMEOUT_S):
                answer = await script(**arguments)
        except _AWAY as error:
            self.errors += 1
            self._quiet_until = loop.time() + _PAUSE_S
            if not self.is_away:
                log.warning("Redis is away: each worker counts for itself (%s)", type(error).__name__)
            self.is_away = True
            return None
        if self.is_away:
            log.info("Redis is back")
            self.is_away, self._renew_at = False, 0.0
        return answer if answer is not None else 0

    def _names(self, key_id: str) -> list[str]:
        return [f"{self._prefix}:streams:{key_id}", f"{self._prefix}:streams"]

    def _registry(self) -> list[str]:
        return [f"{self._prefix}:workers", f"{self._prefix}:addresses"]


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
