"""What is measured between processes, and what Celery measures with, while the wall clock is set."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from mcpserver import celery
from mcpserver.lib import clock
from mcpserver.lib.clock import Instant
from mcpserver.lib.processes import born

pytestmark = pytest.mark.edge(22)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
STEPS = [timedelta(hours=2), timedelta(hours=-2)]


class Stepped:
    """A clock whose wall time is set."""

    def __init__(self) -> None:
        self.wall, self.seconds = NOON, 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.wall

    def passes(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_on_one_machine_a_step_makes_no_difference(step: timedelta) -> None:
    time = Stepped()
    end = clock.instant(time).plus(60)
    time.wall += step
    time.passes(59)
    assert not end.is_past(clock.instant(time))
    time.passes(2)
    assert end.is_past(clock.instant(time))


def test_another_machine_and_one_that_was_started_anew_go_by_the_wall_clock() -> None:
    end = Instant(1000.0, 5000.0, "one")
    assert not end.is_past(Instant(999.0, 9000.0, "other"))
    assert end.is_past(Instant(1001.0, 10.0, "other"))
    assert end.is_past(Instant(1001.0, 10.0, ""))


def test_a_step_makes_nothing_due_sooner_or_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's schedule asks what the time is; the answer has no steps."""
    for entry in celery.configuration("", in_worker=True)["beat_schedule"].values():
        schedule = entry["schedule"]
        began = schedule.now()
        assert not schedule.is_due(began).is_due
        assert schedule.is_due(began - timedelta(seconds=schedule.seconds)).is_due
        assert schedule.nowfun is clock.steady_now
    monkeypatch.setattr("time.monotonic", lambda: clock._ORIGIN + 5)
    assert clock.steady_now() - clock._ORIGIN_WALL == timedelta(seconds=5)


def test_a_process_is_known_again_by_what_no_clock_changes() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert born(other.pid) == born(other.pid)
        ticks = os.sysconf("SC_CLK_TCK")
        age_s = float(open("/proc/uptime").read().split()[0]) - int(born(other.pid)) / ticks  # noqa: SIM115
        assert 0 <= age_s < 60
        other.communicate()
    with pytest.raises(psutil.Error):
        born(other.pid)
