"""What one worker learnt in a call and any other may need for the next: names with a value, in Redis, bounded and soon forgotten.

The first who puts a name there decides what it means; whoever puts it later is told. Each owner has room for so many names: the
oldest of its own give way. Redis away: every worker goes by what it knows itself.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gateway.cluster.store import Store  # with Redis, which a single worker needs none of


_MOST = 1024
# After the last use of any.
_LASTS_S = 24 * 3600
# KEYS: all names, those of the owner by time. ARGV: the owner, how many it may have, seconds, then names and values in turns.
# Says for each what stands there.
_PUT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local standing = {}
for i = 4, #ARGV, 2 do
  local found = redis.call('HGET', KEYS[1], ARGV[i])
  if not found then
    found = ARGV[1] .. '\\n' .. ARGV[i + 1]
    redis.call('HSET', KEYS[1], ARGV[i], found)
  end
  if string.match(found, '^[^\\n]*') == ARGV[1] then redis.call('ZADD', KEYS[2], now, ARGV[i]) end
  standing[#standing + 1] = found
end
local over = redis.call('ZCARD', KEYS[2]) - ARGV[2]
if over > 0 then
  local old = redis.call('ZPOPMIN', KEYS[2], over)
  for i = 1, #old, 2 do redis.call('HDEL', KEYS[1], old[i]) end
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
return standing
"""
_GET = "return redis.call('HMGET', KEYS[1], unpack(ARGV))"


class Standing(NamedTuple):
    owner: str
    value: str


class Shelf:
    def __init__(self, store: "Store", kind: str) -> None:
        self._store = store
        self._name = f"{store.prefix}:{kind}"
        self._put, self._get = store.script(_PUT), store.script(_GET)

    async def put(self, owner: str, items: Sequence[tuple[str, str]]) -> list[Standing] | None:
        """Say what names mean, and hear what they do mean; None when Redis is away."""
        words = [word for item in items for word in item]
        found = await self._store.ask(
            self._put, [self._name, f"{self._name}:{owner}"], [owner, _MOST, _LASTS_S, *words]
        )
        return None if found is None else [_read(one) for one in found]

    async def get(self, names: Sequence[str]) -> list[Standing | None]:
        """What names mean, of those that anybody put there."""
        found = await self._store.ask(self._get, [self._name], names) if names else None
        return [None] * len(names) if found is None else [_read(one) if one else None for one in found]


def _read(standing: str) -> Standing:
    owner, _, value = standing.partition("\n")
    return Standing(owner, value)
