"""Requests a minute, per key and per remote: exact within a minute, whole again after it, told with every answer."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from gateway.admission.rates import MINUTE_S, Question, Rates, TooOften
from gateway.admission.slots import Full
from keys.grant import Grant
from keys.principal import Principal

KEY = Principal("k1", "main", Grant(rate=3, rates=(("stripe", 1),)))
OTHER = Principal("k2", "other", Grant(rate=3))
FREE = Principal("k3", "free")


def said(asked: Coroutine[Any, Any, Any]) -> Any:
    """What comes of it at once: counting in memory waits for nobody."""
    try:
        asked.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


class Others:
    """What other workers have counted, and whether they can be asked."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.away = False
        self.asked = 0

    async def ask(self, questions: Sequence[Question]) -> list[bool] | None:
        if self.away:
            return None
        self.asked += 1
        granted = []
        for window, most in questions:
            before = self.used.get(window.name, 0) + window.untold
            granted.append(before < most)
            self.used[window.name] = window.used = before + granted[-1]
            window.began, window.untold = 100.0, 0
        return granted


@pytest.fixture
def seconds():
    return [100.0]


@pytest.fixture
def rates(seconds):
    return Rates(lambda: seconds[0])


def test_a_key_makes_as_many_requests_a_minute_as_it_may(rates, seconds):
    assert [said(rates.take(KEY)) for _ in range(3)] == [None] * 3
    seconds[0] += 20.5
    assert said(rates.take(KEY)) == Full(429, 40, "this key may make 3 requests a minute: try again in 40 s")
    assert said(rates.take(OTHER)) is None
    seconds[0] += 39.5
    assert [said(rates.take(KEY)) for _ in range(3)] == [None] * 3
    assert rates.refused == 1


def test_one_remote_has_a_limit_of_its_own(rates):
    said(rates.take_for(KEY, "stripe"))
    said(rates.take_for(KEY, "docs"))
    with pytest.raises(TooOften) as refused:
        said(rates.take_for(KEY, "stripe"))
    assert refused.value.full == Full(429, 60, "this key may make 1 requests to stripe a minute: try again in 60 s")


def test_what_is_left_is_told_for_every_limit(rates, seconds):
    said(rates.take(KEY))
    said(rates.take_for(KEY, "stripe"))
    seconds[0] += 0.5
    assert rates.headers(KEY) == (
        (b"ratelimit-policy", b'"key";q=3;w=60, "mcp:stripe";q=1;w=60'),
        (b"ratelimit", b'"key";r=2;t=60, "mcp:stripe";r=0;t=60'),
    )
    seconds[0] += 60
    assert rates.headers(KEY)[1] == (b"ratelimit", b'"key";r=3;t=0, "mcp:stripe";r=1;t=0')


def test_who_has_no_limit_is_neither_counted_nor_told(rates):
    assert [said(rates.take(FREE)) for _ in range(1000)] == [None] * 1000
    said(rates.take_for(FREE, "stripe"))
    assert (rates.headers(FREE), len(rates._windows)) == ((), 0)


def test_a_limit_that_was_lowered_counts_what_was_used(rates):
    for _ in range(3):
        said(rates.take(KEY))
    assert said(rates.take(Principal("k1", "main", Grant(rate=2)))) is not None


@pytest.fixture
def others():
    return Others()


@pytest.fixture
def shared(seconds, others):
    return Rates(lambda: seconds[0], others)


def left(rates: Rates) -> bytes:
    return rates.headers(KEY)[1][1]


def test_what_others_counted_is_counted_and_told(shared, others):
    others.used = {"k1:": 1, "k1:stripe": 1}
    assert said(shared.take(KEY)) is None
    assert left(shared) == b'"key";r=1;t=60, "mcp:stripe";r=0;t=60'
    with pytest.raises(TooOften):
        said(shared.take_for(KEY, "stripe"))


def test_a_minute_that_is_used_up_asks_nobody(shared, others, seconds):
    others.used = {"k1:": 3}
    assert said(shared.take(KEY)) is not None
    assert [said(shared.take(KEY)) is None for _ in range(100)] == [False] * 100
    assert (others.asked, shared.refused) == (1, 101)
    seconds[0] += MINUTE_S
    others.used = {}
    assert said(shared.take(KEY)) is None


def test_alone_a_worker_counts_on_from_what_it_knew_and_tells_it_later(shared, others):
    assert said(shared.take(KEY)) is None
    others.used["k1:"] = 2  # one of another worker, which this one has not heard of
    others.away = True
    assert [said(shared.take(KEY)) is None for _ in range(3)] == [True, True, False]
    assert shared.counted_alone == 2
    others.away = False
    lowered = Principal("k1", "main", Grant(rate=5))
    assert said(shared.take(lowered)) is None
    assert others.used["k1:"] == 5, "two before, two alone, one now"


def test_a_key_that_is_limited_at_one_remote_alone_is_told_how_that_stands(shared, others):
    others.used = {"k4:stripe": 1}
    key = Principal("k4", "one", Grant(rates=(("stripe", 3),)))
    assert said(shared.take(key)) is None
    assert shared.headers(key)[1][1] == b'"mcp:stripe";r=2;t=60'
