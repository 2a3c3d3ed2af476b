"""What the supervisor decides: pure values, no process, no clock. `arbiter` does what these functions say.

The states are the words an operator reads in `mcpserver status`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mcpserver.lib.processes import how_it_ended

BACKOFF_MAX_S = 30.0
# After the drain a worker may take this long to leave before it is killed.
AFTER_DRAIN_S = 5.0
# A child that was ready this long has proven that it can run: its next crash begins again at one second.
FORGIVEN_AFTER_S = 60.0


class State(StrEnum):
    """Of one child process, or of the post that waits for one."""

    STARTING = "starting"  # spawned, not ready yet
    READY = "ready"
    DRAINING = "draining"  # told to end, finishing what it has
    WAITING = "waiting"  # crashed; started again when the backoff is over
    STOPPED = "stopped"


class Phase(StrEnum):
    """Of the supervisor."""

    BOOTING = "booting"  # a child that cannot start ends everything, with its reason
    SERVING = "serving"  # a child that ends is started again
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Spec:
    """One child: `argv` is run with `--fd N` for each socket it inherits and `--ready-fd M`.

    `spares` are its siblings' sockets by their number: it accepts on one when told so, while nobody else does.
    """

    name: str
    argv: tuple[str, ...]
    sockets: tuple[int, ...] = ()
    spares: Mapping[int, int] = field(default_factory=dict)
    number: int = 0
    # Where it takes requests; None for one that takes none.
    control: Path | None = None
    # Whether it writes beats.
    beats: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    # More words for one that follows a crash: it takes up what was running, whatever lies in its way by now.
    again: tuple[str, ...] = ()
    # Whether a successor may run beside its predecessor. Two Celery workers would each have a beat.
    overlap: bool = True
    boot_s: float = 60.0
    # From being told to end to being killed. One that beats may say another time.
    grace_s: float = 35.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a post beyond the life of its children."""

    restarts: int = 0
    crashes_in_a_row: int = 0
    next_start: float | None = None
    last_exit: str = ""
    last_error: Mapping[str, Any] | None = None


def with_farewell(grace_s: float) -> float:
    """`grace_s` for its calls, and time to leave."""
    return grace_s + AFTER_DRAIN_S


def backoff_s(crashes_in_a_row: int) -> float:
    """1, 2, 4 … 30 s."""
    return float(min(2 ** min(crashes_in_a_row - 1, 10), BACKOFF_MAX_S))


def after_crash(
    record: Record, *, now: float, ready_for_s: float, how: str, error: Mapping[str, Any] | None = None
) -> Record:
    """The record of a post whose child ended without being told to."""
    crashes = 1 if ready_for_s >= FORGIVEN_AFTER_S else record.crashes_in_a_row + 1
    return replace(
        record, crashes_in_a_row=crashes, next_start=now + backoff_s(crashes), last_exit=how, last_error=error
    )


def after_restart(record: Record) -> Record:
    return replace(record, restarts=record.restarts + 1, next_start=None)


def boot_error(name: str, status: int, document: Mapping[str, Any] | None) -> tuple[dict[str, Any], int]:
    """The error document and exit code of a child that could not start: its own words when it left any."""
    if document is None:
        message = f"{name} ended before it was ready ({how_it_ended(status)})"
        document = {"error": "child_failed", "message": message, "hint": "its last words are on stderr or in the log"}
    words = {"ok": False, "error": "child_failed", "message": f"{name} could not start"} | dict(document)
    return words, status if status > 0 else 1
