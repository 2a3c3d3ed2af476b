"""One client's waiting messages: bounded, in order, answers never dropped, an end that is noticed."""

import asyncio

import pytest

from gateway.sessions.outbox import Outbox, waiting_bytes


async def drained(outbox: Outbox) -> list[bytes]:
    found = []
    while message := await outbox.get(1):
        found.append(message)
    assert message is None
    return found


async def test_messages_come_in_order_and_then_the_end() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.put(b"%d" % number)
    outbox.end()
    assert await drained(outbox) == [b"0", b"1", b"2", b"3", b"4"]


async def test_silence_is_told_from_the_end() -> None:
    outbox = Outbox()
    assert await outbox.get(0.001) == b""
    outbox.end()
    assert await outbox.get(0.001) is None


@pytest.mark.edge(10)
async def test_what_waits_is_counted_until_it_is_read_or_nobody_holds_it() -> None:
    before = waiting_bytes()
    read, forgotten, copy = Outbox(), Outbox(), Outbox(is_copy=True)
    for outbox in (read, forgotten, copy):
        outbox.put(b"x" * 1000)
    assert waiting_bytes() == before + 2000
    await read.get(1)
    assert waiting_bytes() == before + 1000
    del forgotten, outbox
    assert waiting_bytes() == before


@pytest.mark.edge(10)
async def test_too_many_notifications_are_dropped_and_counted() -> None:
    outbox = Outbox()
    assert sum(outbox.put(b"x") for _ in range(10_000)) == 256
    assert outbox.dropped == 10_000 - 256
    assert outbox.is_full
    outbox.end()
    assert len(await drained(outbox)) == 256


@pytest.mark.edge(10)
async def test_too_many_bytes_are_dropped_too() -> None:
    outbox = Outbox()
    part = b"x" * 100_000
    assert sum(outbox.put(part) for _ in range(100)) == 10
    assert not outbox.put(b"x" * 2_000_000)
    assert outbox.put(b"small")


async def test_an_answer_is_never_dropped() -> None:
    outbox = Outbox()
    while outbox.put(b"x" * 10_000):
        pass
    outbox.put_answer(b"answer")
    outbox.end()
    assert (await drained(outbox))[-1] == b"answer"


async def test_room_comes_back_as_the_client_reads() -> None:
    outbox = Outbox()
    while outbox.put(b"x"):
        pass
    await outbox.get(1)
    assert not outbox.is_full
    assert outbox.put(b"y")


async def test_a_reader_that_waits_is_woken() -> None:
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.get(30))
    await asyncio.sleep(0)
    outbox.put(b"x")
    assert await asyncio.wait_for(waiting, 1) == b"x"
    ending = asyncio.create_task(outbox.get(30))
    await asyncio.sleep(0)
    outbox.end()
    assert await asyncio.wait_for(ending, 1) is None


async def test_after_the_end_no_notification_is_taken() -> None:
    outbox = Outbox()
    outbox.end()
    assert not outbox.put(b"late")
    assert await drained(outbox) == []


class TestFinish:
    """A shutdown ends idle streams at once and busy ones after their answers."""

    async def test_an_idle_one_ends_at_once(self) -> None:
        outbox = Outbox()
        outbox.finish()
        assert outbox.ended

    async def test_a_busy_one_waits_for_every_promised_answer(self) -> None:
        outbox = Outbox()
        outbox.promise()
        outbox.promise()
        outbox.finish()
        outbox.settle()
        assert await outbox.get(0.001) == b""
        outbox.put_answer(b"answer")
        outbox.settle()
        assert await drained(outbox) == [b"answer"]

    async def test_a_client_that_left_is_not_waited_for(self) -> None:
        outbox = Outbox()
        outbox.promise()
        outbox.finish()
        outbox.end()
        assert await drained(outbox) == []
        outbox.settle()
