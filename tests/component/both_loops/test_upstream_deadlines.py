"""One timer for all deadlines: each holds, none touches another, and who was cancelled by somebody else stays cancelled."""

import asyncio

import pytest

from remotes.upstream.deadlines import TICK_S, Deadlines


@pytest.fixture
async def deadlines():
    one = Deadlines(asyncio.get_running_loop())
    yield one
    one.close()


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_takes_too_long_is_ended_with_a_timeout_and_not_much_later(deadlines):
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), deadlines.at(soon(0.05)):
        await asyncio.sleep(60)
    assert 0.05 <= asyncio.get_running_loop().time() - began < 1 + TICK_S
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_what_ends_in_time_is_left_alone_afterwards(deadlines):
    with deadlines.at(soon(0.05)):
        await asyncio.sleep(0)
    await asyncio.sleep(3 * TICK_S)


async def test_a_deadline_that_has_passed_already_ends_the_wait(deadlines):
    with pytest.raises(TimeoutError), deadlines.at(soon(-5)):
        await asyncio.sleep(60)


async def test_each_of_many_ends_at_its_own_time_whatever_their_order(deadlines):
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TimeoutError), deadlines.at(soon(seconds)):
            await asyncio.sleep(60)
        ended.append(seconds)

    await asyncio.gather(*(wait(seconds) for seconds in (0.5, 0.05, 0.25)))
    assert ended == [0.05, 0.25, 0.5]


async def test_who_is_cancelled_by_somebody_else_is_cancelled_and_not_late(deadlines):
    async def wait() -> None:
        with deadlines.at(soon(60)):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_comes_with_the_deadline_is_not_lost(deadlines):
    async def wait() -> None:
        with deadlines.at(soon(-1)) as _:
            try:
                await asyncio.sleep(60)
            finally:
                current = asyncio.current_task()
                assert current is not None
                current.cancel()

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_comes_out_as_it_is(deadlines):
    with pytest.raises(ValueError, match="mine"), deadlines.at(soon(60)):
        raise ValueError("mine")


async def test_nothing_is_kept_of_what_has_ended(deadlines):
    for _ in range(100):
        with deadlines.at(soon(60)):
            await asyncio.sleep(0)
    assert not deadlines._ticks
