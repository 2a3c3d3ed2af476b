"""Who may call a remote now, and who waits: turns are taken in order, and a limit that is raised lets the next ones in."""

import asyncio

from gateway.admission.leases import Leases
from mcpserver.lib.limits import Limits
from remotes.upstream.outcome import Failure


def limits(most: int) -> Limits:
    return Limits(max_in_flight_per_remote=most)


async def waiting(leases: Leases, many: int) -> list[asyncio.Task[Failure | None]]:
    deadline = asyncio.get_running_loop().time() + 30
    tasks = [asyncio.create_task(leases.wait("shop", deadline)) for _ in range(many)]
    await asyncio.sleep(0)
    return tasks


async def test_a_raised_limit_lets_in_those_who_wait_in_their_order():
    leases = Leases(limits(2))
    assert [leases.take("shop") for _ in range(3)] == [True, True, False]
    first, second = await waiting(leases, 2)
    leases.follow(limits(3))
    assert await first is None
    assert not second.done()
    assert not leases.take("shop"), "the new one has it"
    leases.give_back("shop")
    assert await second is None
    for _ in range(3):
        leases.give_back("shop")
    assert [leases.take("shop") for _ in range(4)] == [True, True, True, False]


async def test_a_lowered_limit_holds_as_calls_end():
    leases = Leases(limits(3))
    assert [leases.take("shop") for _ in range(3)] == [True] * 3
    leases.follow(limits(1))
    (last,) = await waiting(leases, 1)
    leases.give_back("shop")
    leases.give_back("shop")
    await asyncio.sleep(0)
    assert not last.done()
    leases.give_back("shop")
    assert await last is None
