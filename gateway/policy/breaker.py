"""When something that keeps failing is left alone, and when it is tried again. Decides; never sends, waits or looks at a clock.

| state       | meaning                                   | tripped | claimed   | succeeded | failed          | released |
| ----------- | ----------------------------------------- | ------- | --------- | --------- | --------------- | -------- |
| `closed`    | calls go through                          | open    |           |           |                 |          |
| `open`      | calls are refused until the next try      |         | half_open | closed    |                 |          |
| `half_open` | one call tries; all others are refused    |         | half_open | closed    | open, 2 × wait  | open     |

It opens at so many failed calls within a sliding window that are at least half of the window's calls: a number alone trips on
healthy, busy remotes. A claim lasts a bounded time, so that a try whose process died does not refuse calls for ever.

A call that timed out after the remote took it counts against its tool first. Against the remote it counts only if the remote has
answered nobody since that call began: one that answers others is not ill, it has a slow tool.
"""

from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum

from remotes.upstream.outcome import Answer, Failure, Fault, Outcome, Refusal

# However often it has failed, it is tried again after this long.
WAIT_MAX_S = 300.0
# The window's calls are counted in this many slices: precise to a second for a window of a minute.
_SLICES = 60
_REASON_MAX_CHARS = 300


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(StrEnum):
    TRIPPED = "tripped"
    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RELEASED = "released"  # the try ended without a verdict, as when its client left


class Weight(StrEnum):
    """What an outcome says about the health of a remote."""

    GOOD = "good"  # it answered: errors of tools and of JSON-RPC are answers, and so are refusals of our credential
    BAD = "bad"
    NOTHING = "nothing"  # it was never asked


@dataclass(frozen=True, slots=True)
class Rule:
    failures: int = 5
    window_s: float = 60.0
    open_s: float = 30.0
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Circuit:
    """One circuit at one moment; times are monotonic seconds. `until`: when the next try, or the next claim, is due.

    `contact_closes`: a remote that greets and lists again needs no call to try it.
    """

    state: State = State.CLOSED
    since: float = 0.0
    until: float = 0.0
    wait_s: float = 0.0
    failures: int = 0
    reason: str = ""
    contact_closes: bool = False

    @property
    def is_closed(self) -> bool:
        return self.state is State.CLOSED


CLOSED = Circuit()


@dataclass(frozen=True, slots=True)
class Go:
    pass


@dataclass(frozen=True, slots=True)
class Probe:
    """May go, if it is the one that claims the try."""


@dataclass(frozen=True, slots=True)
class Refuse:
    until: float


Verdict = Go | Probe | Refuse
_GO, _PROBE = Go(), Probe()


def judge(circuit: Circuit, now: float) -> Verdict:
    if circuit.state is State.CLOSED:
        return _GO
    return _PROBE if now >= circuit.until else Refuse(circuit.until)


def move(
    circuit: Circuit, event: Event, now: float, rule: Rule, *, claim_s: float = 0.0, failure: Failure | None = None
) -> Circuit:
    """The one way from state to state; an event that means nothing in a state changes nothing."""
    reason = failure.message[:_REASON_MAX_CHARS] if failure is not None else ""
    contact_closes = failure is not None and is_disproved_by_contact(failure)
    match circuit.state, event:
        case State.CLOSED, Event.TRIPPED:
            until = now + rule.open_s
            return Circuit(State.OPEN, now, until, rule.open_s, rule.failures, reason, contact_closes)
        case State.OPEN | State.HALF_OPEN, Event.CLAIMED:
            return replace(circuit, state=State.HALF_OPEN, since=now, until=now + claim_s)
        case State.OPEN | State.HALF_OPEN, Event.SUCCEEDED:
            return CLOSED
        case State.HALF_OPEN, Event.FAILED:
            wait_s = max(min(2 * circuit.wait_s, WAIT_MAX_S), rule.open_s)
            contact_closes = contact_closes or circuit.contact_closes
            return Circuit(State.OPEN, now, now + wait_s, wait_s, circuit.failures + 1, reason, contact_closes)
        case State.HALF_OPEN, Event.RELEASED:
            return replace(circuit, state=State.OPEN, since=now, until=now)
    return circuit


class Window:
    """The calls of the last `window_s` seconds, precise to a sixtieth of it. Counting one costs a comparison and an addition."""

    __slots__ = ("_slice_s", "_slices")

    def __init__(self, rule: Rule) -> None:
        self._slice_s = rule.window_s / _SLICES
        self._slices: deque[list[int]] = deque(maxlen=_SLICES)  # number of the slice, calls, failed ones

    def count(self, now: float, *, failed: bool) -> None:
        number = int(now // self._slice_s)
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append([number, 0, 0])
        last = self._slices[-1]
        last[1] += 1
        last[2] += failed

    def seen(self, now: float) -> tuple[int, int]:
        """How many calls, and how many of them failed; may be asked from any thread."""
        oldest = int(now // self._slice_s) - _SLICES
        recent = [one for one in tuple(self._slices) if one[0] > oldest]
        return sum(one[1] for one in recent), sum(one[2] for one in recent)

    def is_tripped(self, now: float, rule: Rule) -> bool:
        calls, failed = self.seen(now)
        return rule.enabled and failed >= rule.failures and 2 * failed >= calls


def weigh(outcome: Outcome) -> Weight:
    match outcome:
        case Answer() | Refusal():  # nearly always
            return Weight.GOOD
        case Failure(fault=Fault.BUSY | Fault.DEGRADED):
            return Weight.NOTHING
        case Failure(fault=Fault.NOT_SENT | Fault.TIMEOUT | Fault.BROKEN | Fault.INVALID):
            return Weight.BAD
        case Failure(fault=Fault.HTTP_STATUS, status=status) if status >= 500:
            return Weight.BAD
        case Failure():
            return Weight.GOOD


def is_silence(outcome: Outcome) -> bool:
    """Whether the remote took the request and then said nothing until the time was up."""
    return isinstance(outcome, Failure) and outcome.fault is Fault.TIMEOUT and not outcome.is_unsent


def is_disproved_by_contact(failure: Failure) -> bool:
    """Whether a remote that greets and lists is well again: it could not be reached, or said nothing.

    One that breaks off calls, or answers them with nonsense, may well list at the same time.
    """
    return failure.is_unsent or failure.fault is Fault.TIMEOUT
