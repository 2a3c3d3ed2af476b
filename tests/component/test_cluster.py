"""What workers share through a real Redis, which is killed, frozen and started again: leases of streams, and rates."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.admission.rates import Rates
from gateway.cluster.neighbours import Neighbours
from gateway.cluster.shared import Cluster
from gateway.cluster.store import Store
from keys.grant import Grant
from keys.principal import Principal
from tests.system import servers

SECRET = b"of this test"
KEY = Principal("k1", "main", Grant(rate=50, rates=(("stripe", 20),)))


@pytest.fixture(scope="module")
def redis() -> Iterator[servers.Redis]:
    with servers.redis() as server:
        yield server


class Worker:
    def __init__(self, url: str, folder: Path, *, lease_s: int) -> None:
        self.store = Store(url, SECRET)
        self.neighbours = Neighbours(folder)
        self.cluster = Cluster(self.store, self.neighbours, "http://here", time.monotonic, lease_s=lease_s)
        self.rates = Rates(time.monotonic, self.cluster.tally)

    async def opens(self, key_id: str = "k1", per_key: int = 2, total: int = 100) -> bool:
        return await self.cluster.take(key_id, per_key, total) is None

    def left(self, principal: Principal) -> bytes:
        return self.rates.headers(principal)[1][1]


Make = Callable[..., Worker]


@pytest.fixture
async def worker(redis: servers.Redis, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Worker] = []

    def make(*, lease_s: int = 90) -> Worker:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Worker(redis.url, folder, lease_s=lease_s))
        return made[-1]

    async with Redis.from_url(redis.url) as client:
        await client.flushall()
    yield make
    for one in made:
        await one.cluster.close()


async def within(seconds: float, look: Callable[[], object]) -> None:
    async with asyncio.timeout(seconds):
        while not look():
            await asyncio.sleep(0.02)


async def granted(worker: Worker, calls: int, principal: Principal = KEY) -> int:
    return [await worker.rates.take(principal) for _ in range(calls)].count(None)


async def granted_at_once(worker: Worker, calls: int) -> int:
    return (await asyncio.gather(*(worker.rates.take(KEY) for _ in range(calls)))).count(None)


@pytest.mark.edge(3)
async def test_streams_of_a_worker_that_was_killed_come_free_when_their_lease_ends(worker: Make) -> None:
    victim, survivor = worker(lease_s=1), worker()
    assert [await victim.opens() for _ in range(3)] == [True, True, False]
    assert not await survivor.opens()
    async with asyncio.timeout(4):  # nobody renews them
        while not await survivor.opens():
            await asyncio.sleep(0.05)


@pytest.mark.edge(3)
async def test_streams_of_all_keys_are_one_count_too(worker: Make) -> None:
    first, second = worker(), worker()
    opened = [await one.opens(key, total=3) for one in (first, second) for key in ("k1", "k2")]
    assert opened == [True, True, True, False]
    full = await second.cluster.take("k3", 2, 3)
    assert full is not None
    assert (full.status, full.message) == (429, "the gateway has 3 open streams, its limit is 3")


@pytest.mark.edge(3)
async def test_streams_that_are_held_are_kept_and_closed_ones_are_free_at_once(worker: Make) -> None:
    holder, other = worker(lease_s=1), worker()
    assert await holder.opens(per_key=1)
    for _ in range(3):
        holder.cluster._renew_at = 0.0
        await holder.cluster.tick()
        await asyncio.sleep(0.4)
        assert not await other.opens(per_key=1)
    holder.cluster.give_back("k1")
    await asyncio.gather(*holder.cluster._freeing)
    assert await other.opens(per_key=1)


async def test_streams_are_counted_again_when_redis_has_lost_its_memory_and_nobody_noticed(
    worker: Make, redis: servers.Redis
) -> None:
    holder, other = worker(), worker()
    await holder.cluster.tick()
    assert await holder.opens(per_key=1)
    await holder.cluster.tick()
    async with Redis.from_url(redis.url) as client:
        await client.flushall()
    await holder.cluster.tick()
    assert not await other.opens(per_key=1)


async def test_one_that_leaves_does_not_come_back_before_it_is_gone(worker: Make) -> None:
    leaving, other = worker(), worker()
    for one in (leaving, other):
        await one.cluster.tick()
    assert other.cluster.facts()["nodes"] == 2
    leaving.neighbours.leave()
    await leaving.cluster.leave()
    await leaving.cluster.tick()
    await other.cluster.tick()
    assert other.cluster.facts()["nodes"] == 1


async def test_a_stream_that_was_opened_by_nobody_any_more_is_not_held(worker: Make) -> None:
    one, other = worker(), worker()
    opening = asyncio.create_task(one.opens(per_key=1))
    await asyncio.sleep(0)  # it is under way
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await asyncio.gather(*one.cluster._freeing)
    assert await other.opens(per_key=1)


@pytest.mark.edge(19)
async def test_streams_closed_while_redis_was_frozen_are_free_when_it_is_back(
    worker: Make, redis: servers.Redis
) -> None:
    one, other = worker(), worker()
    assert await one.opens(per_key=1)
    redis.freeze()
    try:
        await one.cluster.tick()
        assert one.cluster.facts()["redis"] == "down"
        one.cluster.give_back("k1")
        assert await one.opens(per_key=1), "its own count decides alone"
        one.cluster.give_back("k1")
    finally:
        redis.freeze(signal.SIGCONT)
    await one.cluster.tick()
    assert one.cluster.facts()["redis"] == "ok"
    assert await other.opens(per_key=1)


async def test_all_workers_together_grant_exactly_the_rate(worker: Make) -> None:
    first, second = worker(), worker()
    counts = await asyncio.gather(*(granted_at_once(one, 60) for one in (first, second, first, second)))
    assert sum(counts) == 50
    assert await first.rates.take(KEY) is not None
    assert first.left(KEY) == second.left(KEY) == b'"key";r=0;t=60, "mcp:stripe";r=20;t=0'


async def test_what_is_left_is_told_over_all(worker: Make) -> None:
    first, second = worker(), worker()
    assert await granted(first, 3) == 3
    await first.rates.take_for(KEY, "stripe")
    assert await granted(second, 1) == 1
    assert second.left(KEY) == b'"key";r=46;t=60, "mcp:stripe";r=19;t=60'


async def test_a_minute_ends_for_all(worker: Make, redis: servers.Redis) -> None:
    first, second = worker(), worker()
    assert await granted(first, 60) == 50
    async with Redis.from_url(redis.url) as client:
        for name in await client.keys("*rate:k1*"):
            assert 55_000 < await client.pttl(name) <= 60_000
            await client.pexpire(name, 1)
    await asyncio.sleep(0.05)
    assert await granted(second, 60) == 50


@pytest.mark.edge(19)
async def test_without_redis_a_worker_counts_on_alone_and_tells_it_when_redis_is_back(
    worker: Make, redis: servers.Redis
) -> None:
    first, second = worker(), worker()
    assert await granted(first, 20) + await granted(second, 10) == 30
    redis.kill()
    began = time.monotonic()
    assert await granted(first, 60) == 30, "it knew of its own twenty"
    assert await granted(second, 15) == 15
    assert time.monotonic() - began < 4, "nobody waits for what is away"
    assert first.rates.counted_alone == 30
    redis.start()
    for one in (first, second):
        await one.cluster.tick()
    assert await granted(second, 60) == 5, "what it knew when Redis forgot, and its own: 45"
    assert await granted(first, 60) == 0
    assert second.left(KEY).startswith(b'"key";r=0;')


@pytest.mark.edge(19)
async def test_calls_that_meet_a_frozen_redis_are_delayed_once(worker: Make, redis: servers.Redis) -> None:
    one = worker()
    assert await granted(one, 1) == 1
    redis.freeze()
    try:
        began = time.monotonic()
        assert await granted_at_once(one, 5) == 5
        assert time.monotonic() - began < 5
        began = time.monotonic()
        assert await granted_at_once(one, 10) == 10
        assert time.monotonic() - began < 1, "nobody asks but the one who looks whether it is back"
    finally:
        redis.freeze(signal.SIGCONT)
    await one.cluster.tick()
    assert await granted(one, 60) in (29, 34), "five were under way: Redis may have counted them besides"
    assert one.rates.counted_alone == 15


@pytest.mark.edge(22)
@pytest.mark.parametrize("hours", [2, -2])
async def test_workers_know_each_other_and_streams_come_free_when_redis_own_clock_is_set(
    worker: Make, redis: servers.Redis, hours: int
) -> None:
    """Its stamps are then that much too old, or lie ahead: that is what is done to them here."""
    victim, holder, survivor = worker(), worker(), worker()
    for one in (victim, holder, survivor):
        await one.cluster.tick()
    assert [await victim.opens(), await holder.opens()] == [True, True]
    async with Redis.from_url(redis.url) as client:
        for name in await client.keys("*"):
            if await client.type(name) == b"zset":
                scores: dict[str, float] = dict(await client.zrange(name, 0, -1, withscores=True))  # type: ignore[arg-type]
                await client.zadd(name, {member: ends - hours * 3600 for member, ends in scores.items()})
    await survivor.cluster.tick()
    async with Redis.from_url(redis.url) as client:
        (addresses,) = await client.keys("*:addresses")
        assert await client.hlen(addresses) == 3
    holder.cluster._renew_at = 0.0
    await holder.cluster.tick()
    assert [await survivor.opens(), await survivor.opens()] == [True, False]
