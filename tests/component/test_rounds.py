"""Remotes that ask in the middle of a call: whoever is asked, over whatever transport, the right person answers or nobody.

Real gateway, raw clients of every era and transport (asking.py), raw remotes of every era and transport (asking_peer.py).
"""

from __future__ import annotations

import json

import pytest

from tests.component import asking
from tests.component.asking import (
    ALL,
    LEGACY,
    MISSING,
    NOT_FOUND,
    URL_NEEDED,
    Modern,
    OverHttp,
    accepted,
    every_client,
    every_remote,
    form,
    is_modern,
    legacy_remote,
    params_for,
    plan_of,
    roots,
    sampling,
    seen,
    session_client,
    url,
)
from tests.component.real_gateway import Client, Gateway, message, until

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
    late = {"tag": next(asking.tags), "slow": 0.5, "rounds": []}
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
