"""What a worker's beats tell the supervisor: whether its loop still turns, and whether it has grown too large. Pure values.

A worker writes a line into its pipe every two seconds, from the loop that serves. Beats that do not come are the only sign of a
loop that hangs: the process lives, the kernel goes on taking connections for it, and nobody answers them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

BEAT_EVERY_S = 2.0
# A peak is not a leak: only what stays over the limit for so many beats is replaced.
OVER_MAX = 3


class Pulse(StrEnum):
    STEADY = "steady"
    STALLED = "stalled"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Patience:
    """With a worker that is silent."""

    # Three beats missed: its connections are given to a sibling. A loop that is merely busy comes back from this.
    stalled_after_s: float = 3 * BEAT_EVERY_S
    # It will not come back: it is told to write down where it hangs (SIGABRT), and killed if it cannot even do that.
    hung_after_s: float = 15.0
    abort_grace_s: float = 3.0
    # One that is too large from the start would be replaced for ever: then the limit is what is wrong.
    replaced_after_s: float = 60.0


def pulse(silence_s: float, patience: Patience) -> Pulse:
    """`silence_s`: since the last beat, or since it was ready."""
    if silence_s >= patience.hung_after_s:
        return Pulse.HUNG
    return Pulse.STALLED if silence_s >= patience.stalled_after_s else Pulse.STEADY


def beats_over(before: int, beat: dict[str, Any], memory_max_mb: float) -> int:
    """How many beats in a row said more memory than the limit, this one included."""
    used_mb = beat.get("rss_mb")
    return before + 1 if isinstance(used_mb, int | float) and memory_max_mb and used_mb > memory_max_mb else 0


def is_too_large(beats_over: int) -> bool:
    return beats_over >= OVER_MAX
