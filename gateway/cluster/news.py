"""What one worker hears of a remote outside any request, told to all the others over Redis: as a hint, never as the thing itself.

Many servers tell of a change only on the session in which it was made, and each worker has sessions of its own. A hint that gets
lost (Redis is away, somebody is behind) costs what it would have been without it; after an interruption all lists are looked at.
Bounded: what is said within a moment travels as one message, and what exceeds that is dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from gateway.cluster.store import Store

log = logging.getLogger("mcp.cluster")

CHANGED, UPDATED, MISSED = "changed", "updated", "missed"
Heard = Callable[[str, str, str], None]
"""A remote, what was heard of it, and the list or resource that it concerns. `MISSED` concerns all remotes."""

_MOMENT_S = 0.05
_AT_ONCE_MAX = 256
_URI_MAX = 2048
_AGAIN_S = 2.0
_SAY = "return redis.call('PUBLISH', KEYS[1], ARGV[1])"


class Message(msgspec.Struct, array_like=True, frozen=True):
    by: str
    items: list[tuple[str, str, str]]


class News:
    def __init__(self, store: Store, own: str) -> None:
        self.on_heard: Heard = lambda remote, what, text: None
        self._store = store
        self._own = own
        self._channel = f"{store.prefix}:news"
        self._say = store.script(_SAY)
        self._waiting: dict[tuple[str, str, str], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._spawn(self._follow())

    def say(self, remote: str, what: str, text: str) -> None:
        """Tell the others, in a moment."""
        if len(self._waiting) >= _AT_ONCE_MAX or len(text) > _URI_MAX:
            return
        if not self._waiting:
            self._spawn(self._send())
        self._waiting[remote, what, text] = None

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self) -> None:
        await asyncio.sleep(_MOMENT_S)
        items, self._waiting = list(self._waiting), {}
        words = msgspec.json.encode(Message(self._own, items)).decode()
        await self._store.ask(self._say, [self._channel], [words])

    async def _follow(self) -> None:
        was_lost = False
        while True:
            try:
                async for words in self._store.hear(self._channel):
                    if words is not None:
                        self._took(words)
                    elif was_lost:  # connected again
                        was_lost = False
                        self.on_heard("", MISSED, "")
            except self._store.AWAY as error:
                log.debug("the other workers are not heard: %s", type(error).__name__)
            except Exception:
                log.exception("hearing the other workers failed")
            was_lost = True
            await asyncio.sleep(_AGAIN_S)

    def _took(self, words: str) -> None:
        try:
            message = msgspec.json.decode(words, type=Message)
        except msgspec.DecodeError:
            return  # one of another version
        if message.by != self._own:
            for item in message.items:
                self.on_heard(*item)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
