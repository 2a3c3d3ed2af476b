"""Batches of revision 2025-03-26: an array in, an array out; nobody else sends one."""

import contextlib
import json
import time
import uuid
from typing import Any

import pytest

from tests.component.real_gateway import MODERN, Gateway, Reply, Session, initialize, message, odd, prepared, until

BATCHING = "2025-03-26"
PING = message("ping", id=1)


def array(*messages: bytes) -> bytes:
    return b"[" + b",".join(messages) + b"]"


def call(name: str, arguments: Any = None, *, id: Any, token: Any = None) -> bytes:
    meta = {} if token is None else {"_meta": {"progressToken": token}}
    return message("tools/call", {"name": name, "arguments": arguments or {}, **meta}, id=id)


def post(session: Session, *messages: bytes) -> Reply:
    return session.client.ask("POST", "/mcp", array(*messages), session.headers)


def by_id(answers: list[Any]) -> dict[Any, Any]:
    assert len({answer["id"] for answer in answers}) == len(answers)
    return {answer["id"]: answer for answer in answers}


class TestAnswers:
    def test_each_request_is_answered_once_and_all_come_together(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING)
        reply = post(
            session,
            PING,
            message("notifications/initialized"),
            call("old__echo", {"text": "é"}, id="1"),
            message("nothing", id=2),
            call("no__such", id=3),
            message("logging/setLevel", {"level": "info"}, id=4),
        )
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        answers = by_id(reply.json)
        assert set(answers) == {1, "1", 2, 3, 4}
        assert answers[1]["result"] == answers[4]["result"] == {}
        assert answers["1"]["result"]["content"][0]["text"] == "é"
        assert (answers[2]["error"]["code"], answers[3]["error"]["code"]) == (-32601, -32602)

    def test_one_request_is_answered_by_an_array_of_one(self, gateway: Gateway) -> None:
        assert post(gateway.client().session(BATCHING), PING).json == [{"jsonrpc": "2.0", "id": 1, "result": {}}]

    def test_what_asks_for_no_answer_gets_none(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING)
        response = json.dumps({"jsonrpc": "2.0", "id": 9, "result": {}}).encode()
        for messages in ([message("notifications/initialized")] * 2, [response]):
            reply = post(session, *messages)
            assert (reply.status, reply.body) == (202, b"")

    def test_they_run_beside_each_other(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING)
        began = time.monotonic()
        reply = post(session, *(call("odd__late", id=id) for id in range(5)))
        assert set(by_id(reply.json)) == set(range(5))
        assert time.monotonic() - began < 3.5, "0.7 s each, one after another"

    def test_where_something_comes_before_the_answers_all_are_events_of_one_stream(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING)
        slow = {"n": 2, "seconds": 0.1}
        reply = post(session, PING, *(call("old__slow", slow, id=id, token=id) for id in ("a", "b")))
        assert reply.headers["content-type"] == "text/event-stream"
        progress = [one["params"]["progressToken"] for one in reply.messages if "method" in one]
        assert sorted(progress) == ["a", "a", "b", "b"]
        assert set(by_id([one for one in reply.messages if "method" not in one])) == {1, "a", "b"}

    def test_a_question_in_the_middle_is_answered_by_a_batch_of_one(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING, {"elicitation": {}})
        body = array(PING, call("new__ask", id=2))
        with session.client.stream("POST", "/mcp", body, session.headers) as stream:
            while (question := stream.message()).get("method") != "elicitation/create":
                continue
            answer = {"action": "accept", "content": {"colour": "red"}}
            response = json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": answer}).encode()
            assert post(session, response).status == 202
            rest = [json.loads(data) for _, data in stream.rest()]
        assert by_id(rest)[2]["result"]["content"][0]["text"] == "red"


class TestCancelling:
    def test_the_others_are_answered_without_it(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING)
        tag = uuid.uuid4().hex
        body = array(call("odd__wait", {"tag": tag}, id="w"), PING)
        with contextlib.closing(session.client.post_only("POST", "/mcp", body, session.headers)) as waiting:
            until(lambda: gateway.journal_of(tag) == ["started"])
            cancel = message("notifications/cancelled", {"requestId": "w"})
            assert post(session, cancel).status == 202
            assert Reply(waiting.getresponse()).json == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"])

    def test_a_batch_can_cancel_what_it_asks_and_then_nothing_is_left_to_say(self, gateway: Gateway) -> None:
        session = gateway.client().session(BATCHING)
        cancel = message("notifications/cancelled", {"requestId": 7})
        reply = post(session, call("odd__wait", {"tag": uuid.uuid4().hex}, id=7), cancel)
        assert (reply.status, reply.body) == (202, b"")

    @pytest.mark.edge(17)
    def test_a_shutdown_answers_each_that_is_left(self) -> None:
        with prepared({"odd": odd()}, MCP_SHUTDOWN_GRACE_S="1") as gateway:
            gateway.start().healthy("odd")
            session = gateway.client().session(BATCHING)
            body = array(PING, call("odd__wait", {"tag": "w"}, id="w"))
            waiting = session.client.post_only("POST", "/mcp", body, session.headers)
            until(lambda: gateway.journal_of("w"), "started")
            gateway.term()
            answers = by_id(Reply(waiting.getresponse()).json)
            error = {"code": -32603, "message": "the gateway is shutting down"}
            assert answers[1]["result"] == {}
            assert answers["w"]["error"] == error


