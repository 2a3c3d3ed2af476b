"""Remotes that ask in the middle of a call: whoever is asked, over whatever transport, the right person answers or nobody.

Real gateway, raw clients of every era and transport (asking.py), raw remotes of every era and transport (asking_peer.py).
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.component import asking
from tests.component.asking import (
    ALL,
    KINDS,
    LEGACY,
    REMOTES,
    Modern,
    OnStream,
    OverHttp,
    OverSse,
    accepted,
    form,
    params_for,
    roots,
    sampling,
    seen,
    url,
)
from tests.component.real_gateway import Client, Gateway, message, until

INVALID_PARAMS, NOT_FOUND, INTERNAL, MISSING, URL_NEEDED = -32602, -32601, -32603, -32021, -32042
DECLINED = {"action": "decline"}
LIFE_S = 0.7
tags = (f"r{number}" for number in itertools.count())
PAIRS = list(itertools.combinations_with_replacement(KINDS, 2))
every_remote = pytest.mark.parametrize("remote", REMOTES)
legacy_remote = pytest.mark.parametrize("remote", LEGACY)
every_client = pytest.mark.parametrize("kind", KINDS)
session_client = pytest.mark.parametrize("kind", ["session", "sse"])


@pytest.fixture(scope="module")
def _asking() -> Iterator[Gateway]:
    with asking.asking_gateway() as gateway:
        yield gateway


@pytest.fixture
def gw(_asking: Gateway) -> Gateway:
    _asking.idle()
    return _asking


@pytest.fixture(scope="module")
def hasty() -> Iterator[Gateway]:
    """Nobody gets longer than a moment to answer."""
    with asking.asking_gateway(MCP_ANSWER_WAIT_S=str(LIFE_S)) as gateway:
        yield gateway


def plan_of(*rounds: list[Any], **more: Any) -> dict[str, Any]:
    return {"tag": next(tags), "rounds": list(rounds)} | more


def is_modern(remote: str) -> bool:
    return remote.endswith("new")


# The way there and back


@every_client
@every_remote
def test_every_question_reaches_the_client_and_every_answer_the_remote_as_they_were_said(
    gw: Gateway, kind: str, remote: str
) -> None:
    first, second = [form(), sampling(), roots()], [form("And again?")]
    plan = plan_of(first, second)
    with asking.client_of(kind, gw) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan))
    put = [question for round in ended.asked for question in (round if isinstance(round, list) else [round])]
    assert sorted(put, key=json.dumps) == sorted([*first, *second], key=json.dumps)
    assert put[-1] == second[0], "rounds keep their order"
    own = [[accepted(question) for question in round] for round in (first, second)]
    wrapped = own if is_modern(remote) else [[{"result": reply} for reply in round] for round in own]
    assert ended.replies == wrapped
    if is_modern(remote):
        assert all(line["intact"] for line in asking.lines(gw, plan["tag"], "replied"))


@every_client
@every_remote
@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
def test_prompts_and_resources_ask_like_tools(gw: Gateway, kind: str, remote: str, method: str) -> None:
    with asking.client_of(kind, gw) as client:
        ended = client.run(method, params_for(method, remote, plan_of([form()])))
    assert ended.asked in ([form()], [[form()]])
    assert len(ended.replies) == 1
    assert {"ttlMs", "cacheScope"} <= set(ended.result) if (kind, method) == ("modern", "resources/read") else True
    assert ("resultType" in ended.result) == (kind == "modern")


@every_client
@every_remote
@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_a_person_who_declines_or_cancels_is_heard_as_that(gw: Gateway, kind: str, remote: str, action: str) -> None:
    with asking.client_of(kind, gw) as client:
        ended = client.run(
            "tools/call", params_for("tools/call", remote, plan_of([form()])), lambda question: {"action": action}
        )
    assert ended.replies == [[{"action": action}]] if is_modern(remote) else [[{"result": {"action": action}}]]


@session_client
@every_remote
def test_an_error_instead_of_an_answer_is_the_remotes_to_know(gw: Gateway, kind: str, remote: str) -> None:
    """A 2026-07-28 remote takes results only: an elicitation is cancelled, for a sampling the call ends with the error."""
    error = {"code": -1, "message": "user rejected", "data": {"vendor": [1]}}
    with asking.client_of(kind, gw) as client:
        elicited = client.run(
            "tools/call", params_for("tools/call", remote, plan_of([form()])), lambda question: {"error": error}
        )
        sampled = client.run(
            "tools/call", params_for("tools/call", remote, plan_of([sampling()])), lambda question: {"error": error}
        )
    if is_modern(remote):
        assert elicited.replies == [[{"action": "cancel"}]]
        assert sampled.final["error"] == error
    else:
        assert elicited.replies == sampled.replies == [[{"error": error}]]


# URL mode


@every_client
@every_remote
def test_a_url_elicitation_has_an_id_exactly_where_the_clients_era_knows_one(
    gw: Gateway, kind: str, remote: str
) -> None:
    question = url()
    if is_modern(remote):
        del question["params"]["elicitationId"]
    with asking.client_of(kind, gw) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan_of([question])))
    asked = ended.asked[0][0] if kind == "modern" else ended.asked[0]
    minted = asked["params"].pop("elicitationId", None)
    if kind == "modern":
        assert minted is None
    else:
        assert minted == "own-id" if not is_modern(remote) else minted
    assert asked["params"] == {name: value for name, value in url()["params"].items() if name != "elicitationId"}


@every_client
@every_remote
def test_a_client_that_knows_forms_only_is_shown_no_url(gw: Gateway, kind: str, remote: str) -> None:
    with asking.client_of(kind, gw, {"elicitation": {}}) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan_of([url()])))
    assert ended.asked == []
    if is_modern(remote) and kind == "modern":
        assert ended.error[0] == MISSING
        assert ended.final["error"]["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}
    elif is_modern(remote):
        assert ended.replies == [[{"action": "cancel"}]]
    else:
        assert ended.replies[0][0]["error"]["code"] == NOT_FOUND


@legacy_remote
def test_the_error_that_sends_a_person_to_a_url_becomes_a_round_and_a_new_call(gw: Gateway, remote: str) -> None:
    listed = [url()["params"] | {"vendor": 1}]
    refusal = {"code": URL_NEEDED, "message": "go there first", "data": {"elicitations": listed}}
    plan = plan_of(refusal=refusal)
    ended = Modern(gw.client()).run("tools/call", params_for("tools/call", remote, plan))
    wanted = {name: value for name, value in listed[0].items() if name != "elicitationId"}
    assert ended.asked == [[{"method": "elicitation/create", "params": wanted}]]
    assert ended.replies == []
    first, second = asking.lines(gw, plan["tag"], "started")
    assert set(second["params"]) == {"name", "arguments", "_meta"}, (
        "nothing of the round reaches a remote without rounds"
    )
    assert first["params"]["arguments"] == second["params"]["arguments"]


@session_client
@legacy_remote
def test_a_session_client_gets_that_error_as_it_is(gw: Gateway, kind: str, remote: str) -> None:
    refusal = {"code": URL_NEEDED, "message": "go there first", "data": {"elicitations": [url()["params"]]}}
    with asking.client_of(kind, gw) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan_of(refusal=refusal)))
    assert ended.final["error"] == refusal


# Whoever cannot be asked is not


@every_client
@every_remote
def test_a_client_that_declared_nothing_is_asked_nothing(gw: Gateway, kind: str, remote: str) -> None:
    with asking.client_of(kind, gw, {}) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan_of([form()])))
    assert ended.asked == []
    if is_modern(remote) and kind == "modern":
        assert ended.error[0] == MISSING
        assert ended.final["error"]["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}
    elif is_modern(remote):
        assert ended.replies == [[{"action": "cancel"}]]
    else:
        assert ended.replies[0][0]["error"]["code"] == NOT_FOUND


@every_client
@legacy_remote
def test_a_remote_is_never_told_of_a_capability_that_the_caller_lacks(gw: Gateway, kind: str, remote: str) -> None:
    with asking.client_of(kind, gw, {"roots": {}}) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan_of([sampling()])))
    assert ended.asked == []
    assert ended.replies[0][0]["error"]["code"] == NOT_FOUND
    assert {"roots": {}} in asking.declared(gw)


# Clients that leave


@every_remote
@pytest.mark.parametrize("rounds", [[], [[form()]]], ids=("at once", "after a round"))
@pytest.mark.edge(2)
def test_a_modern_client_that_leaves_cancels_the_call_at_the_remote(
    gw: Gateway, remote: str, rounds: list[Any]
) -> None:
    client, plan = Modern(gw.client()), plan_of(*rounds, hang=True)
    params = params_for("tools/call", remote, plan)
    if rounds:
        parked = client.parked(remote, plan)
        params |= {"inputResponses": parked.responses, "requestState": parked.state}
    body, headers = client.client.modern_request("tools/call", params, meta=client.meta)
    connection = client.client.post_only("POST", "/mcp", body, headers)
    seen(gw, plan["tag"], "replied" if rounds else "started")
    connection.close()
    seen(gw, plan["tag"], "cancelled")


@every_remote
@pytest.mark.edge(2)
def test_a_lost_event_stream_ends_the_question_and_the_call(gw: Gateway, remote: str) -> None:
    plan = plan_of([form()])
    client = OverSse(gw.client())
    assert client.begin("tools/call", params_for("tools/call", remote, plan)).next()["method"] == "elicitation/create"
    client.close()
    if is_modern(remote):
        gw.idle()  # nothing is open there: that is the point of rounds
    else:
        seen(gw, plan["tag"], "cancelled")
    assert asking.lines(gw, plan["tag"], "ended") == []


@every_remote
def test_a_session_deleted_under_a_question_ends_the_call(gw: Gateway, remote: str) -> None:
    plan = plan_of([form()])
    client = OverHttp(gw.client())
    with client.begin("tools/call", params_for("tools/call", remote, plan)).stream as stream:
        call = OnStream(stream, 1, client.post)
        question = call.next()
        assert client.session.delete().status == 204
        if not is_modern(remote):
            seen(gw, plan["tag"], "cancelled")
        late = {"jsonrpc": "2.0", "id": question["id"], "result": accepted(question)}
        assert client.post(json.dumps(late).encode()).status == 404
    assert asking.lines(gw, plan["tag"], "ended") == []


@every_remote
@pytest.mark.edge(2)
def test_a_session_client_that_was_cut_off_is_still_asked_when_it_comes_back(gw: Gateway, remote: str) -> None:
    plan = plan_of([form()])
    client = OverHttp(gw.client())
    call = client.begin("tools/call", params_for("tools/call", remote, plan))
    place = ""
    while not place:
        line = call.stream.line().decode()
        place = line.partition(": ")[2].strip() if line.startswith("id: ") else ""
    call.stream.close()
    headers = [*client.session.headers, ("Last-Event-ID", place)]
    with client.client.stream("GET", "/mcp", None, headers) as stream:
        ended = OnStream(stream, 1, client.post).run()
    assert ended.asked == [form()]
    assert ended.result


@session_client
@every_remote
def test_a_cancelled_call_takes_its_question_back(gw: Gateway, kind: str, remote: str) -> None:
    plan = plan_of([form()])
    with asking.client_of(kind, gw) as client:
        call = client.begin("tools/call", params_for("tools/call", remote, plan))
        question = call.next()
        assert client.post(message("notifications/cancelled", {"requestId": 1})).status == 202
        withdrawn = call.stream.message()
        assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", question["id"])
        if not is_modern(remote):
            seen(gw, plan["tag"], "cancelled")
        call.answer(question, result=accepted(question))
        if kind == "session":
            call.stream.close()
    assert asking.lines(gw, plan["tag"], "ended") == []


# Time


def test_a_persons_time_is_not_the_remotes(gw: Gateway) -> None:
    """Both rounds together take longer than a call may; each in every pair, side by side."""

    def pair(kind: str, remote: str) -> Any:
        with asking.client_of(kind, gw) as client:
            params = params_for("tools/call", remote, plan_of([form()], [form("Again?")]))
            nobody = threading.Event()
            return client.run("tools/call", params, pause=lambda: nobody.wait(asking.TIMEOUT_S / 2 + 0.2))

    pairs = list(itertools.product(("modern", "session"), REMOTES))
    for ended in asking.at_once(*(lambda pair_=pair_: pair(*pair_) for pair_ in pairs)):
        assert len(ended.replies) == 2


def test_a_parked_call_that_nobody_comes_back_for_is_ended_at_the_remote(hasty: Gateway) -> None:
    def left(remote: str) -> None:
        plan = plan_of([form(), sampling()], hang=True)
        parked = Modern(hasty.client()).parked(remote, plan)
        seen(hasty, plan["tag"], "cancelled")
        first, second = asking.lines(hasty, plan["tag"], "replied")
        assert first["reply"] == {"result": {"action": "cancel"}}
        assert second["reply"]["error"]["code"] == INTERNAL
        status, refused = parked.retry()
        assert (status, refused["error"]["code"]) == (400, INVALID_PARAMS)

    asking.at_once(*(partial(left, remote) for remote in LEGACY))


@pytest.mark.parametrize("remote", ["new", "io_new"])
def test_a_state_that_expired_is_refused_before_the_remote_hears_of_it(hasty: Gateway, remote: str) -> None:
    plan = plan_of([form()])
    parked = Modern(hasty.client()).parked(remote, plan)
    refused = until(lambda: (came := parked.retry(inputResponses={}))[0] == 400 and came, "the state's end")
    assert refused[1]["error"]["code"] == INVALID_PARAMS
    before = len(asking.lines(hasty, plan["tag"], "started"))
    assert parked.retry()[0] == 400
    assert len(asking.lines(hasty, plan["tag"], "started")) == before


def test_a_question_that_a_session_leaves_unanswered_is_withdrawn(hasty: Gateway) -> None:
    def unanswered(kind: str, remote: str) -> None:
        with asking.client_of(kind, hasty) as client:
            call = client.begin("tools/call", params_for("tools/call", remote, plan_of([form()])))
            question, answer = call.next(), call.next()
            if kind == "session":
                call.stream.close()
        (withdrawn,) = call.others
        assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", question["id"])
        cancelled = {"action": "cancel"}
        wanted = cancelled if is_modern(remote) else {"result": cancelled}
        assert asking.told(answer["result"])["replies"] == [[wanted]]

    for kind in ("session", "sse"):
        asking.at_once(*(partial(unanswered, kind, remote) for remote in REMOTES))


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


# Whose question it is


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


@pytest.mark.parametrize("remote", ["io", "sse"])
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


# What comes beside the questions


@legacy_remote
@pytest.mark.edge(15)
def test_progress_of_a_resumed_call_goes_under_the_token_of_the_request_that_waits(gw: Gateway, remote: str) -> None:
    plan = plan_of([form()], [form("Again?")], progress=True)
    ended = Modern(gw.client()).run("tools/call", params_for("tools/call", remote, plan))
    told = [(each["method"], each["params"]["progressToken"], each["params"]["progress"]) for each in ended.others]
    assert told == [("notifications/progress", "p2", 1), ("notifications/progress", "p3", 2)]


@session_client
@every_remote
@pytest.mark.edge(15)
def test_progress_reaches_a_session_client_under_its_one_token(gw: Gateway, kind: str, remote: str) -> None:
    with asking.client_of(kind, gw) as client:
        plan = plan_of([form()], [form("Again?")], progress=True)
        ended = client.run("tools/call", params_for("tools/call", remote, plan))
    assert [each["params"]["progressToken"] for each in ended.others] == ["p1", "p1"]


def test_a_remote_that_asks_for_ever_is_stopped(gw: Gateway) -> None:
    """Ten rounds, as the official SDKs have it; between two sides that know rounds, counting is the client's."""
    with asking.client_of("session", gw, ALL) as client:
        ended = client.run("tools/call", params_for("tools/call", "new", plan_of(*[[form()]] * 12)))
    assert len(ended.asked) == 10
    assert ended.result["isError"] is True


