"""The state that a 2026-07-28 client carries for its waiting call: good for that call and its key, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.component import asking
from tests.component.asking import (
    DECLINED,
    INTERNAL,
    INVALID_PARAMS,
    REMOTES,
    Modern,
    accepted,
    every_remote,
    form,
    legacy_remote,
    params_for,
    plan_of,
    roots,
    seen,
    session_client,
)
from tests.component.real_gateway import Gateway

# States that are not what they should be


def bad_retries(gw: Gateway, parked: Any, remote: str) -> Iterator[tuple[str, Any]]:
    state = parked.state
    flipped = state[:40] + ("A" if state[40] != "A" else "B") + state[41:]
    elsewhere = next(name for name in REMOTES if name != remote)
    yield "another key", {"by": Modern(gw.client("other"))}
    yield "one character changed", {"requestState": flipped}
    yield "cut short", {"requestState": state[:-4]}
    yield "longer", {"requestState": state + "AAAA"}
    yield "empty", {"requestState": ""}
    yield "no string", {"requestState": 7}
    yield "no state at all", {"requestState": {"a": 1}}
    yield "made up", {"requestState": "x" * 100_000}
    yield "another tool", {"name": f"{remote}__ask_too"}
    yield "another remote", {"name": f"{elsewhere}__ask"}
    yield "other arguments", {"arguments": parked.params["arguments"] | {"more": 1}}
    yield "no arguments", {"arguments": {}}


@every_remote
def test_a_state_is_good_for_its_own_key_and_call_alone(gw: Gateway, remote: str) -> None:
    parked = Modern(gw.client()).parked(remote, plan_of([form()]))
    words = set()
    for what, changed in bad_retries(gw, parked, remote):
        status, refused = parked.retry(**changed)
        assert "error" in refused, (what, refused)
        assert (status, refused["error"]["code"], refused["id"]) == (400, INVALID_PARAMS, 2), what
        words.add(refused["error"]["message"])
    assert len(words) == 1, "which of them was wrong is not said"
    spelled = dict(reversed(parked.params["arguments"]["plan"].items()))
    status, ended = parked.retry(arguments={"plan": spelled})
    assert (status, ended["result"]["resultType"]) == (200, "complete"), "the same call in another spelling"


@pytest.mark.parametrize("changed", [{"inputResponses": []}, {"inputResponses": "yes"}, {"inputResponses": 1}])
@legacy_remote
def test_responses_that_are_no_object_are_refused_and_the_call_waits_on(
    gw: Gateway, remote: str, changed: dict[str, Any]
) -> None:
    parked = Modern(gw.client()).parked(remote, plan_of([form()]))
    status, refused = parked.retry(**changed)
    assert (status, refused["error"]["code"]) == (400, INVALID_PARAMS)
    assert parked.retry()[1]["result"]["resultType"] == "complete"


@every_remote
def test_missing_answers_are_asked_for_again_and_unknown_ones_ignored(gw: Gateway, remote: str) -> None:
    parked = Modern(gw.client()).parked(remote, plan_of([form(), roots()]))
    wrong: list[dict[str, Any] | None] = [None, {}, {"never": {"roots": []}}]
    for given in wrong:
        status, again = parked.retry(inputResponses=given)
        assert (status, again["result"]["inputRequests"]) == (200, parked.asked), given
        parked.state = again["result"]["requestState"]
    status, ended = parked.retry(inputResponses=parked.responses | {"never": {"action": "accept"}})
    assert (status, len(asking.told(ended["result"])["replies"][0])) == (200, 2)


@legacy_remote
def test_answers_may_come_one_after_another(gw: Gateway, remote: str) -> None:
    parked = Modern(gw.client()).parked(remote, plan_of([form(), roots()]))
    first, second = parked.responses
    _, again = parked.retry(inputResponses={first: parked.responses[first]})
    assert set(again["result"]["inputRequests"]) == {second}
    _, ended = parked.retry(
        inputResponses={second: parked.responses[second]}, requestState=again["result"]["requestState"]
    )
    assert ended["result"]["resultType"] == "complete"


@legacy_remote
def test_the_state_of_a_call_that_has_ended_is_worth_nothing(gw: Gateway, remote: str) -> None:
    plan = plan_of([form()])
    parked = Modern(gw.client()).parked(remote, plan)
    assert parked.retry()[0] == 200
    status, refused = parked.retry()
    assert (status, refused["error"]["code"]) == (400, INVALID_PARAMS)
    assert len(asking.lines(gw, plan["tag"], "started")) == 1


@every_remote
def test_answers_to_what_nobody_asked_begin_a_call_like_any_other(gw: Gateway, remote: str) -> None:
    client, plan = Modern(gw.client()), plan_of([form()])
    params = params_for("tools/call", remote, plan) | {"inputResponses": {"q1": DECLINED, "k9": DECLINED}}
    status, messages = client.ask("tools/call", params)
    assert (status, messages[-1]["result"]["resultType"]) == (200, "input_required")
    required = messages[-1]["result"]
    parked = asking.Parked(client, "tools/call", params, required["inputRequests"], required["requestState"])
    assert parked.retry()[1]["result"]["resultType"] == "complete"


@session_client
@legacy_remote
def test_a_response_is_taken_from_the_session_that_was_asked_and_from_no_other(
    gw: Gateway, kind: str, remote: str
) -> None:
    with asking.client_of(kind, gw) as asked, asking.client_of("session", gw) as other:
        call = asked.begin("tools/call", params_for("tools/call", remote, plan_of([form()])))
        question = call.next()
        for id in (question["id"], "ask-0", 1, "1"):
            stray = {"jsonrpc": "2.0", "id": id, "result": DECLINED}
            assert other.post(json.dumps(stray).encode()).status == 202
        stray = {"jsonrpc": "2.0", "id": "never", "result": DECLINED}
        assert asked.post(json.dumps(stray).encode()).status == 202
        call.answer(question, result=accepted(question))
        assert asking.told(call.next()["result"])["replies"] == [[{"result": accepted(form())}]]
        if kind == "session":
            call.stream.close()


# Bounds


@pytest.mark.one_worker("each bounds what waits in its own memory")
def test_only_so_many_calls_of_one_key_may_wait_for_a_person(gw: Gateway) -> None:
    client = Modern(gw.client())
    waiting = [client.parked("old", plan_of([form()])) for _ in range(10)]
    _, messages = client.ask("tools/call", params_for("tools/call", "old", plan := plan_of([form()])))
    assert messages[-1]["error"]["code"] == INTERNAL
    assert seen(gw, plan["tag"], "replied")["reply"] == {"result": {"action": "cancel"}}
    assert client.run("tools/call", params_for("tools/call", "old", plan_of())).replies == [], "asks nothing, is served"
    others = Modern(gw.client("other")).parked("old", plan_of([form()]))
    assert waiting[0].retry()[0] == 200
    waiting[0] = client.parked("old", plan_of([form()]))
    for parked in (*waiting, others):
        assert parked.retry()[1]["result"]["resultType"] == "complete"


def test_calls_that_ask_nothing_are_not_bounded_by_those_that_wait(gw: Gateway) -> None:
    client = Modern(gw.client())
    calls = [lambda: client.run("tools/call", params_for("tools/call", "old", plan_of(slow=0.7))) for _ in range(16)]
    assert [ended.replies for ended in asking.at_once(*calls)] == [[]] * 16
