"""Time as a collaborator: waits and deadlines are monotonic, only what people read is wall time (UTC)."""

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Protocol

import msgspec


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never steps."""

    def now(self) -> datetime:
        """The wall clock, UTC."""


_ORIGIN_WALL, _ORIGIN = datetime.now(UTC), time.monotonic()


def steady_now() -> datetime:
    """The wall clock as it was when this process began, and monotonic since: for what insists on dates to measure with.

    Seconds between two of them are right whatever becomes of the clock; as a date to show it may be wrong.
    """
    return _ORIGIN_WALL + timedelta(seconds=time.monotonic() - _ORIGIN)


class Instant(msgspec.Struct, frozen=True, array_like=True):
    """A moment that other processes can measure from: on its own machine in monotonic time, which is one for all processes there
    and never steps; on another one, or after a restart of the machine, by the wall clock."""

    wall: float
    monotonic: float
    machine: str

    def plus(self, seconds: float) -> "Instant":
        return Instant(self.wall + seconds, self.monotonic + seconds, self.machine)

    def is_past(self, now: "Instant") -> bool:
        if self.machine and self.machine == now.machine:
            return self.monotonic < now.monotonic
        return self.wall < now.wall


@cache
def _machine() -> str:
    """This start of this machine; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def instant(clock: Clock) -> Instant:
    return Instant(clock.now().timestamp(), clock.monotonic(), _machine())


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)
