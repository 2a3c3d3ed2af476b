"""Streams that stay open: what they carry, how many there may be, and what ends them."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.component.real_gateway import (
    PREFIX,
    Client,
    Gateway,
    Relay,
    Reply,
    Stream,
    message,
    odd,
    prepared,
    until,
)

WANTED = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": False, "unheardOf": True}
SUBSCRIPTION = PREFIX + "subscriptionId"


def listen(client: Client, *, id: Any = "sub", wanted: Any = None) -> Stream:
    return client.modern_stream("subscriptions/listen", {"notifications": WANTED if wanted is None else wanted}, id=id)


def is_over(stream: Stream) -> bool:
    """The stream ended; whatever came before is read over."""
    stream.rest()
    return True


class TestListen:
    def test_the_acknowledgement_names_what_is_granted(self, gateway: Gateway) -> None:
        with listen(gateway.client(), id=12345678901234567890123) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.message() == {
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {
                    "_meta": {SUBSCRIPTION: 12345678901234567890123},
                    "notifications": {"toolsListChanged": True, "promptsListChanged": True},
                },
            }

    @pytest.mark.parametrize("wanted", [[], "all", 7, None])
    def test_what_is_wanted_must_be_an_object(self, gateway: Gateway, wanted: Any) -> None:
        reply = gateway.client().modern("subscriptions/listen", {"notifications": wanted})
        assert reply.error == (400, -32602, 1)

    def test_silence_is_broken_by_heartbeats(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with listen(gateway.client()) as modern, session.stream() as between, gateway.client().relay() as relay:
            modern.message()
            for stream in (modern, between, relay.stream):
                assert self.is_kept_alive(stream)

    def is_kept_alive(self, stream: Stream) -> bool:
        while not (line := stream.line(4)).startswith(b": "):
            assert line, "the stream ended"
        return True


class TestSessionStream:
    def test_a_newer_one_takes_the_place_of_the_older(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with session.stream() as older, session.stream() as newer:
            assert newer.status == 200
            assert is_over(older)
            until(lambda: gateway.status()["connections"]["active"] == 1)
            assert newer.line().startswith(b": ")

    def test_a_client_that_reconnects_without_end_holds_one_slot(self, gateway: Gateway) -> None:
        client = gateway.client()
        session = client.session()
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                assert stack.enter_context(session.stream()).status == 200
            until(lambda: gateway.status()["connections"]["active"] == 1)
            assert [stack.enter_context(listen(client)).status for _ in range(9)] == [200] * 9
            assert client.modern("subscriptions/listen", {"notifications": WANTED}).status == 429
        until(lambda: not gateway.status()["connections"]["active"])
        assert gateway.status()["connections"]["per_key"] == []

    def test_a_stream_that_ends_while_it_is_replaced_gives_its_slot_back_once(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        for _ in range(10):
            older = session.stream()
            older.close()
            newer = session.stream()
            newer.close()
        until(lambda: not gateway.status()["connections"]["active"])
        assert gateway.status()["connections"]["per_key"] == []

    def test_delete_ends_it(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with session.stream() as stream:
            assert session.delete().status == 204
            assert is_over(stream)


class TestNumbers:
    @pytest.mark.edge(3)
    def test_ten_streams_per_key_of_any_kind_and_other_keys_untouched(self, gateway: Gateway) -> None:
        client = gateway.client()
        sessions = [client.session() for _ in range(4)]
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(session.stream()) for session in sessions]
            opened += [stack.enter_context(client.relay()).stream for _ in range(3)]
            opened += [stack.enter_context(listen(client)) for _ in range(3)]
            assert [stream.status for stream in opened] == [200] * 10
            refused = client.modern("subscriptions/listen", {"notifications": WANTED}, id="no")
            assert refused.error == (429, -32603, "no")
            head = [client.bearer, ("Accept", "text/event-stream")]
            for reply in (refused, client.ask("GET", "/sse", None, head)):
                assert (reply.status, reply.headers["retry-after"]) == (429, "5")
            fifth = client.session()
            assert client.ask("GET", "/mcp", None, [*head, ("Mcp-Session-Id", fifth.id)]).status == 429
            assert client.modern("tools/list").status == 200
            assert client.ask("GET", "/health", None, []).status == 200
            with listen(gateway.client("other")) as stream:
                assert stream.status == 200
            # A client that lost its network comes back before we notice: it needs no eleventh slot.
            again = stack.enter_context(sessions[0].stream())
            assert again.status == 200
            opened[4].close()
            until(lambda: gateway.status()["connections"]["active"] == 9, "the slot is free")
            assert stack.enter_context(fifth.stream()).status == 200
        until(lambda: not gateway.status()["connections"]["active"])

    @pytest.mark.edge(3)
    def test_of_forty_at_once_exactly_ten_are_opened(self, gateway: Gateway) -> None:
        client = gateway.client()
        head = [client.bearer, ("Accept", "text/event-stream")]
        with contextlib.ExitStack() as stack:
            asked = [
                stack.enter_context(contextlib.closing(client.post_only("GET", "/sse", None, head))) for _ in range(40)
            ]
            statuses = [connection.getresponse().status for connection in asked]
        assert (statuses.count(200), statuses.count(429)) == (10, 30)

    @pytest.mark.edge(3)
    def test_the_total_is_bounded_too(self, tight: Gateway) -> None:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(listen(tight.client())) for _ in range(10)]
            opened += [stack.enter_context(listen(tight.client("other"))) for _ in range(2)]
            assert [stream.status for stream in opened] == [200] * 12
            assert tight.client("other").modern("subscriptions/listen", {}).error == (429, -32603, 1)


class TestUnreadStream:
    @pytest.mark.edge(10)
    @pytest.mark.parametrize("method", ["ping", "initialize", "nothing"])
    def test_a_client_that_posts_and_never_reads_is_refused_and_holds_nobody_up(
        self, gateway: Gateway, method: str
    ) -> None:
        with gateway.client().relay() as relay:
            relay.opened()
            refused = until(lambda: self.refusal(relay, method), "a refusal", within_s=30)
            assert refused.error[:2] == (429, -32603)
            assert refused.headers["retry-after"] == "1"
            began = time.monotonic()
            assert gateway.client("other").modern("tools/list").status == 200
            assert time.monotonic() - began < 10

    def refusal(self, relay: Relay, method: str) -> Reply | None:
        for number in range(20):
            params = {"protocolVersion": "2025-11-25", "capabilities": {}}
            reply = relay.post(message(method, params, id=f"{number} {'x' * 100_000}"))
            if reply.status != 202:
                return reply
        return None


class TestConfiguration:
    """The file is edited while the gateway serves; each test leaves it as it was."""

    @pytest.fixture
    def restored(self, tight: Gateway) -> Iterator[Gateway]:
        yield tight
        tight.write_config()
        until(lambda: set(tight.status()["mcps"]) == set(tight.remotes))

    @pytest.mark.edge(7)
    def test_a_remote_comes_and_goes_and_every_stream_is_told(self, restored: Gateway) -> None:
        client = restored.client()
        session = client.session()
        with listen(client) as modern, session.stream() as between, client.relay() as relay, client.relay() as early:
            relay.opened()
            modern.message()
            restored.write_config(late=odd())
            for stream in (modern, between, relay.stream):
                assert stream.message()["method"] in (
                    "notifications/prompts/list_changed",
                    "notifications/tools/list_changed",
                )
            restored.healthy("late")
            result = client.modern("tools/call", {"name": "late__smuggle", "arguments": {}}).result
            assert result["content"]
            names = {tool["name"].split("__")[0] for tool in session.call("tools/list").result["tools"]}
            assert names == {"odd", "late"}

            restored.write_config()
            restored.without("late")
            assert client.modern("tools/call", {"name": "late__smuggle"}).error == (400, -32602, 1)
            told = modern.message()
            assert told["params"]["_meta"] == {SUBSCRIPTION: "sub"}
            # Not one word before the handshake.
            assert (
                early.post(message("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}}, id=0)).status
                == 202
            )
            assert early.stream.message()["id"] == 0

    def test_an_edit_that_is_wrong_changes_nothing(self, restored: Gateway) -> None:
        revision = restored.status()["config"]["revision"]
        restored.write_config(bad={"url": "not a url", "unknown": 1})
        config = until(lambda: (config := restored.status()["config"])["pending_error"] and config, "a pending error")
        assert config["revision"] == revision
        assert restored.client().modern("tools/call", {"name": "odd__raw"}).status == 200

    def test_a_remote_that_is_down_is_named_and_the_others_serve(self, tight: Gateway) -> None:
        down = until(lambda: (one := tight.status()["mcps"]["down"])["status"] == "unhealthy" and one)
        assert (down["tools"], down["phase"]) == (0, "tcp")
        assert "refused" in down["last_error"].lower()
        tools = tight.client().modern("tools/list").result["tools"]
        assert {tool["name"].split("__")[0] for tool in tools} == {"odd"}


class TestRevocation:
    @pytest.mark.edge(5)
    def test_a_revoked_key_is_refused_within_five_seconds_and_its_streams_end(self, gateway: Gateway) -> None:
        client = gateway.client("doomed")
        session = client.session()
        with (
            listen(client) as modern,
            session.stream() as between,
            client.relay() as relay,
            listen(gateway.client()) as other,
        ):
            other.message()
            gateway.command("mcpkey", "revoke", "doomed")
            until(lambda: client.modern("tools/list").status == 401, "401")
            assert client.ask("POST", "/mcp", message("ping", id=1), session.headers).status == 401
            for stream in (modern, between, relay.stream):
                assert is_over(stream)
            assert other.line().startswith(b": ")
            assert gateway.client().modern("tools/list").status == 200


class TestShutdown:
    @pytest.mark.edge(17)
    def test_streams_are_told_calls_are_answered_and_the_process_ends_well(self) -> None:
        remotes = {"odd": odd()}
        with prepared(remotes, MCP_SHUTDOWN_GRACE_S="2") as gateway, contextlib.ExitStack() as stack:
            gateway.start().healthy("odd")
            client = gateway.client()
            modern = stack.enter_context(listen(client))
            modern.message()
            between = stack.enter_context(client.session().stream())
            relay = stack.enter_context(client.relay()).opened()
            busy = client.session()
            waiting = busy.begin("tools/call", {"name": "odd__wait", "arguments": {"tag": "last"}})
            until(lambda: gateway.journal_of("last"), "started")
            relay.post(message("tools/call", {"name": "odd__late"}, id=5))
            until(lambda: gateway.status()["in_flight"] == 2)
            gateway.term()
            shutdown = ("shutdown", "server shutting down")
            assert relay.stream.message()["result"]["content"][0]["text"] == "at last"
            assert relay.stream.rest() == [shutdown]
            assert between.rest() == [shutdown]
            ((name, data),) = modern.rest()
            assert name == "message"
            assert json.loads(data)["result"] == {"resultType": "complete", "_meta": {SUBSCRIPTION: "sub"}}
            response = waiting.getresponse()
            error = {"code": -32603, "message": "the gateway is shutting down"}
            assert (response.status, json.loads(response.read())) == (503, {"jsonrpc": "2.0", "id": 1, "error": error})
            assert gateway.process is not None
            assert gateway.process.wait(10) == 0
