"""Slots: refused before anything is started, given back exactly once, one key's never another's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.slots import Counter, Full, Slots
from mcpserver.lib.limits import Limits

LIMITS = Limits(max_in_flight_per_key=2, max_requests_in_flight=3, max_connections_per_key=1, max_total_connections=2)


@pytest.mark.edge(3)
def test_a_key_meets_its_own_limit_before_it_takes_what_is_anothers() -> None:
    requests = Slots(LIMITS).requests
    assert [requests.take("a") for _ in range(2)] == [None, None]
    assert requests.take("a") == Full(429, 5, "this key has 2 requests in flight, its limit is 2")
    assert requests.take("b") is None
    assert requests.take("b") == Full(503, 5, "the gateway has 3 requests in flight, its limit is 3")
    assert (requests.active, requests.refused, requests.per_key) == (3, 2, {"a": 2, "b": 1})


@pytest.mark.edge(3)
def test_too_many_streams_are_429_by_either_limit() -> None:
    streams = Slots(LIMITS).streams
    assert streams.take("a") is None
    assert streams.take("b") is None
    assert [full.status for key in ("a", "c") if (full := streams.take(key))] == [429, 429]


def test_what_is_given_back_can_be_taken_again_and_leaves_no_trace() -> None:
    requests = Slots(LIMITS).requests
    for _ in range(1000):
        assert requests.take("a") is None
        requests.give_back("a")
    assert (requests.active, requests.per_key) == (0, {})


def test_lower_limits_close_nothing_that_is_open() -> None:
    slots = Slots(LIMITS)
    slots.requests.take("a")
    slots.follow(Limits(max_in_flight_per_key=1, max_requests_in_flight=1))
    assert slots.requests.active == 1
    assert slots.requests.take("a") is not None
    slots.requests.give_back("a")
    assert slots.requests.take("a") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_the_counts_always_add_up(steps: list[tuple[str, bool]]) -> None:
    counter = Counter("things", total_status=503)
    counter.allow(2, 4)
    held: list[str] = []
    for key, gives_back in steps:
        if gives_back and key in held:
            held.remove(key)
            counter.give_back(key)
        elif not gives_back and counter.take(key) is None:
            held.append(key)
    assert counter.active == len(held) == sum(counter.per_key.values()) <= 4
    assert all(counter.per_key[key] == held.count(key) <= 2 for key in held)


def test_a_keys_own_limit_takes_the_place_of_everybodys() -> None:
    streams = Slots(LIMITS).streams
    assert streams.take("a", 2) is None
    assert streams.take("a", 2) is None
    assert streams.take("b", 1) == Full(429, 5, "the gateway has 2 open streams, its limit is 2")
    assert streams.take("a", 2) == Full(429, 5, "this key has 2 open streams, its limit is 2")
