"""Requests a minute, per key and per remote: exact within a minute, whole again after it, told with every answer."""

import pytest

from gateway.rates import Rates, TooOften
from gateway.slots import Full
from keys.grant import Grant
from keys.principal import Principal

KEY = Principal("k1", "main", Grant(rate=3, rates=(("stripe", 1),)))
OTHER = Principal("k2", "other", Grant(rate=3))
FREE = Principal("k3", "free")


@pytest.fixture
def seconds():
    return [100.0]


@pytest.fixture
def rates(seconds):
    return Rates(lambda: seconds[0])


def test_a_key_makes_as_many_requests_a_minute_as_it_may(rates, seconds):
    assert [rates.take(KEY) for _ in range(3)] == [None] * 3
    seconds[0] += 20.5
    assert rates.take(KEY) == Full(429, 40, "this key may make 3 requests a minute: try again in 40 s")
    assert rates.take(OTHER) is None
    seconds[0] += 39.5
    assert [rates.take(KEY) for _ in range(3)] == [None] * 3
    assert rates.refused == 1


def test_one_remote_has_a_limit_of_its_own(rates):
    rates.take_for(KEY, "stripe")
    rates.take_for(KEY, "docs")
    with pytest.raises(TooOften) as refused:
        rates.take_for(KEY, "stripe")
    assert refused.value.full == Full(429, 60, "this key may make 1 requests to stripe a minute: try again in 60 s")


def test_what_is_left_is_told_for_every_limit(rates, seconds):
    rates.take(KEY)
    rates.take_for(KEY, "stripe")
    seconds[0] += 0.5
    assert rates.headers(KEY) == (
        (b"ratelimit-policy", b'"key";q=3;w=60, "mcp:stripe";q=1;w=60'),
        (b"ratelimit", b'"key";r=2;t=60, "mcp:stripe";r=0;t=60'),
    )
    seconds[0] += 60
    assert rates.headers(KEY)[1] == (b"ratelimit", b'"key";r=3;t=0, "mcp:stripe";r=1;t=0')


def test_who_has_no_limit_is_neither_counted_nor_told(rates):
    assert [rates.take(FREE) for _ in range(1000)] == [None] * 1000
    rates.take_for(FREE, "stripe")
    assert (rates.headers(FREE), len(rates._windows)) == ((), 0)


def test_a_limit_that_was_lowered_counts_what_was_used(rates):
    for _ in range(3):
        rates.take(KEY)
    assert rates.take(Principal("k1", "main", Grant(rate=2))) is not None
