"""What a worker hears, told to the others: together, bounded, and never to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from gateway.cluster import news as module
from gateway.cluster.news import CHANGED, MISSED, UPDATED, News
from gateway.cluster.store import Store


class Redis:
    """One channel: what is said on it reaches whoever listens, until it is cut."""

    AWAY = (OSError,)
    prefix = "mcp:x"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.listening: list[asyncio.Queue[str | None]] = []

    def script(self, text: str) -> str:
        return text

    async def ask(self, script: str, keys: Any, args: Any) -> int:
        self.said += args
        for one in self.listening:
            one.put_nowait(args[0])
        return len(self.listening)

    async def hear(self, channel: str) -> AsyncIterator[str | None]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.listening.append(queue)
        yield None
        while (words := await queue.get()) is not None:
            yield words
        raise ConnectionResetError

    def cut(self) -> None:
        listening, self.listening = self.listening, []
        for one in listening:
            one.put_nowait(None)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOMENT_S", 0.0)
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)


def listener(redis: Redis, own: str) -> tuple[News, list[tuple[str, str, str]]]:
    news, heard = News(cast("Store", redis), own), list[tuple[str, str, str]]()
    news.on_heard = lambda *item: heard.append(item)
    news.start()
    return news, heard


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_said_in_one_moment_reaches_the_others_together_and_nobody_twice() -> None:
    redis = Redis()
    (one, own), (_, others) = listener(redis, "one"), listener(redis, "two")
    await settle()
    for _ in range(3):
        one.say("docs", UPDATED, "a")
    one.say("docs", CHANGED, "tools")
    await settle()
    assert len(redis.said) == 1
    assert (own, others) == ([], [("docs", UPDATED, "a"), ("docs", CHANGED, "tools")])


async def test_a_flood_is_cut_short() -> None:
    redis = Redis()
    (one, _), (_, others) = listener(redis, "one"), listener(redis, "two")
    await settle()
    for number in range(1000):
        one.say("docs", UPDATED, f"a{number}")
    one.say("docs", UPDATED, "x" * 3000)
    await settle()
    assert len(others) == 256


async def test_after_an_interruption_everything_may_have_changed() -> None:
    redis = Redis()
    news, heard = listener(redis, "one")
    await settle()
    assert heard == []
    redis.cut()
    await settle()
    assert heard == [("", MISSED, "")]
    await redis.ask("", (), ["no message of ours"])
    await news.close()