class TestRefused:
    @pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18", "2025-11-25"])
    def test_over_mcp_only_one_revision_has_them(self, gateway: Gateway, revision: str) -> None:
        session = gateway.client().session(revision)
        assert post(session, PING).error == (400, -32600, None)
        versioned = [*session.client.basics(), ("Mcp-Session-Id", session.id), ("MCP-Protocol-Version", BATCHING)]
        assert session.client.ask("POST", "/mcp", array(PING), versioned).error == (400, -32600, None)

    def test_the_modern_revision_has_none(self, gateway: Gateway) -> None:
        body, head = gateway.client().modern_request("tools/list")
        assert gateway.client().ask("POST", "/mcp", array(body), head).error == (400, -32600, None)

    def test_a_batch_needs_a_session_and_a_version_like_any_message(self, gateway: Gateway) -> None:
        client = gateway.client()
        assert client.ask("POST", "/mcp", array(PING), client.basics()).error == (400, -32600, None)
        unknown = [*client.basics(), ("Mcp-Session-Id", "x")]
        assert client.ask("POST", "/mcp", array(PING), unknown).error == (404, -32600, None)
        session = client.session(BATCHING)
        for versions, code in ((["2030-01-01"], -32022), ([BATCHING, MODERN], -32020)):
            head = [*client.basics(), ("Mcp-Session-Id", session.id)]
            head += [("MCP-Protocol-Version", version) for version in versions]
            assert client.ask("POST", "/mcp", array(PING), head).error == (400, code, None)
        other = gateway.client("other")
        assert other.ask("POST", "/mcp", array(PING), [*other.basics(), ("Mcp-Session-Id", session.id)]).status == 404

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"[]", -32600),
            (b" [ ] ", -32600),
            (b"[1]", -32600),
            (array(PING, b"{}"), -32600),
            (array(PING, PING), -32600),
            (array(PING, b'{"jsonrpc":"2.0","id":2,"result":{}}'), -32600),
            (array(initialize(BATCHING)), -32600),
            (array(PING, initialize(BATCHING)), -32600),
            (array(*(message("ping", id=id) for id in range(101))), -32600),
            (b"[" + PING, -32700),
            (array(PING) + b"]", -32700),
        ],
    )
    def test_a_batch_with_anything_wrong_is_not_served_at_all(self, gateway: Gateway, body: bytes, code: int) -> None:
        session = gateway.client().session(BATCHING)
        status, given, _ = session.client.ask("POST", "/mcp", body, session.headers).error
        assert (status, given) == (400, code)

    def test_a_hundred_are_not_too_many(self, gateway: Gateway) -> None:
        reply = post(gateway.client().session(BATCHING), *(message("ping", id=id) for id in range(100)))
        assert set(by_id(reply.json)) == set(range(100))

    @pytest.mark.edge(3)
    def test_each_request_takes_a_slot_and_one_without_is_told_so(self, tight: Gateway) -> None:
        session = tight.client().session(BATCHING)
        answers = by_id(post(session, *(call("odd__late", id=id) for id in range(4))).json)
        assert len([one for one in answers.values() if "result" in one]) == 2
        assert [one["error"]["code"] for one in answers.values() if "error" in one] == [-32603] * 2
        until(lambda: not tight.status()["in_flight"])


class TestOldStream:
    @pytest.mark.parametrize("revision", ["2024-11-05", BATCHING])
    def test_answers_come_down_the_stream_one_by_one(self, gateway: Gateway, revision: str) -> None:
        with gateway.client().relay() as relay:
            relay.opened(revision)
            body = array(PING, message("notifications/initialized"), call("old__echo", {"text": "x"}, id=2))
            assert relay.post(body).status == 202
            answers = by_id([relay.stream.message(), relay.stream.message()])
            assert answers[1]["result"] == {}
            assert answers[2]["result"]["content"][0]["text"] == "x"

    @pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
    def test_revisions_without_them_refuse_them_here_too(self, gateway: Gateway, revision: str) -> None:
        with gateway.client().relay() as relay:
            assert relay.post(array(PING)).error == (400, -32600, None)
            relay.opened(revision)
            assert relay.post(array(PING)).error == (400, -32600, None)
