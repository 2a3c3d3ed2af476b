"""Which worker took over a session whose own is gone, and what that session had asked for, in Redis, where all read the same.

Only sessions that moved are written down, those that were ended, and those that asked for something that outlasts a request (a
log level, changes of resources). A note lasts as long as a session can live.
"""

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gateway.cluster.store import Store  # with Redis, which a single worker needs none of


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
_NOTE = "return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"
_NOTED = "return redis.call('GET', KEYS[1]) or ''"


class Asked(msgspec.Struct, frozen=True):
    """What a session asked for beyond its requests."""

    log_level: str | None = None
    uris: list[str] = []


class Moves:
    def __init__(self, store: "Store", addresses: str) -> None:
        """`addresses`: the hash in which every worker that lives is named."""
        self._store = store
        self._addresses = addresses
        self._home, self._end, self._note, self._noted = map(store.script, (_HOME, _END, _NOTE, _NOTED))
        self._telling: set[asyncio.Task[object]] = set()

    async def home(self, id: str, owner: str, gone: str, proposed: str) -> str | None:
        """The worker that has a session which its owner has no more; empty: it has ended. None when Redis is away."""
        keys = [self._name(id), self._addresses]
        found = await self._store.ask(self._home, keys, [owner, gone, proposed, _LASTS_S])
        return None if found is None else str(found)

    def end(self, id: str) -> None:
        self._begin(self._store.ask(self._end, [self._name(id)], [_LASTS_S]))

    def note(self, id: str, asked: Asked) -> None:
        words = msgspec.json.encode(asked).decode()
        self._begin(self._store.ask(self._note, [f"{self._name(id)}:asked"], [words, _LASTS_S]))

    async def noted(self, id: str) -> Asked | None:
        words = await self._store.ask(self._noted, [f"{self._name(id)}:asked"])
        return msgspec.json.decode(words, type=Asked) if words else None

    async def close(self) -> None:
        await asyncio.gather(*self._telling, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _name(self, id: str) -> str:
        return f"{self._store.prefix}:session:{hashlib.blake2b(id.encode(), digest_size=16).hexdigest()}"
