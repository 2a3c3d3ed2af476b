"""What streams said is kept, numbered, replayed to whoever it was said to, and bounded in time and size."""

import asyncio
import json

import pytest

from gateway.sessions import resumption as module
from gateway.sessions.outbox import Outbox
from gateway.sessions.resumption import KEPT_S, Trail, Trails, is_of_session
from mcpserver.protocol.sse import Event, Splitter


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def trails(time: Time) -> Trails:
    return Trails(time)


def message(number: int, padding: int = 0) -> bytes:
    return json.dumps({"n": number, "x": "x" * padding}).encode()


def event_id(trail: Trail, number: int) -> bytes:
    return f"{trail.name}.{number}".encode()


async def events(outbox: Outbox) -> list[Event]:
    """What is waiting; a stream that goes on is not waited for."""
    found: list[Event] = []
    while chunk := await outbox.get(0.001):
        found += Splitter(10_000_000).feed(chunk)
    return found


async def numbers(outbox: Outbox) -> list[int]:
    return [json.loads(event.data)["n"] for event in await events(outbox)]


def of_call(trails: Trails, session: str = "session", key: str = "k1", *, primed: bool = True) -> Trail:
    return trails.of_call(session, key, primed=primed)


class TestReading:
    async def test_events_carry_ids_that_name_their_stream_and_their_place(self, trails: Trails) -> None:
        trail, other = of_call(trails), of_call(trails)
        outbox = trail.follow()
        for number in (1, 2):
            trail.put(message(number))
        assert [event.id for event in await events(outbox)] == [f"{trail.name}.1", f"{trail.name}.2"]
        assert trail.name != other.name
        assert trails.find("session", event_id(trail, 1)) == (trail, 1)

    async def test_who_comes_back_reads_what_came_after_then_what_comes_then_the_end(self, trails: Trails) -> None:
        trail = of_call(trails)
        first = trail.follow()
        trail.put(message(1))
        trail.put_answer(message(2))
        trail.leave(first)
        trail.put(message(3))
        again = trail.follow(after=1)
        trail.put_answer(message(4))
        trail.end()
        assert await numbers(again) == [2, 3, 4]
        assert again.ended
        assert await numbers(trail.follow(after=3)) == [4]

    async def test_nothing_more_comes_after_the_last_event_of_what_has_ended(self, trails: Trails) -> None:
        trail = of_call(trails)
        assert trail.has_more(0)
        trail.put(message(1))
        trail.put_answer(message(2))
        assert trail.has_more(2)
        trail.end()
        assert (trail.has_more(1), trail.has_more(2)) == (True, False)

    async def test_what_is_withdrawn_leaves_only_that_it_has_ended(self, trails: Trails) -> None:
        trail = of_call(trails)
        trail.put(message(1))
        reader = trail.follow()
        trail.withdraw()
        assert reader.ended
        assert trails.find("session", event_id(trail, 0)) == (trail, 0)
        assert not trail.has_more(0)
        assert trails.bytes == 0

    async def test_only_the_newest_reader_reads_on(self, trails: Trails) -> None:
        trail = of_call(trails)
        older, newer = trail.follow(), trail.follow()
        trail.put(message(1))
        assert older.ended
        assert await numbers(older) == []
        assert await numbers(newer) == [1]
        trail.leave(older)
        trail.put(message(2))
        assert await numbers(newer) == [2]

    async def test_only_where_it_is_wanted_a_stream_opens_with_an_id_and_no_data(self, trails: Trails) -> None:
        trail = of_call(trails)
        (opening,) = Splitter(1000).feed(trail.opening)
        assert (opening.id, opening.data, opening.retry_ms) == (f"{trail.name}.0", b"", 1000)
        trail.put(message(1))
        assert trails.find("session", event_id(trail, 0)) == (trail, 0)
        assert await numbers(trail.follow(after=0)) == [1]
        assert of_call(trails, primed=False).opening == b""


class TestFinding:
    @pytest.mark.parametrize(
        "id", ["", ".", "c", "c.x", "c.x.1", "{name}", "{name}.", "{name}.x", "{name}.-1", "{name}.²"]
    )
    def test_what_is_no_event_of_ours_is_not_found(self, trails: Trails, id: str) -> None:
        trail = of_call(trails)
        assert trails.find("session", id.format(name=trail.name).encode("latin-1")) is None
        assert trails.find("session", b"\xff" * 5000) is None
        assert trails.find("session", event_id(trail, 1) + b"0" * 5000) is None

    def test_another_sessions_event_is_not_found(self, trails: Trails) -> None:
        assert trails.find("another", event_id(of_call(trails), 1)) is None

    def test_an_event_says_whether_its_stream_can_be_had_anew(self, trails: Trails) -> None:
        assert not is_of_session(event_id(of_call(trails), 1))
        assert is_of_session(event_id(trails.of_session("session", "k1", primed=True), 1))


