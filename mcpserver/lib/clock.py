"""Time as a collaborator: waits and deadlines are monotonic, only what people read is wall time (UTC)."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never steps."""

    def now(self) -> datetime:
        """The wall clock, UTC."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)