@pytest.mark.parametrize("remote", ["io", "sse"])
@pytest.mark.parametrize("kind", ["modern", "session"])
def test_what_a_cancelled_call_still_asks_reaches_nobody_else(gw: Gateway, kind: str, remote: str) -> None:
    """The remote takes no notice of the cancellation, and asks while only somebody else's call is open."""
    late = {"tag": next(tags), "slow": 0.5, "rounds": []}
    plan = plan_of([form("the first caller's")], after=late["tag"], deaf=True)
    first = OverHttp(gw.client())
    call = first.session.begin("tools/call", params_for("tools/call", remote, plan), id=1)
    seen(gw, plan["tag"], "started")
    assert first.post(message("notifications/cancelled", {"requestId": 1})).status == 202
    gw.idle()
    call.close()
    with asking.client_of(kind, gw) as second:
        ended = second.run("tools/call", params_for("tools/call", remote, late))
    seen(gw, plan["tag"], "replied")
    assert (ended.asked, ended.replies) == ([], [])


@legacy_remote
@session_client
def test_a_question_ends_with_its_call(gw: Gateway, kind: str, remote: str) -> None:
    """The remote answers the call without waiting: whoever was asked is told that it is no longer needed."""
    with asking.client_of(kind, gw) as client:
        call = client.begin("tools/call", params_for("tools/call", remote, plan_of([form()], impatient=True, slow=0.3)))
        question, answer = call.next(), call.next()
        (withdrawn,) = call.others
        if kind == "session":
            call.stream.close()
    assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", question["id"])
    assert asking.told(answer["result"])["replies"] == [[]]