class TestEnd:
    def test_a_call_is_kept_while_it_runs_and_a_minute_more(self, trails: Trails, time: Time) -> None:
        trail = of_call(trails)
        trail.leave(trail.follow())
        time.now += 10 * KEPT_S
        trails.sweep()
        trail.put_answer(message(1))
        trail.end()
        time.now += KEPT_S - 1
        trails.sweep()
        assert trails.find("session", event_id(trail, 0)) is not None
        time.now += 2
        trails.sweep()
        assert trails.find("session", event_id(trail, 0)) is None

    async def test_a_sessions_own_stream_is_kept_a_minute_beyond_its_last_reader(
        self, trails: Trails, time: Time
    ) -> None:
        trail, over = trails.of_session("session", "k1", primed=True), list[bool]()
        trail.on_over = lambda: over.append(True)
        reader = trail.follow()
        for _ in range(3):
            time.now += KEPT_S - 1
            trails.sweep()
            trail.leave(reader)
            time.now += KEPT_S - 1
            trails.sweep()
            trail.put(message(1))
            reader = trail.follow()
        assert await numbers(reader) == [1, 1, 1]
        assert over == []
        trail.leave(reader)
        time.now += KEPT_S
        trails.sweep()
        assert trails.find("session", event_id(trail, 0)) is None
        assert over == [True]

    async def test_the_end_of_a_session_ends_its_streams_and_keeps_nothing(self, trails: Trails) -> None:
        trail, other = of_call(trails), of_call(trails, "another")
        over: list[bool] = []
        trail.on_over = lambda: over.append(True)
        reader = trail.follow()
        trail.put(message(1))
        trails.end_of("session")
        assert reader.ended
        assert await numbers(reader) == [1]
        assert trails.find("session", event_id(trail, 1)) is None
        assert trails.find("another", event_id(other, 1)) is not None
        assert not trail.put(message(2))
        assert over == []
        trail.leave(reader)
        assert over == [True]

    def test_nobody_is_expected_back_after_a_minute(self, trails: Trails, time: Time) -> None:
        trail = of_call(trails)
        reader = trail.follow()
        time.now += 2 * KEPT_S
        seen = [trail.is_deserted]
        trail.leave(reader)
        seen.append(trail.is_deserted)
        time.now += KEPT_S + 1
        seen.append(trail.is_deserted)
        trail.follow()
        assert [*seen, trail.is_deserted] == [False, False, True, False]


class TestBounds:
    async def test_of_many_events_the_newest_and_those_that_must_arrive_stay(self, trails: Trails) -> None:
        trail = of_call(trails)
        trail.put_answer(message(0))
        for number in range(1, 1000):
            trail.put(message(number))
        kept = await numbers(trail.follow())
        assert kept == [0, *range(745, 1000)]

    async def test_of_large_ones_a_mebibyte_stays_and_an_answer_whatever_its_size(self, trails: Trails) -> None:
        trail = of_call(trails)
        for number in range(30):
            trail.put(message(number, 100_000))
        assert trail.bytes <= 1024 * 1024
        assert await numbers(trail.follow()) == list(range(20, 30))
        trail.put_answer(message(99, 5_000_000))
        trail.end()
        assert await numbers(trail.follow()) == [99]

    async def test_many_streams_are_bounded_together_and_what_ended_first_goes_first(
        self, trails: Trails, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_TOTAL_MAX_BYTES", 1_000_000)
        live = of_call(trails)
        live.put(message(1))
        ended = [of_call(trails) for _ in range(20)]
        for trail in ended:
            trail.put_answer(message(2, 100_000))
            trail.end()
        found = [trails.find("session", event_id(trail, 0)) is not None for trail in ended]
        assert found == [False] * 11 + [True] * 9
        assert trails.find("session", event_id(live, 0)) is not None

    async def test_a_key_that_floods_pushes_out_its_own(self, trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_KEY_TRAILS_MAX", 10)
        monkeypatch.setattr(module, "_KEY_MAX_BYTES", 500_000)
        quiet = of_call(trails, key="quiet")
        quiet.put_answer(message(1))
        quiet.end()
        running = of_call(trails, key="loud")
        for _ in range(100):
            trail = of_call(trails, key="loud")
            trail.put_answer(message(2, 100_000))
            trail.end()
        assert len(trails._by_name) == 1 + 1 + 4
        assert trails.find("session", event_id(running, 0)) is not None
        many = [of_call(trails, key="many") for _ in range(100)]
        found = [trails.find("session", event_id(trail, 0)) is not None for trail in many]
        assert found == [False] * 90 + [True] * 10
        assert trails.find("session", event_id(quiet, 0)) is not None

    async def test_a_stream_that_had_to_be_forgotten_still_reaches_its_reader(
        self, trails: Trails, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_TRAILS_MAX", 2)
        trail = of_call(trails)
        reader = trail.follow()
        of_call(trails), of_call(trails)
        assert trails.find("session", event_id(trail, 0)) is None
        trail.put_answer(message(1))
        trail.end()
        assert await numbers(reader) == [1]
        assert trail.bytes == 0

    def test_everything_that_was_counted_is_given_back(self, trails: Trails, time: Time) -> None:
        for number in range(300):
            trail = of_call(trails, f"session {number % 3}", f"k{number % 2}")
            for other in range(number):
                trail.put(message(other, 5000))
            trail.end()
        trails.end_of("session 1")
        time.now += KEPT_S
        trails.sweep()
        assert (trails.bytes, trails._by_name, trails._expiring, trails._shares) == (0, {}, {}, {})


async def test_a_reader_that_is_waiting_wakes_at_once(trails: Trails) -> None:
    trail = of_call(trails)
    reader = trail.follow()
    waiting = asyncio.create_task(reader.get(5))
    await asyncio.sleep(0)
    trail.put(message(1))
    assert b'"n": 1' in (await waiting or b"")
