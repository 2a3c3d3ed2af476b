"""Slots: refused before anything is started, given back exactly once, one key's never another's."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.slots import Counter, Full, Slots
from mcpserver.lib.limits import Limits

LIMITS = Limits(max_in_flight_per_key=2, max_requests_in_flight=3, max_connections_per_key=1, max_total_connections=2)


@pytest.mark.edge(3)
def test_a_key_meets_its_own_limit_before_it_takes_what_is_anothers() -> None:
    requests = Slots(LIMITS).requests
    assert [requests.take("a") for _ in range(2)] == [None, None]
    assert requests.take("a") == Full(429, 5, "this key has 2 requests in flight, its limit is 2")
    assert requests.take("b") is None
    assert requests.take("b") == Full(503, 5, "the gateway has 3 requests in flight, its limit is 3")
    assert (requests.active, requests.refused, requests.per_key) == (3, 2, {"a": 2, "b": 1})


@pytest.mark.edge(3)
def test_too_many_streams_are_429_by_either_limit() -> None:
    streams = Slots(LIMITS).streams
    assert streams.take("a") is None
    assert streams.take("b") is None
    assert [full.status for key in ("a", "c") if (full := streams.take(key))] == [429, 429]


def test_what_is_given_back_can_be_taken_again_and_leaves_no_trace() -> None:
    requests = Slots(LIMITS).requests
    for _ in range(1000):
        assert requests.take("a") is None
        requests.give_back("a")
    assert (requests.active, requests.per_key) == (0, {})


def test_lower_limits_close_nothing_that_is_open() -> None:
    slots = Slots(LIMITS)
    slots.requests.take("a")
    slots.follow(Limits(max_in_flight_per_key=1, max_requests_in_flight=1))
    assert slots.requests.active == 1
    assert slots.requests.take("a") is not None
    slots.requests.give_back("a")
    assert slots.requests.take("a") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_the_counts_always_add_up(steps: list[tuple[str, bool]]) -> None:
    counter = Counter("things", total_status=503)
    counter.allow(2, 4)
    held: list[str] = []
    for key, gives_back in steps:
        if gives_back and key in held:
            held.remove(key)
            counter.give_back(key)
        elif not gives_back and counter.take(key) is None:
            held.append(key)
    assert counter.active == len(held) == sum(counter.per_key.values()) <= 4
    assert all(counter.per_key[key] == held.count(key) <= 2 for key in held)


def test_a_keys_own_limit_takes_the_place_of_everybodys() -> None:
    streams = Slots(LIMITS).streams
    assert streams.take("a", 2) is None
    assert streams.take("a", 2) is None
    assert streams.take("b", 1) == Full(429, 5, "the gateway has 2 open streams, its limit is 2")
    assert streams.take("a", 2) == Full(429, 5, "this key has 2 open streams, its limit is 2")


class Callers:
    """Requests of several keys, each a task that holds its slot until it is let go."""

    def __init__(self, per_key: int, total: int) -> None:
        self.slots = Counter("requests in flight", total_status=503)
        self.slots.allow(per_key, total)
        self.running: list[str] = []
        self.ended: dict[str, Full | None] = {}
        self._go = asyncio.Event()

    def send(self, name: str, *, seconds: float = 60, remote: str = "") -> asyncio.Task[None]:
        return asyncio.create_task(self._serve(name, name[0], seconds, remote))

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def let_go(self) -> None:
        go, self._go = self._go, asyncio.Event()
        go.set()
        await self.settle()

    async def _serve(self, name: str, key: str, seconds: float, remote: str) -> None:
        if (full := self.slots.take(key)) is not None and (
            full := await self.slots.wait(key, full, seconds, remote)
        ) is not None:
            self.ended[name] = full
            return
        self.running.append(name)
        try:
            await self._go.wait()
            self.ended[name] = None
        finally:
            self.running.remove(name)
            self.slots.give_back(key, remote)

    def leaves_no_trace(self) -> bool:
        slots = self.slots
        left = (slots.active, slots.per_key, slots.waiting, slots._waiting, slots._beyond)
        return left == (0, {}, 0, {}, {})


@pytest.mark.edge(15)
async def test_who_is_over_its_keys_limit_waits_for_its_turn_in_order_and_no_other_key_with_it() -> None:
    callers = Callers(per_key=2, total=4)
    for name in ("a1", "a2", "a3", "a4", "b1"):
        callers.send(name)
    await callers.settle()
    assert callers.running == ["a1", "a2", "b1"]
    assert callers.slots.waiting == 2
    await callers.let_go()
    assert callers.running == ["a3", "a4"]
    await callers.let_go()
    assert callers.ended == dict.fromkeys(("a1", "a2", "b1", "a3", "a4"))
    assert callers.slots.refused == 0
    assert callers.leaves_no_trace()


async def test_as_many_wait_as_may_run_and_the_next_is_refused_at_once() -> None:
    callers = Callers(per_key=2, total=9)
    tasks = [callers.send(f"a{number}") for number in range(5)]
    await callers.settle()
    assert callers.ended == {"a4": Full(429, 5, "this key has 2 requests in flight, its limit is 2")}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert callers.leaves_no_trace()


async def test_all_keys_together_have_no_more_waiting_than_may_run() -> None:
    callers = Callers(per_key=2, total=5)
    for key in "ab":
        for number in range(4):
            callers.send(f"{key}{number}")
    await callers.settle()
    callers.slots.allow(2, 4)
    for name in ("c1", "a9", "b9"):
        callers.send(name)
    await callers.settle()
    assert {name: full and full.status for name, full in callers.ended.items()} == {"c1": 503, "a9": 429, "b9": 429}
    while len(callers.ended) < 11:
        await callers.let_go()
    assert callers.leaves_no_trace()


async def test_a_turn_that_does_not_come_in_time_is_a_refusal() -> None:
    callers = Callers(per_key=1, total=9)
    callers.send("a1")
    await callers.send("a2", seconds=0.01)
    assert callers.ended == {"a2": Full(429, 5, "this key has 1 requests in flight, its limit is 1")}
    assert callers.slots.refused == 1
    await callers.let_go()
    assert callers.leaves_no_trace()


async def test_who_leaves_gives_its_place_up_also_in_the_moment_of_its_turn() -> None:
    callers = Callers(per_key=2, total=9)
    tasks = [callers.send(name) for name in ("a1", "a2", "a3", "a4")]
    await callers.settle()
    tasks[0].cancel()
    await asyncio.sleep(0)  # its slot goes to the third now
    tasks[2].cancel()
    await callers.settle()
    assert callers.running == ["a2", "a4"]
    await callers.let_go()
    assert callers.leaves_no_trace()


async def test_where_the_gateway_is_full_nobody_waits() -> None:
    callers = Callers(per_key=2, total=2)
    for name in ("a1", "b1", "c1"):
        callers.send(name)
    await callers.settle()
    assert callers.ended == {"c1": Full(503, 5, "the gateway has 2 requests in flight, its limit is 2")}
    await callers.let_go()
    assert callers.leaves_no_trace()


async def test_what_takes_no_time_goes_at_once() -> None:
    slots = Counter("requests in flight", total_status=503)
    slots.allow(1, 9)
    assert slots.take("a") is None
    full = slots.take("a")
    assert full is not None
    assert await slots.wait("a", full, 0.0) is None
    slots.give_back("a")
    slots.give_back("a")
    assert (slots.active, slots.per_key, slots.refused) == (0, {}, 0)


async def test_a_higher_limit_lets_those_in_who_wait() -> None:
    callers = Callers(per_key=1, total=9)
    for name in ("a1", "a2", "a3"):
        callers.send(name)
    await callers.settle()
    callers.slots.allow(2, 9)
    await callers.settle()
    assert callers.running == ["a1", "a2"]
    await callers.let_go()
    await callers.let_go()
    assert callers.leaves_no_trace()


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_comes_and_goes_the_limits_hold_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)
    callers = Callers(per_key=3, total=7)
    tasks: list[asyncio.Task[None]] = []
    for number in range(400):
        tasks.append(callers.send(f"{chance.choice('abcd')}{number}", seconds=chance.choice((0.001, 60))))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            callers.slots.allow(chance.randint(2, 4), 7)
        if chance.random() < 0.1:
            await callers.let_go()
        await asyncio.sleep(0)
        assert callers.slots.active <= 7
        assert all(held <= 4 for held in callers.slots.per_key.values())
    while not all(task.done() for task in tasks):
        await callers.let_go()
    assert callers.leaves_no_trace()


async def test_a_remote_that_keeps_all_of_a_keys_slots_keeps_no_other_remote_from_that_key() -> None:
    callers = Callers(per_key=16, total=100)
    hung = [callers.send(f"a{number}", remote="hung") for number in range(20)]
    await callers.settle()
    assert len(callers.running) == 16 + 2  # and two wait
    well = [callers.send(f"ab{number}", remote="well") for number in range(6)]
    await callers.settle()
    assert callers.running[18:] == ["ab0", "ab1"]
    for task in well[:2]:
        task.cancel()
    await callers.settle()
    assert callers.running[18:] == ["ab2", "ab3"]
    for task in (*hung, *well):
        task.cancel()
    await asyncio.gather(*hung, *well, return_exceptions=True)
    assert callers.leaves_no_trace()


async def test_what_a_key_has_beyond_its_limit_is_bounded_whatever_remotes_there_are() -> None:
    callers = Callers(per_key=16, total=100)
    tasks = [callers.send(f"a{number}", remote=f"r{number}", seconds=0.01) for number in range(40)]
    await callers.settle()
    assert len(callers.running) == 16 + 8
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert callers.leaves_no_trace()
