"""What workers tell each other through a real Redis: who has a session, what a name means, what was heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.cluster.homes import Homes
from gateway.cluster.moves import Asked
from gateway.cluster.neighbours import Neighbours
from gateway.cluster.shared import Cluster
from gateway.cluster.shelf import Shelf, Standing
from gateway.cluster.store import Store
from tests.system import servers

GONE = "abcdef12345678"


@pytest.fixture(scope="module")
def redis() -> Iterator[servers.Redis]:
    with servers.redis() as server:
        yield server


class Worker:
    """Of a machine of its own."""

    def __init__(self, url: str, folder: Path, secret: bytes) -> None:
        folder.mkdir()
        self.store = Store(url, secret)
        self.neighbours = Neighbours(folder)
        self.cluster = Cluster(self.store, self.neighbours, f"http://{folder.name}", time.monotonic)
        self.homes = Homes(self.neighbours, self.cluster)
        self.heard: list[tuple[str, str, str]] = []
        self.cluster.news.on_heard = lambda *item: self.heard.append(item)


Make = Callable[[], Worker]


@pytest.fixture
async def worker(redis: servers.Redis, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker(redis.url, tmp_path / f"machine-{len(made)}", str(tmp_path).encode()))
        return made[-1]

    yield make
    for one in made:
        await one.cluster.close()


async def test_workers_that_met_at_different_times_agree_where_sessions_went(worker: Make) -> None:
    first = worker()
    await first.cluster.tick()
    early = {name: await first.homes.of(name, GONE) for name in "abcdefgh"}
    assert set(early.values()) == {first.neighbours.own}
    second = worker()
    await second.cluster.tick()
    for one in (first, second):
        await one.cluster.tick()
        assert {name: await one.homes.of(name, GONE) for name in early} == early, "a newcomer takes nothing"
    await first.cluster.leave()
    first.neighbours.leave()
    await second.cluster.tick()
    place = second.neighbours.find(first.neighbours.own)
    assert place is not None, "a machine that falls silent may only be slow"
    second.neighbours.forget(place)  # nobody opened there
    assert {await second.homes.of(name, GONE) for name in early} == {second.neighbours.own}
    assert {await first.homes.of(name, GONE) for name in early} == {second.neighbours.own}


async def test_a_session_that_was_ended_does_not_come_back_elsewhere(worker: Make) -> None:
    first, second = worker(), worker()
    first.homes.ended("s")
    await first.cluster.moves.close()
    assert await second.homes.of("s", GONE) == ""


async def test_what_a_session_asked_for_is_known_to_who_takes_it_over(worker: Make) -> None:
    first, second = worker(), worker()
    first.cluster.moves.note("s", Asked("debug", ["a://1"]))
    await first.cluster.moves.close()
    assert await second.cluster.moves.noted("s") == Asked("debug", ["a://1"])
    assert await second.cluster.moves.noted("another") is None


async def test_a_name_means_what_the_first_said_and_each_owner_has_room_of_its_own(worker: Make) -> None:
    one, two = (Shelf(each.store, "links") for each in (worker(), worker()))
    assert await one.put("docs", [("a://1", "a://1")]) == [("docs", "a://1")]
    assert await two.put("wiki", [("a://1", "a://1"), ("wiki+a://1", "a://1")]) == [
        ("docs", "a://1"),
        ("wiki", "a://1"),
    ]
    await one.put("flood", [(f"a://flood{number}", "x") for number in range(1500)])
    found = await two.get(["a://1", "wiki+a://1", "a://flood0", "a://flood1499", "nobody"])
    assert found == [Standing("docs", "a://1"), Standing("wiki", "a://1"), None, Standing("flood", "x"), None]


async def test_what_one_hears_the_others_do(worker: Make) -> None:
    first, second = worker(), worker()
    for one in (first, second):
        one.cluster.news.start()
    async with asyncio.timeout(5):
        while not second.heard:
            first.cluster.news.say("docs", "updated", "a://1")
            await asyncio.sleep(0.02)
    assert set(second.heard) == {("docs", "updated", "a://1")}
    assert first.heard == []


async def test_without_redis_everybody_goes_by_what_he_knows(worker: Make, redis: servers.Redis) -> None:
    one = worker()
    shelf = Shelf(one.store, "links")
    redis.kill()
    try:
        assert await one.homes.of("s", GONE) == one.neighbours.own
        assert await shelf.put("docs", [("a://1", "a://1")]) is None
        assert await shelf.get(["a://1"]) == [None]
    finally:
        redis.start()
