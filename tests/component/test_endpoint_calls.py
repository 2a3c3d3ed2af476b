"""Calls that take their time: progress, log messages, cancellation that reaches the remote, clients that leave, full slots."""

import contextlib
import json
import uuid
from typing import Any

import pytest

from tests.component.real_gateway import PREFIX, Client, Gateway, Session, message, until

REMOTES = ["new", "old", "sse", "demo"]
# `demo` has no journal; `odd` answers nothing by itself.
JOURNALLED = [("new", "cancellable"), ("old", "cancellable"), ("sse", "cancellable"), ("odd", "wait")]


def waiting(remote: str, tool: str) -> tuple[str, dict[str, Any]]:
    tag = uuid.uuid4().hex
    return tag, {"name": f"{remote}__{tool}", "arguments": {"tag": tag}}


def tokens(messages: list[Any]) -> list[Any]:
    return [one["params"]["progressToken"] for one in messages if one.get("method") == "notifications/progress"]


class TestProgress:
    @pytest.mark.edge(15)
    @pytest.mark.parametrize("remote", REMOTES)
    @pytest.mark.parametrize("token", ["p", 7, "1", 12345678901234567890123, "é\n"], ids=repr)
    def test_it_comes_under_the_clients_own_token(self, gateway: Gateway, remote: str, token: Any) -> None:
        arguments = {"n": 2, "seconds": 0.02} if remote != "demo" else {"steps": 2, "seconds": 0.02}
        params = {"name": f"{remote}__slow", "arguments": arguments}
        client = gateway.client()
        modern = client.modern("tools/call", params, meta={"progressToken": token})
        session = client.session().call("tools/call", params | {"_meta": {"progressToken": token}})
        for reply in (modern, session):
            assert reply.headers["content-type"] == "text/event-stream"
            assert reply.headers["x-accel-buffering"] == "no"
            assert tokens(reply.messages) == [token, token]
            assert reply.messages[-1]["result"]["content"][0]["text"].startswith("2 steps")
        with client.relay() as relay:
            relay.opened()
            relay.post(message("tools/call", params | {"_meta": {"progressToken": token}}, id=3))
            assert tokens([relay.stream.message(), relay.stream.message()]) == [token, token]
            assert relay.stream.answer(3)["result"]

    @pytest.mark.parametrize("remote", REMOTES)
    def test_without_a_token_there_is_none(self, gateway: Gateway, remote: str) -> None:
        reply = gateway.client().modern("tools/call", {"name": f"{remote}__slow", "arguments": {"seconds": 0.02}})
        assert reply.headers["content-type"] == "application/json"
        assert len(reply.messages) == 1

    def test_a_client_that_takes_no_stream_gets_the_answer_alone(self, gateway: Gateway) -> None:
        params = {"name": "new__slow", "arguments": {"seconds": 0.02}}
        reply = gateway.client().modern("tools/call", params, meta={"progressToken": 1}, accept="application/json")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")

    def test_two_callers_with_one_token_and_one_id_hear_of_their_own_call(self, gateway: Gateway) -> None:
        one, two = gateway.client().session(), gateway.client("other").session()
        calls = []
        for session, n in ((one, 2), (two, 3)):
            arguments = {"n": n, "seconds": 0.2}
            params = {"name": "sse__slow", "arguments": arguments, "_meta": {"progressToken": "t"}}
            calls.append((n, session.begin("tools/call", params, id=1)))
        for n, connection in calls:
            body = connection.getresponse().read().decode()
            totals = [json.loads(line[6:])["params"]["total"] for line in body.split("\n") if '"progress"' in line]
            assert totals == [n] * n
            assert f"{n} steps" in body
            connection.close()


class TestLogMessages:
    def levels(self, messages: list[Any]) -> list[str]:
        return [one["params"]["level"] for one in messages if one.get("method") == "notifications/message"]

    def test_a_modern_request_gets_what_it_asked_for_and_nothing_unasked(self, gateway: Gateway) -> None:
        client = gateway.client()
        for wanted, level, heard in (
            ("info", "warning", 1),
            ("error", "warning", 0),
            (None, "emergency", 0),
            ("debug", "debug", 1),
        ):
            params = {"name": "new__log", "arguments": {"level": level}}
            reply = client.modern("tools/call", params, meta={PREFIX + "logLevel": wanted})
            assert self.levels(reply.messages) == [level] * heard, (wanted, level)

    @pytest.mark.parametrize("remote", ["old", "sse"])
    def test_a_session_hears_its_own_level_whatever_others_chose(self, gateway: Gateway, remote: str) -> None:
        loud, quiet = gateway.client().session(), gateway.client().session()
        loud.call("logging/setLevel", {"level": "debug"})
        quiet.call("logging/setLevel", {"level": "error"})
        params = {"name": f"{remote}__log", "arguments": {"level": "info"}}
        assert self.levels(loud.call("tools/call", params).messages) == ["info"]
        assert self.levels(quiet.call("tools/call", params).messages) == []


