"""The memory of large answers: what is granted, who waits, and that somebody always goes on."""

import asyncio
import random

import pytest

from remotes.upstream.budget import FREE_BYTES, Budget, Held
from remotes.upstream.outcome import Failed, Fault

MIB = 1024 * 1024


class Kept:
    """What gives way."""

    def __init__(self, size: int) -> None:
        self.bytes = size

    def give_way(self, need_bytes: int) -> None:
        self.bytes -= min(self.bytes, need_bytes)


def test_small_answers_ask_for_nothing():
    budget = Budget(1, read_max_bytes=8 * MIB)
    assert all(budget.held("a").covers(FREE_BYTES) for _ in range(10))
    assert budget.bytes == 0


def test_bytes_come_back_with_the_last_reference():
    budget = Budget(4 * MIB, read_max_bytes=8 * MIB)
    held = budget.held("a")
    assert held.covers(MIB)
    assert held.covers(MIB - 1)
    kept = {"answer": held}
    del held
    assert budget.bytes == MIB
    kept.clear()
    assert budget.bytes == 0


async def test_one_remote_gets_half_and_its_neighbour_does_not_wait():
    budget = Budget(4 * MIB, read_max_bytes=8 * MIB)
    greedy = [budget.held("a") for _ in range(3)]
    assert [one.covers(MIB) for one in greedy] == [True, True, True], "one goes beyond"
    assert not budget.held("a").covers(MIB)
    assert budget.held("b").covers(MIB)


@pytest.mark.edge(14)
async def test_who_waits_goes_on_when_another_answer_was_handed_over():
    budget = Budget(2 * MIB, read_max_bytes=8 * MIB)
    first, beyond, third = (budget.held(name) for name in "abc")
    assert first.covers(MIB)
    assert beyond.covers(MIB + 1)
    waiting = asyncio.create_task(third.grow(MIB // 2))
    await asyncio.sleep(0)
    assert (budget.waiting, waiting.done()) == (1, False)
    first.shrink()
    await waiting
    assert (budget.waiting, budget.bytes) == (0, MIB + 1 + MIB // 2)


async def test_a_wait_ends_with_the_calls_deadline_and_says_why():
    budget = Budget(MIB, read_max_bytes=8 * MIB)
    hog = budget.held("a")
    assert hog.covers(2 * MIB)
    one = budget.held("b")
    with pytest.raises(Failed) as caught:
        await one.grow(MIB, asyncio.get_running_loop().time() + 0.03)
    assert caught.value.failure.fault is Fault.CROWDED
    assert "too many large answers were under way" in caught.value.failure.message
    assert (budget.waiting, budget.waited) == (0, 1)


async def test_what_is_kept_for_later_gives_way_before_anybody_waits():
    budget = Budget(4 * MIB, read_max_bytes=8 * MIB)
    budget.keepers = [Kept(MIB), Kept(2 * MIB)]
    assert budget.held("a").covers(MIB)
    held = budget.held("a")
    assert held.covers(MIB)
    assert [keeper.bytes for keeper in budget.keepers] == [2 * MIB - MIB - MIB, 2 * MIB] or budget.kept_bytes <= 3 * MIB
    assert budget.bytes + budget.kept_bytes <= 4 * MIB


@pytest.mark.edge(14)
async def test_however_answers_grow_one_always_goes_on_and_the_bound_is_kept():
    """Twenty readers of answers up to 1 MiB each, in a budget of 2 MiB, in steps: none is left waiting for ever."""
    budget, most, choose = Budget(2 * MIB, read_max_bytes=8 * MIB), MIB, random.Random(4)
    seen = 0

    async def read(number: int) -> None:
        nonlocal seen
        for _ in range(3):
            held: Held = budget.held(f"remote-{number % 4}")
            for size in range(FREE_BYTES, choose.randrange(FREE_BYTES, most) + 1, 100_000):
                await held.grow(size)
                seen = max(seen, budget.bytes)
                await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await asyncio.gather(*(read(number) for number in range(20)))
    assert 2 * MIB < seen <= 2 * MIB + most
    assert (budget.bytes, budget.waiting) == (0, 0)
    assert budget.waited > 0


async def test_a_reader_that_is_cancelled_while_it_waits_leaves_nothing_behind():
    budget = Budget(MIB, read_max_bytes=8 * MIB)
    hog = budget.held("a")
    assert hog.covers(2 * MIB)
    one = budget.held("b")
    waiting = asyncio.create_task(one.grow(MIB))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    hog.shrink()
    assert (budget.bytes, budget.waiting, one.bytes) == (0, 0, 0)
