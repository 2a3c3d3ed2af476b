"""What a worker's beats tell the supervisor: whether its loop still turns, and whether it has grown too large. Pure values.

A worker writes a line into its pipe every two seconds, from the loop that serves. Beats that do not come are the only sign of a
loop that hangs: the process lives, the kernel goes on taking connections for it, and nobody answers them.
"""

from collections.abc import Mapping
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
    # Between two replacements of one post for its memory: a limit that is too small must not keep the machine busy.
    replaced_every_s: float = 60.0


def pulse(silence_s: float, patience: Patience) -> Pulse:
    """`silence_s`: since the last beat, or since it was ready."""
    if silence_s >= patience.hung_after_s:
        return Pulse.HUNG
    return Pulse.STALLED if silence_s >= patience.stalled_after_s else Pulse.STEADY


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker says of itself. Its limits are in it because its configuration file may change them while it runs."""

    rss_mb: float = 0.0
    memory_max_mb: float = 0.0
    # How long its calls may take to end when it is told to.
    grace_s: float | None = None
    # Numbers of the siblings whose connections it takes.
    adopted: frozenset[int] = frozenset()


def read(document: Mapping[str, Any]) -> Beat:
    """A field that is missing or no number says nothing."""
    numbers = {name: value for name, value in document.items() if isinstance(value, int | float)}
    adopted = document.get("adopted")
    return Beat(
        numbers.get("rss_mb", 0.0),
        numbers.get("memory_max_mb", 0.0),
        numbers.get("grace_s"),
        frozenset(adopted) if isinstance(adopted, list) else frozenset(),
    )


def beats_over(before: int, beat: Beat) -> int:
    """How many beats in a row said more memory than the limit, this one included."""
    return before + 1 if 0 < beat.memory_max_mb < beat.rss_mb else 0


def is_too_large(beats_over: int, *, replaced_ago_s: float | None, patience: Patience) -> bool:
    """`replaced_ago_s`: since its post was last given a new child for this; None: never."""
    return beats_over >= OVER_MAX and (replaced_ago_s is None or replaced_ago_s >= patience.replaced_every_s)
