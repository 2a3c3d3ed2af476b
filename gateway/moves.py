"""Which worker took over a session whose own is gone, in Redis, where all workers read the same.

Only such sessions are written down, and those that were ended. A note lasts as long as a session can live.
"""

import asyncio
import hashlib

from gateway.store import Store

_LASTS_S = 7 * 24 * 3600
# KEYS: a session, the address of each worker. ARGV: who opened it, who is known to be gone, who is proposed, seconds. Says who
# has the session from now on; nothing when it has ended.
_HOME = """
local home = redis.call('GET', KEYS[1])
if home == '' then return '' end
home = home or ARGV[1]
if home ~= ARGV[2] and redis.call('HEXISTS', KEYS[2], home) == 1 then return home end
redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[4])
return ARGV[3]
"""
_END = "return redis.call('SET', KEYS[1], '', 'EX', ARGV[1])"


class Moves:
    def __init__(self, store: Store, addresses: str) -> None:
        """`addresses`: the hash in which every worker that lives is named."""
        self._store = store
        self._addresses = addresses
        self._home, self._end = store.script(_HOME), store.script(_END)
        self._ending: set[asyncio.Task[object]] = set()

    async def home(self, id: str, owner: str, gone: str, proposed: str) -> str | None:
        """The worker that has a session which its owner has no more; empty: it has ended. None when Redis is away."""
        keys = [self._name(id), self._addresses]
        found = await self._store.ask(self._home, keys, [owner, gone, proposed, _LASTS_S])
        return None if found is None else str(found)

    def end(self, id: str) -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(self._store.ask(self._end, [self._name(id)], [_LASTS_S]))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _name(self, id: str) -> str:
        return f"{self._store.prefix}:session:{hashlib.blake2b(id.encode(), digest_size=16).hexdigest()}"
