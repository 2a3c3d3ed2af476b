"""Whose question it is, when several calls are open: the right caller is asked, or nobody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.component import asking
from tests.component.asking import (
    NOT_FOUND,
    PAIRS,
    Modern,
    form,
    params_for,
    plan_of,
)
from tests.component.real_gateway import Gateway

of_its_own = pytest.mark.one_worker("each has a session of its own with this remote, and can tell")


@pytest.mark.parametrize("kinds", PAIRS)
def test_over_http_each_of_two_callers_gets_the_question_of_their_own_call(gw: Gateway, kinds: tuple[str, str]) -> None:
    plans = [plan_of([form("one")]), plan_of([form("two")])]
    plans[0]["after"], plans[1]["after"] = plans[1]["tag"], plans[0]["tag"]

    def call(number: int) -> Any:
        with asking.client_of(kinds[number], gw) as client:
            return client.run("tools/call", params_for("tools/call", "old", plans[number]))

    for ended, text in zip(asking.at_once(lambda: call(0), lambda: call(1)), ("one", "two"), strict=True):
        assert ended.asked in ([form(text)], [[form(text)]])
        assert len(ended.replies) == 1


@pytest.mark.parametrize("remote", ["io", pytest.param("sse", marks=of_its_own)])
@pytest.mark.parametrize("kinds", PAIRS)
def test_where_nobody_can_tell_whose_question_it_is_nobody_is_asked(
    gw: Gateway, remote: str, kinds: tuple[str, str]
) -> None:
    plans = [plan_of([form("one")], slow=0.3), plan_of([form("two")], slow=0.3)]
    plans[0]["after"], plans[1]["after"] = plans[1]["tag"], plans[0]["tag"]

    def call(number: int) -> Any:
        with asking.client_of(kinds[number], gw) as client:
            return client.run("tools/call", params_for("tools/call", remote, plans[number]))

    for ended in asking.at_once(lambda: call(0), lambda: call(1)):
        assert ended.asked == []
        assert ended.replies[0][0]["error"]["code"] == NOT_FOUND


@pytest.mark.parametrize("remote", ["io", "sse"])
def test_while_one_question_waits_another_call_is_asked_on_a_session_of_its_own(gw: Gateway, remote: str) -> None:
    parked = Modern(gw.client()).parked(remote, plan_of([form("one")]))
    second = Modern(gw.client("other")).parked(remote, plan_of([form("two")]))
    assert [list(each.asked.values()) for each in (parked, second)] == [[form("one")], [form("two")]]
    for each in (second, parked):
        assert each.retry()[1]["result"]["resultType"] == "complete"
