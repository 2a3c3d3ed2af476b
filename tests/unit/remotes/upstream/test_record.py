"""When the next process may start, and what status says of the last one."""

import pytest

from remotes.upstream import record
from remotes.upstream.outcome import Failed, Fault
from remotes.upstream.record import Places, Record


def fresh() -> Record:
    return Record(Places(1))


def test_the_wait_is_nothing_at_first_and_doubles_up_to_a_minute():
    assert [record.backoff_s(n) for n in range(10)] == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert record.backoff_s(10_000) == 60


def test_one_death_is_an_accident_and_the_next_ones_wait():
    one = fresh()
    one.died(100.0, was_greeted=False)
    one.admit("shop", 100.0)
    one.died(101.0, was_greeted=False)
    with pytest.raises(Failed) as refused:
        one.admit("shop", 101.5)
    assert (refused.value.failure.fault, refused.value.failure.retry_after_s) == (Fault.NOT_SENT, 0.5)
    one.admit("shop", 102.0)


def test_a_process_that_lived_has_proven_itself_and_one_that_never_spoke_has_not():
    one = fresh()
    one.deaths_in_a_row = 6
    one.greeted(1000.0)
    one.died(1000.0 + record.FORGIVEN_AFTER_S, was_greeted=True)
    assert (one.deaths_in_a_row, one.next_start) == (1, 1060.0)
    one.died(5000.0, was_greeted=False)
    assert one.deaths_in_a_row == 2


def test_status_tells_of_the_last_end_and_the_next_start():
    one = fresh()
    one.born(7)
    one.born(8)
    one.last_exit, one.last_words, one.noise = "signal KILL", "out of memory", 3
    one.deaths_in_a_row, one.next_start = 3, 12.0
    assert one.facts(10.0) == {
        "pid": 8, "restarts": 1, "deaths_in_a_row": 3, "next_start_in_s": 2.0, "last_exit": "signal KILL",
        "last_words": "out of memory", "noise": 3, "strays": 0, "too_large": 0,
    }  # fmt: skip
    assert one.facts(13.0)["next_start_in_s"] is None


def test_a_place_is_refused_when_all_are_taken_and_free_when_one_is_given_back():
    places = Places(1)
    places.take("a")
    with pytest.raises(Failed) as refused:
        places.take("b")
    assert refused.value.failure.fault is Fault.BUSY
    places.give_back()
    places.take("b")
