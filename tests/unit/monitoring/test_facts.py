from datetime import UTC, datetime, timedelta

import pytest

from mcpserver.lib.usage import Process
from monitoring import facts, health
from monitoring.facts import Stored

PROBLEM = {"path": "mcpServers.x", "line": 3, "message": "no"}


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 12, tzinfo=UTC)


def assembled(live: facts.Live | None, stored: Stored) -> health.Facts:
    return facts.assemble(live, stored, Process(), clock=FixedClock())


def test_what_the_gateway_says_of_a_remote_is_newer_than_what_a_probe_wrote() -> None:
    stored = Stored(remotes={"a": {"status": "unhealthy"}, "removed": {"status": "unhealthy"}})
    assert assembled({"mcps": {"a": {"status": "healthy"}}}, stored).remotes == {"a": "healthy"}
    assert assembled(None, stored).remotes == {"a": "unhealthy", "removed": "unhealthy"}


def test_an_edit_that_waits_is_known_from_who_saw_it() -> None:
    said = {"config": {"revision": 2, "sha256": "ab", "pending_error": [PROBLEM]}}
    assert assembled(said, Stored()).config == health.Config(2, "ab", (PROBLEM,))
    stored = Stored(config=health.Config(1, "cd", (PROBLEM,)))
    assert assembled({}, stored).config == health.Config(1, "cd", (PROBLEM,))


@pytest.mark.edge(12)
def test_a_log_that_cannot_be_written_shows_as_stopped_writes() -> None:
    stopped = assembled({"log": {"dropped": 3, "stopped": True}}, Stored())
    assert (stopped.disk.stopped_writes, stopped.log_lines_dropped) == (True, 3)
    assert health.judge(stopped) == "degraded"


def test_without_a_gateway_nothing_is_claimed() -> None:
    nothing = assembled(None, Stored())
    assert (nothing.started, nothing.connections, nothing.remotes) == (False, 0, {})
    assert nothing.now == "2026-11-22T12:00:00.000Z"
    assert health.judge(nothing) == "unhealthy"


@pytest.mark.edge(22)
@pytest.mark.parametrize("hours", [2, -2])
def test_a_clock_that_is_set_makes_no_beat_late_and_none_that_stays_away_fresh(hours: int) -> None:
    noon, last = datetime(2026, 11, 22, 12, tzinfo=UTC), facts.LastBeat()
    assert last.age_s(None, noon, 0) is None
    assert last.age_s(noon - timedelta(seconds=3), noon, 100) == 3
    stepped = noon + timedelta(hours=hours)
    assert last.age_s(noon - timedelta(seconds=3), stepped, 101) == 4
    assert last.age_s(noon - timedelta(seconds=3), stepped, 200) == 103
    assert last.age_s(stepped, stepped + timedelta(seconds=1), 201) == 1


@pytest.mark.edge(22)
def test_a_beat_out_of_the_future_says_nothing() -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert facts.LastBeat().age_s(noon + timedelta(hours=2), noon, 100) is None
    assert facts.LastBeat().age_s(noon + timedelta(seconds=2), noon, 100) == 0


@pytest.mark.parametrize(("age_s", "word"), [(None, "unknown"), (0.0, "ok"), (60.0, "ok"), (60.1, "late")])
def test_a_worker_is_known_by_its_last_beat(age_s: float | None, word: str) -> None:
    assert facts._worker_word(age_s) == word
