"""The breaker's decisions, with a clock that is a number."""

import pytest

from gateway.policy.breaker import (
    CLOSED,
    WAIT_MAX_S,
    Circuit,
    Event,
    Go,
    Probe,
    Refuse,
    Rule,
    State,
    Weight,
    Window,
    is_disproved_by_contact,
    is_silence,
    judge,
    move,
    weigh,
)
from remotes.upstream.outcome import Answer, Failure, Fault, Refusal

RULE = Rule()
BROKE = Failure(Fault.BROKEN, "answer", "it broke")
AGAIN = Failure(Fault.NOT_SENT, "tcp", "again")


def window(*calls: tuple[float, bool]) -> Window:
    seen = Window(RULE)
    for at, failed in calls:
        seen.count(at, failed=failed)
    return seen


def opened(now: float = 0.0) -> Circuit:
    return move(CLOSED, Event.TRIPPED, now, RULE, failure=BROKE)


def half_open(now: float = 30.0) -> Circuit:
    return move(opened(), Event.CLAIMED, now, RULE, claim_s=65)


@pytest.mark.edge(1)
def test_it_trips_at_the_fifth_failed_call_within_a_minute_and_not_before():
    assert not window(*((at, True) for at in (0, 10, 20, 30))).is_tripped(30, RULE)
    assert window(*((at, True) for at in (0, 10, 20, 30, 40))).is_tripped(40, RULE)


@pytest.mark.edge(1)
def test_the_minute_slides():
    assert not window(*((at, True) for at in (0, 20, 40, 50, 61))).is_tripped(61, RULE), "the first is too long ago"
    assert window(*((at, True) for at in (2, 20, 40, 50, 61))).is_tripped(61, RULE)


@pytest.mark.edge(1)
def test_failures_that_are_fewer_than_half_of_the_calls_trip_nothing():
    """50 calls a second of which one in 200 fails: 15 failures a minute, and a healthy remote."""
    busy = window(*((n / 50, n % 200 == 0) for n in range(3000)))
    assert busy.seen(59.99) == (3000, 15)
    assert not busy.is_tripped(59.99, RULE)
    half = window(*((n / 10, n % 2 == 0) for n in range(10)))
    assert half.is_tripped(1, RULE), "half is enough"


def test_the_window_keeps_a_bounded_memory_however_busy_it_is():
    busy = window(*((n / 100, False) for n in range(100_000)))
    assert len(busy._slices) <= 60


def test_a_breaker_that_is_switched_off_never_trips():
    assert not window(*((0.0, True),) * 50).is_tripped(0, Rule(enabled=False))


@pytest.mark.edge(1)
def test_an_open_circuit_refuses_until_its_wait_is_over_and_then_lets_one_claim_the_try():
    circuit = opened()
    assert circuit == Circuit(State.OPEN, 0, 30, 30, 5, "it broke")
    assert judge(CLOSED, 0) == Go()
    assert judge(circuit, 29.9) == Refuse(30)
    assert judge(circuit, 30) == Probe()
    claimed = half_open()
    assert claimed.state is State.HALF_OPEN
    assert judge(claimed, 31) == Refuse(95), "exactly one"
    assert judge(claimed, 95) == Probe(), "unless whoever claimed it has died with it"


@pytest.mark.edge(1)
def test_success_closes_and_failure_doubles_the_wait_up_to_its_cap():
    assert move(half_open(), Event.SUCCEEDED, 31, RULE) is CLOSED
    waits, circuit, now = [], opened(), 0.0
    for _ in range(6):
        now = circuit.until
        circuit = move(move(circuit, Event.CLAIMED, now, RULE, claim_s=60), Event.FAILED, now, RULE, failure=AGAIN)
        waits.append(circuit.wait_s)
    assert waits == [60, 120, 240, WAIT_MAX_S, WAIT_MAX_S, WAIT_MAX_S]
    assert circuit.until == now + WAIT_MAX_S
    assert (circuit.reason, circuit.failures) == ("again", 11)


def test_a_wait_that_is_configured_longer_than_the_cap_stays_as_it_is():
    rule = Rule(open_s=900)
    circuit = move(move(CLOSED, Event.TRIPPED, 0, rule), Event.CLAIMED, 900, rule)
    assert move(circuit, Event.FAILED, 900, rule).wait_s == 900


def test_a_try_without_a_verdict_is_given_to_the_next_call():
    circuit = move(half_open(), Event.RELEASED, 40, RULE)
    assert (circuit.state, circuit.wait_s) == (State.OPEN, 30)
    assert judge(circuit, 40) == Probe()


@pytest.mark.parametrize(
    ("circuit", "event"),
    [
        (CLOSED, Event.CLAIMED),
        (CLOSED, Event.SUCCEEDED),
        (CLOSED, Event.FAILED),
        (CLOSED, Event.RELEASED),
        (opened(), Event.TRIPPED),
        (opened(), Event.FAILED),
        (opened(), Event.RELEASED),
        (half_open(), Event.TRIPPED),
    ],
)
def test_what_means_nothing_in_a_state_changes_nothing(circuit, event):
    assert move(circuit, event, 50, RULE) is circuit


BAD = [
    Failure(Fault.NOT_SENT, "tcp", ""),
    Failure(Fault.TIMEOUT, "answer", ""),
    Failure(Fault.BROKEN, "answer", ""),
    Failure(Fault.INVALID, "answer", ""),
    Failure(Fault.HTTP_STATUS, "http", "", status=503),
]
GOOD = [
    Answer(b'{"isError":true}', False),
    Refusal(b'{"code":-32603,"message":"no"}', 500),
    Failure(Fault.HTTP_STATUS, "http", "", status=404),
    Failure(Fault.HTTP_STATUS, "http", "", status=429),
    Failure(Fault.UNAUTHORIZED, "auth", "", status=401),
    Failure(Fault.TOO_LARGE, "answer", ""),
]
NOTHING = [Failure(Fault.BUSY, "send", ""), Failure(Fault.DEGRADED, "send", "")]


@pytest.mark.edge(1)
@pytest.mark.parametrize(
    ("outcome", "weight"),
    [
        (one, weight)
        for weight, ones in ((Weight.BAD, BAD), (Weight.GOOD, GOOD), (Weight.NOTHING, NOTHING))
        for one in ones
    ],
)
def test_what_counts_is_what_says_that_a_remote_is_ill(outcome, weight):
    assert weigh(outcome) is weight


def test_silence_is_a_timeout_after_the_request_was_taken():
    assert is_silence(Failure(Fault.TIMEOUT, "answer", ""))
    assert not is_silence(Failure(Fault.TIMEOUT, "connect", "", before_request=True))
    assert not is_silence(Failure(Fault.BROKEN, "answer", ""))


def test_a_remote_that_can_be_listed_again_disproves_unreachability_and_silence_alone():
    assert [is_disproved_by_contact(one) for one in BAD] == [True, True, False, False, False]