@legacy_remote
def test_a_parked_call_that_ends_by_itself_is_answered_with_its_end(gw: Gateway, remote: str) -> None:
    parked = Modern(gw.client()).parked(remote, plan_of([form()], impatient=True, slow=0.3))
    status, ended = parked.retry(inputResponses={})
    while ended["result"]["resultType"] == "input_required":
        status, ended = parked.retry(inputResponses={}, requestState=ended["result"]["requestState"])
    assert (status, asking.told(ended["result"])["replies"]) == (200, [[]])


@legacy_remote
def test_two_requests_that_resume_one_call_both_get_its_end_and_nothing_runs_twice(gw: Gateway, remote: str) -> None:
    plan = plan_of([form()], slow=0.5)
    parked = Modern(gw.client()).parked(remote, plan)
    for status, ended in asking.at_once(parked.retry, parked.retry):
        assert (status, ended["result"]["resultType"]) == (200, "complete")
    assert len(asking.lines(gw, plan["tag"], "ended")) == 1


@pytest.mark.edge(5)
def test_a_revoked_keys_parked_calls_end_at_the_remote(gw: Gateway) -> None:
    client = Client(gw.port, gw.command("mcpkey", "generate", "revoked")["key"])
    until(lambda: client.modern("server/discover").status == 200, "the new key")
    plans = {remote: plan_of([form()]) for remote in LEGACY}
    parked = [Modern(client).parked(remote, plan) for remote, plan in plans.items()]
    gw.command("mcpkey", "revoke", "revoked")
    for plan in plans.values():
        assert seen(gw, plan["tag"], "replied")["reply"] == {"result": {"action": "cancel"}}
    until(lambda: parked[0].retry()[0] == 401, "the key is refused")