class TestCancellation:
    @pytest.mark.edge(2)
    @pytest.mark.parametrize(("remote", "tool"), JOURNALLED)
    def test_a_modern_client_that_leaves_cancels(self, gateway: Gateway, remote: str, tool: str) -> None:
        tag, params = waiting(remote, tool)
        connection = gateway.client().post_only("POST", "/mcp", *gateway.client().modern_request("tools/call", params))
        until(lambda: gateway.journal_of(tag) == ["started"], "started")
        connection.close()
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"], "cancelled")
        until(lambda: not gateway.status()["in_flight"])

    def test_a_modern_client_that_leaves_in_the_middle_of_a_stream_cancels(self, gateway: Gateway) -> None:
        """The answer has begun, and its heartbeats are flowing."""
        tag, params = waiting("new", "cancellable")
        with gateway.client().modern_stream("tools/call", params) as stream:
            assert stream.line(5).startswith(b": ")
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"], "cancelled")
        until(lambda: not gateway.status()["in_flight"])

    @pytest.mark.parametrize(("remote", "tool"), JOURNALLED)
    def test_a_sessions_notification_cancels(self, gateway: Gateway, remote: str, tool: str) -> None:
        tag, params = waiting(remote, tool)
        session = gateway.client().session()
        connection = session.begin("tools/call", params, id="call 1")
        until(lambda: gateway.journal_of(tag) == ["started"], "started")
        assert session.tell("notifications/cancelled", {"requestId": "call 1"}).status == 202
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"], "cancelled")
        response = connection.getresponse()
        assert (response.status, response.read()) == (202, b"")
        connection.close()

    @pytest.mark.parametrize(("remote", "tool"), JOURNALLED)
    def test_an_old_streams_notification_cancels_and_nothing_is_answered(
        self, gateway: Gateway, remote: str, tool: str
    ) -> None:
        tag, params = waiting(remote, tool)
        with gateway.client().relay() as relay:
            relay.opened()
            relay.post(message("tools/call", params, id=4))
            until(lambda: gateway.journal_of(tag) == ["started"], "started")
            relay.post(message("notifications/cancelled", {"requestId": 4}))
            until(lambda: gateway.journal_of(tag) == ["started", "cancelled"], "cancelled")
            assert relay.post(message("ping", id=5)).status == 202
            assert relay.stream.message() == {"jsonrpc": "2.0", "id": 5, "result": {}}

    def test_an_old_stream_that_is_lost_cancels(self, gateway: Gateway) -> None:
        tag, params = waiting("sse", "cancellable")
        relay = gateway.client().relay().opened()
        relay.post(message("tools/call", params, id=4))
        until(lambda: gateway.journal_of(tag) == ["started"], "started")
        relay.stream.close()
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"], "cancelled")

    def test_delete_cancels(self, gateway: Gateway) -> None:
        tag, params = waiting("old", "cancellable")
        session = gateway.client().session()
        connection = session.begin("tools/call", params)
        until(lambda: gateway.journal_of(tag) == ["started"], "started")
        assert session.delete().status == 204
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"], "cancelled")
        connection.close()

    @pytest.mark.edge(2)
    def test_a_session_whose_client_leaves_runs_on(self, gateway: Gateway) -> None:
        """basic/transports, "Sending Messages": a disconnect is no cancellation."""
        tag, params = waiting("old", "cancellable")
        params["arguments"]["seconds"] = 0.5
        connection = gateway.client().session().begin("tools/call", params)
        until(lambda: gateway.journal_of(tag) == ["started"], "started")
        connection.close()
        until(lambda: gateway.journal_of(tag) == ["started", "finished"], "finished")
        until(lambda: not gateway.status()["in_flight"])

    @pytest.mark.parametrize("request_id", [2, "1", None, {}, 1.0])
    def test_only_the_id_itself_cancels(self, gateway: Gateway, request_id: Any) -> None:
        session = gateway.client().session()
        connection = session.begin("tools/call", {"name": "old__slow", "arguments": {"n": 1, "seconds": 0.2}}, id=1)
        until(lambda: gateway.status()["in_flight"] == 1)
        assert session.tell("notifications/cancelled", {"requestId": request_id}).status == 202
        other = gateway.client().session()
        assert other.tell("notifications/cancelled", {"requestId": 1}).status == 202
        assert b"1 steps" in connection.getresponse().read()
        connection.close()

    def test_an_id_used_twice_at_once_answers_both(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        slow = session.begin("tools/call", {"name": "old__slow", "arguments": {"n": 1, "seconds": 0.3}}, id=1)
        until(lambda: gateway.status()["in_flight"] == 1)
        quick = session.call("tools/call", {"name": "old__echo", "arguments": {"text": "quick"}}, id=1)
        assert quick.result["content"][0]["text"] == "quick"
        response = slow.getresponse()
        assert (response.status, b"1 steps" in response.read()) == (200, True)
        slow.close()


class TestSilence:
    def test_a_long_call_is_kept_alive_by_heartbeats(self, gateway: Gateway) -> None:
        """The fixture's heartbeat is 1 s."""
        params = {"name": "old__slow", "arguments": {"n": 1, "seconds": 1.3}}
        for stream in (
            gateway.client().modern_stream("tools/call", params),
            self.in_session(gateway.client().session(), params),
        ):
            with stream:
                assert stream.headers["content-type"] == "text/event-stream"
                answer = stream.answer(1)
                assert answer["result"]["content"][0]["text"] == "1 steps"
                assert stream.rest() == []

    def in_session(self, session: Session, params: Any) -> Any:
        return session.client.stream("POST", "/mcp", message("tools/call", params, id=1), session.headers)


class TestSlots:
    """`tight`: two requests in flight per key, three in all; a turn is waited for no longer than a tenth of a second."""

    @pytest.mark.edge(3)
    @pytest.mark.one_worker("requests in flight are bounded in each")
    def test_one_key_meets_its_own_limit_and_all_keys_the_total(self, tight: Gateway) -> None:
        main, other = tight.client(), tight.client("other")
        with contextlib.ExitStack() as stack:
            tags = [self.begun(stack, client) for client in (main, main)]
            until(lambda: all(tight.journal_of(tag) for tag in tags), "all started")
            own = main.modern("tools/call", {"name": "odd__wait"}, id="x")
            assert own.error == (429, -32603, "x")
            assert own.headers["retry-after"] == "5"
            assert main.modern("tools/list").status == 200, "what is answered from memory waits for no turn"
            tags.append(self.begun(stack, other))
            until(lambda: all(tight.journal_of(tag) for tag in tags), "all started")
            total = other.modern("tools/list", id="y")
            assert total.error == (503, -32603, "y")
            assert total.headers["retry-after"] == "5"
            session = other.session()
            assert session.call("ping", id="z").error == (503, -32603, "z")
            with other.relay() as relay:
                assert relay.opened().call("ping", id="w")["error"]["code"] == -32603
        until(lambda: not tight.status()["in_flight"])
        assert main.modern("tools/list").status == 200

    @pytest.mark.edge(15)
    @pytest.mark.one_worker("requests in flight are bounded in each")
    def test_a_remote_that_keeps_all_calls_of_a_key_keeps_no_other_remote_from_it(self, gateway: Gateway) -> None:
        client = gateway.client()
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                self.begun(stack, client)
            until(lambda: gateway.status()["waiting"], "the key's slots are taken")
            for _ in range(3):
                reply = client.modern("tools/call", {"name": "demo__echo", "arguments": {"text": "here"}})
                assert reply.result["content"][0]["text"] == "here"

    @staticmethod
    def begun(stack: contextlib.ExitStack, client: Client) -> str:
        tag, params = waiting("odd", "wait")
        call = client.post_only("POST", "/mcp", *client.modern_request("tools/call", params))
        stack.enter_context(contextlib.closing(call))
        return tag


class TestAtTheEdge:
    def test_a_remotes_own_error_is_relayed(self, gateway: Gateway) -> None:
        client = gateway.client()
        for remote in ("old", "new", "sse"):
            assert client.modern("tools/call", {"name": f"{remote}__protocol_error"}).error == (200, -32050, 1)
            assert client.session().call("tools/call", {"name": f"{remote}__protocol_error"}).error == (200, -32050, 1)

    def test_no_depth_of_arguments_makes_the_gateway_fail(self, gateway: Gateway) -> None:
        """What one reader of the body still takes must not be too deep for the next, who stands deeper in the stack."""
        client = gateway.client()
        session = client.session()
        statuses = set()
        for depth in (*range(600, 1000, 9), *range(900, 990, 2)):
            deep = ('{"region":' + "[" * depth + "]" * depth + "}").encode()
            body, head = client.modern_request(
                "tools/call", {"name": "odd__mirrored", "arguments": "DEEP"}, headers={"Mcp-Param-Region": "x"}
            )
            modern = client.ask("POST", "/mcp", body.replace(b'"DEEP"', deep), head)
            old = (
                b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"odd__mirrored","arguments":'
                + deep
                + b"}}"
            )
            handshake = client.ask("POST", "/mcp", old, session.headers)
            assert modern.error[:2] in ((400, -32700), (400, -32602), (400, -32020)), depth
            statuses.add(handshake.status)
            assert handshake.status in (200, 400), (depth, handshake.body)
        assert 400 in statuses
        assert gateway.status()["mcps"]["odd"]["status"] == "healthy"

    @pytest.mark.edge(11)
    def test_a_name_as_long_as_a_body_leaves_a_short_line_in_the_log(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        name = "long\n" + "x" * 500_000
        assert session.call("tools/call", {"name": name}).error == (200, -32602, 1)
        log = gateway.folder / "logs" / "combined.log"
        lines = until(
            lambda: [line for line in log.read_bytes().splitlines() if b"long\\nxxx" in line], "the access line"
        )
        assert max(map(len, lines)) < 10_000


@pytest.mark.edge(1)
def test_a_call_to_a_remote_that_was_never_reached_says_why(tight: Gateway) -> None:
    said = tight.client().modern("tools/call", {"name": "down__anything", "arguments": {}}).result
    assert said["isError"] is True
    assert said["content"][0]["text"].startswith("down has not been reached since the gateway started: ")
    assert "127.0.0.1" not in said["content"][0]["text"]
