"""Questions whose client leaves, or takes its time: the call, its remote and the question end as the era says."""

from __future__ import annotations

import itertools
import json
import threading
from functools import partial
from typing import Any

import pytest

from tests.component import asking
from tests.component.asking import (
    INTERNAL,
    INVALID_PARAMS,
    LEGACY,
    REMOTES,
    Modern,
    OnStream,
    OverHttp,
    OverSse,
    accepted,
    every_remote,
    form,
    is_modern,
    params_for,
    plan_of,
    sampling,
    seen,
    session_client,
)
from tests.component.real_gateway import Gateway, message, until

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
        assert line, "it ended without an event"
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
