"""Tasks through the gateway: the ids that a client holds are its key's alone, and lead to the right remote.

Revision 2025-11-25 relayed; its `required` tools driven for clients that know no such tasks; the extension of 2026-07-28 relayed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.component import asking
from tests.component.asking import Modern, OnStream, OverHttp, accepted, form, legacy_remote, params_for, plan_of, seen
from tests.component.real_gateway import Gateway, message

INVALID_PARAMS, NOT_FOUND, HEADER, MISSING = -32602, -32601, -32020, -32021
RELATED = "io.modelcontextprotocol/related-task"
EXTENSION = "io.modelcontextprotocol/tasks"
TAKES_TASKS = {**asking.ALL, "extensions": {EXTENSION: {}}}
MODERN_REMOTES = ["new", "io_new"]
modern_remote = pytest.mark.parametrize("remote", MODERN_REMOTES)


# Revision 2025-11-25


def begun(client: OverHttp, remote: str, plan: Mapping[str, Any], tool: str = "as_task") -> dict[str, Any]:
    params = params_for("tools/call", remote, plan, tool) | {"task": {"ttl": 60000}}
    task: dict[str, Any] = client.session.call("tools/call", params).result["task"]
    return task


def asked(client: OverHttp, method: str, id: str) -> Any:
    return client.session.call(method, {"taskId": id}).messages[-1]


@legacy_remote
def test_a_task_is_created_looked_at_and_fetched_under_an_id_of_the_gateways(gw: Gateway, remote: str) -> None:
    client, plan = OverHttp(gw.client()), plan_of()
    task = begun(client, remote, plan)
    id, own = task["taskId"], f"own-{plan['tag']}"
    assert own not in json.dumps(task)
    assert task["vendorOfTask"] == 1
    assert asked(client, "tasks/get", id)["result"] == task | {"status": "completed"}
    result = asked(client, "tasks/result", id)["result"]
    assert asking.told(result)["tag"] == plan["tag"]
    assert result["_meta"] == {RELATED: {"taskId": id}}
    (started,) = asking.lines(gw, plan["tag"], "started")
    assert started["params"]["task"] == {"ttl": 60000}


@legacy_remote
def test_the_session_that_began_a_task_hears_how_it_is_under_the_id_it_knows(gw: Gateway, remote: str) -> None:
    with asking.client_of("sse", gw) as client:
        assert client.post(message("tools/call", _as_task(remote), id=1)).status == 202
        task = client.relay.stream.answer(1)["result"]["task"]
        assert client.post(message("tasks/cancel", {"taskId": task["taskId"]}, id=2)).status == 202
        came = [client.relay.stream.message() for _ in range(2)]
    (news,) = [one["params"] for one in came if one.get("method") == "notifications/tasks/status"]
    assert news == task | {"status": "cancelled"}


def _as_task(remote: str) -> dict[str, Any]:
    return params_for("tools/call", remote, plan_of(hang=True), "as_task") | {"task": {"ttl": 60000}}


@legacy_remote
@pytest.mark.one_program("a task is in the memory of the program that began it")
def test_a_key_lists_its_own_tasks_and_only_those(gw: Gateway, remote: str) -> None:
    client, other = OverHttp(gw.client()), OverHttp(gw.client("other"))
    mine, theirs = begun(client, remote, plan_of()), begun(other, remote, plan_of())
    listed = client.session.call("tasks/list").result["tasks"]
    assert mine["taskId"] in [task["taskId"] for task in listed]
    assert mine | {"status": "completed"} in listed
    assert theirs["taskId"] not in [task["taskId"] for task in listed]
    again = OverHttp(gw.client()).session.call("tasks/list").result["tasks"]
    assert mine["taskId"] in [task["taskId"] for task in again], "the key's, not the session's"


@legacy_remote
@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/cancel"])
def test_another_keys_task_and_a_changed_id_do_not_exist(gw: Gateway, remote: str, method: str) -> None:
    client, other, plan = OverHttp(gw.client()), OverHttp(gw.client("other")), plan_of()
    id = begun(client, remote, plan)["taskId"]
    changed = id[:8] + ("A" if id[8] != "A" else "B") + id[9:]
    own = base64.urlsafe_b64encode(json.dumps([remote, f"own-{plan['tag']}"]).encode()).decode()
    words = {asked(other, method, id)["error"]["message"]}
    for bad in (changed, id[:-1], id + "A", own, f"own-{plan['tag']}", "", "é", "=" * 9):
        error = asked(client, method, bad)["error"]
        assert error["code"] == INVALID_PARAMS, bad
        words.add(error["message"])
    assert client.session.call(method, {"taskId": 7}).messages[-1]["error"]["code"] == INVALID_PARAMS
    assert len(words) == 1, "which of them was wrong is not said"
    assert asking.lines(gw, plan["tag"], method) == []
    assert asked(client, "tasks/get", id)["result"]["status"] == "completed"


@legacy_remote
def test_a_task_is_cancelled_at_its_remote(gw: Gateway, remote: str) -> None:
    client, plan = OverHttp(gw.client()), plan_of(hang=True)
    task = begun(client, remote, plan)
    assert asked(client, "tasks/cancel", task["taskId"])["result"] == task | {"status": "cancelled"}
    assert asked(client, "tasks/get", task["taskId"])["result"]["status"] == "cancelled"


@legacy_remote
def test_a_tasks_question_names_it_in_the_clients_words_and_its_answer_in_the_remotes(gw: Gateway, remote: str) -> None:
    client, plan = OverHttp(gw.client()), plan_of([form()])
    id = begun(client, remote, plan)["taskId"]
    with client.begin("tasks/result", {"taskId": id}).stream as stream:
        call = OnStream(stream, 1, client.post)
        question = call.next()
        assert question["params"].pop("_meta") == {RELATED: {"taskId": id}}
        assert {name: question[name] for name in ("method", "params")} == form()
        call.answer(question, result=accepted(question) | {"_meta": {RELATED: {"taskId": id}}})
        result = call.next()["result"]
    (reply,) = asking.told(result)["replies"][0]
    own = {RELATED: {"taskId": f"own-{plan['tag']}"}}
    assert reply == {"result": accepted(form()) | {"_meta": own}}


@legacy_remote
def test_a_tool_that_may_be_a_task_is_called_plainly_too(gw: Gateway, remote: str) -> None:
    client = OverHttp(gw.client())
    ended = client.run("tools/call", params_for("tools/call", remote, plan_of(), "as_task"))
    assert ended.replies == []


# `taskSupport: required`, for whoever cannot ask for a task


@pytest.mark.parametrize("kind", asking.KINDS)
@legacy_remote
def test_what_can_only_be_a_task_is_an_ordinary_call_for_whoever_asks_for_no_task(
    gw: Gateway, kind: str, remote: str
) -> None:
    plan = plan_of([form()])
    with asking.client_of(kind, gw) as client:
        ended = client.run("tools/call", params_for("tools/call", remote, plan, "only_task"))
    assert ended.asked
    assert json.loads(json.dumps(accepted(form()))) == ended.replies[0][0]["result"]
    assert f"own-{plan['tag']}" not in json.dumps(ended.final), "nobody but the gateway knows of the task"


@legacy_remote
@pytest.mark.edge(2)
def test_a_modern_client_that_leaves_cancels_the_task_that_was_driven_for_it(gw: Gateway, remote: str) -> None:
    plan = plan_of(hang=True)
    client = Modern(gw.client())
    body, headers = client.client.modern_request(
        "tools/call", params_for("tools/call", remote, plan, "only_task"), meta=client.meta
    )
    connection = client.client.post_only("POST", "/mcp", body, headers)
    seen(gw, plan["tag"], "tasks/result")
    connection.close()
    seen(gw, plan["tag"], "tasks/cancel")


# The extension of 2026-07-28


def named(id: str) -> dict[str, Any]:
    return {"headers": {"Mcp-Name": id}}


@modern_remote
@pytest.mark.one_program("a task is in the memory of the program that began it")
def test_the_extensions_tasks_are_relayed_with_their_questions(gw: Gateway, remote: str) -> None:
    client, plan = Modern(gw.client(), TAKES_TASKS), plan_of([form()])
    _, messages = client.ask("tools/call", params_for("tools/call", remote, plan, "as_task"))
    task = messages[-1]["result"]
    id, own = task["taskId"], f"own-{plan['tag']}"
    assert (task["resultType"], task["vendorOfTask"]) == ("task", 1)
    assert own not in json.dumps(task)
    _, (looked,) = client.ask("tasks/get", {"taskId": id}, **named(id))
    assert (looked["result"]["status"], looked["result"]["inputRequests"]) == ("input_required", {"t0": form()})
    assert looked["result"]["taskId"] == id
    answers = {"taskId": id, "inputResponses": {"t0": accepted(form())}}
    _, (updated,) = client.ask("tasks/update", answers, **named(id))
    assert updated["result"]["resultType"] == "complete"
    _, (ended,) = client.ask("tasks/get", {"taskId": id}, **named(id))
    assert ended["result"]["status"] == "completed"
    assert asking.told(ended["result"]["result"])["replies"] == [{"t0": accepted(form())}]
    if remote == "new":
        heard = [asking.lines(gw, plan["tag"], method) for method in ("tasks/get", "tasks/update")]
        assert [line["named"] for lines in heard for line in lines] == [own] * 3, "Mcp-Name is the remote's own id"


@modern_remote
@pytest.mark.one_program("a task is in the memory of the program that began it")
def test_the_extensions_tasks_are_cancelled_at_their_remote(gw: Gateway, remote: str) -> None:
    client, plan = Modern(gw.client(), TAKES_TASKS), plan_of(hang=True)
    _, messages = client.ask("tools/call", params_for("tools/call", remote, plan, "as_task"))
    id = messages[-1]["result"]["taskId"]
    _, (cancelled,) = client.ask("tasks/cancel", {"taskId": id}, **named(id))
    assert cancelled["result"]["resultType"] == "complete"
    _, (looked,) = client.ask("tasks/get", {"taskId": id}, **named(id))
    assert looked["result"]["status"] == "cancelled"


@modern_remote
def test_another_keys_task_of_the_extension_does_not_exist(gw: Gateway, remote: str) -> None:
    client, other, plan = Modern(gw.client(), TAKES_TASKS), Modern(gw.client("other"), TAKES_TASKS), plan_of(hang=True)
    _, messages = client.ask("tools/call", params_for("tools/call", remote, plan, "as_task"))
    id = messages[-1]["result"]["taskId"]
    changed = id[:8] + ("A" if id[8] != "A" else "B") + id[9:]
    for method in ("tasks/get", "tasks/cancel", "tasks/update"):
        for who, what in ((other, id), (client, changed), (client, f"own-{plan['tag']}")):
            status, (refused,) = who.ask(method, {"taskId": what, "inputResponses": {}}, **named(what))
            assert (status, refused["error"]["code"]) == (400, INVALID_PARAMS), (method, what)
    assert asking.lines(gw, plan["tag"], "tasks/cancel") == []


@modern_remote
def test_a_task_request_needs_the_extension_and_the_header_that_names_it(gw: Gateway, remote: str) -> None:
    client, plan = Modern(gw.client(), TAKES_TASKS), plan_of(hang=True)
    _, messages = client.ask("tools/call", params_for("tools/call", remote, plan, "as_task"))
    id = messages[-1]["result"]["taskId"]
    status, (refused,) = Modern(gw.client()).ask("tasks/get", {"taskId": id}, **named(id))
    assert (status, refused["error"]["code"]) == (400, MISSING)
    for header in (None, "other", id.upper()):
        status, (refused,) = client.ask("tasks/get", {"taskId": id}, headers={"Mcp-Name": header})
        assert (status, refused["error"]["code"]) == (400, HEADER)
    for method in ("tasks/list", "tasks/result"):
        status, (refused,) = client.ask(method, {"taskId": id}, **named(id))
        assert (status, refused["error"]["code"]) == (404, NOT_FOUND)


@modern_remote
def test_a_client_without_the_extension_gets_no_task(gw: Gateway, remote: str) -> None:
    plan = plan_of()
    ended = Modern(gw.client()).run("tools/call", params_for("tools/call", remote, plan, "as_task"))
    assert ended.replies == []
    with asking.client_of("session", gw) as session:
        params = params_for("tools/call", remote, plan_of(), "as_task") | {"task": {"ttl": 1000}}
        assert session.run("tools/call", params).replies == [], "a remote without such tasks is called plainly"


def test_a_session_has_no_methods_of_the_extension(gw: Gateway) -> None:
    client = OverHttp(gw.client())
    body = message("tasks/update", {"taskId": "x", "inputResponses": {}}, id=5)
    assert client.post(body).json["error"]["code"] == NOT_FOUND
