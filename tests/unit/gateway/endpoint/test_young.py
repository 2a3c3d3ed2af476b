"""Who grows old is told once, after one to two ticks; who ends before costs no timer."""

import asyncio

from gateway.endpoint import young


class Request:
    def __init__(self) -> None:
        self.old = asyncio.Event()
        self.times = 0

    def grown_old(self) -> None:
        self.times += 1
        self.old.set()


async def test_a_request_that_stays_is_told_once():
    requests, one = young.Young(), Request()
    requests.add(one)
    async with asyncio.timeout(5):
        await one.old.wait()
        later = Request()
        requests.add(later)
        await later.old.wait()
    assert (one.times, later.times) == (1, 1)


async def test_a_request_that_ended_is_not_told():
    requests, gone, stays = young.Young(), Request(), Request()
    requests.add(gone)
    requests.add(stays)
    requests.discard(gone)
    async with asyncio.timeout(5):
        await stays.old.wait()
    assert gone.times == 0


async def test_nothing_runs_while_nobody_is_young():
    requests, one = young.Young(), Request()
    requests.add(one)
    async with asyncio.timeout(5):
        await one.old.wait()
        while requests._timer is not None:
            await asyncio.sleep(young.TICK_S)
    requests.add(two := Request())
    async with asyncio.timeout(5):
        await two.old.wait()
