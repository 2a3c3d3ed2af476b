"""Calls wait in memory for the database, never the other way round."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import Raw

from gateway import record
from gateway.record import Call, Record
from mcpserver.lib.errors import GatewayError
from mcpserver.protocol import inbound


def call(number: int, arguments: bytes | None = None) -> Call:
    return Call(0.0, str(number), {}, 1.0, "main", 10, arguments)


class Database:
    """What stands in for a database thread: takes batches, or fails as one does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self.failure: Exception | None = None
        monkeypatch.setattr(record, "in_database", self._run)

    async def _run(self, write: Callable[[Any], None], batch: Sequence[Call], *, timeout_s: float) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        write(batch)

    def write(self, batch: Sequence[Call]) -> None:
        self.batches.append([int(one.request) for one in batch])


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


async def ended(kept: Record) -> None:
    """Start it and let it write a last time."""
    kept.start()
    await kept.close()


async def test_all_that_waits_is_written_in_order_and_in_bounded_batches(database: Database) -> None:
    kept = Record(database.write)
    for number in range(2 * record.BATCH + 1):
        kept.note(call(number))
    await ended(kept)
    assert [len(batch) for batch in database.batches] == [record.BATCH, record.BATCH, 1]
    assert list(itertools.chain(*database.batches)) == list(range(2 * record.BATCH + 1))
    assert kept.facts() == {"mode": "calls", "waiting": 0, "dropped": 0, "stopped": ""}


async def test_what_a_database_does_not_take_waits_and_is_written_in_order_once_it_does(database: Database) -> None:
    kept = Record(database.write)
    for number in range(3):
        kept.note(call(number))
    database.failure = GatewayError("disk_full", "the disk is full")
    await ended(kept)
    assert kept.facts() == {"mode": "calls", "waiting": 3, "dropped": 0, "stopped": "disk_full"}
    kept.note(call(3))
    database.failure = None
    await kept._flush()
    assert database.batches == [[0, 1, 2, 3]]
    assert kept.facts() == {"mode": "calls", "waiting": 0, "dropped": 0, "stopped": ""}


async def test_what_there_is_no_room_for_is_dropped_and_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "WAITING_MAX", 4)
    kept = Record(database.write)
    for number in range(6):
        kept.note(call(number))
    database.failure = GatewayError("database", "away")
    await ended(kept)
    assert (kept.facts()["waiting"], kept.dropped) == (4, 2)


async def test_a_batch_that_can_never_be_written_does_not_keep_the_next_one_from_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "BATCH", 1)

    def write(batch: Sequence[Call]) -> None:
        if batch[0].request == "0":
            raise ValueError("no database takes this")
        database.write(batch)

    kept = Record(write)
    kept.note(call(0))
    kept.note(call(1))
    await ended(kept)
    assert (database.batches, kept.dropped, kept.stopped) == ([[1]], 1, "")


async def test_arguments_take_a_bounded_memory_and_it_is_free_again_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "ARGUMENTS_MAX_BYTES", 100)
    kept = Record(database.write)
    for number in range(3):
        kept.note(call(number, b"x" * 40))
    assert [waiting.arguments is not None for waiting in kept._waiting] == [True, True, False]
    await ended(kept)
    assert kept._argument_bytes == 0


def test_arguments_are_kept_only_where_that_is_configured_and_of_large_ones_only_their_size() -> None:
    kept = Record(lambda batch: None)
    small = inbound.Call(b"1", "tools/call", {"arguments": Raw(b'{"a": 1}')}, {}, "2025-11-25")
    large = inbound.Call(b"1", "tools/call", {"arguments": Raw(b'"' + b"x" * 9998 + b'"')}, {}, "2025-11-25")
    none = inbound.Call(b"1", "resources/read", {"uri": Raw(b'"a:b"')}, {}, "2025-11-25")
    assert kept._arguments(small) is None
    kept.mode = "arguments"
    assert [kept._arguments(one) for one in (small, large, none)] == [b'{"a": 1}', b'"10000 bytes"', None]
