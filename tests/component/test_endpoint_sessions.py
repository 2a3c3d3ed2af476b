"""Handshake sessions over /mcp and the stream of 2024-11-05: which era a request is in, and how sessions live and end."""

import json

import pytest

from tests.component.real_gateway import MODERN, Gateway, Session, initialize, message, until

SUPPORTED = [MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
PING = message("ping", id=1)


class TestEra:
    """PROTOCOL 1.1, row by row."""

    def test_the_modern_header_makes_initialize_unknown(self, gateway: Gateway) -> None:
        reply = gateway.client().modern("initialize", {"protocolVersion": MODERN, "capabilities": {}})
        assert reply.error == (404, -32601, 1)
        assert "mcp-session-id" not in reply.headers

    @pytest.mark.parametrize(
        "version", ["1999-01-01", "2026-07-29", "", "x" * 500, "2026-07-28\xa0", "2026-07-28, 2025-11-25"]
    )
    def test_an_unknown_version_is_told_what_is_served(self, gateway: Gateway, version: str) -> None:
        client = gateway.client()
        for body, id in ((PING, 1), (initialize("2025-11-25"), 0), (message("notifications/initialized"), None)):
            reply = client.ask("POST", "/mcp", body, [*client.basics(), ("MCP-Protocol-Version", version)])
            assert reply.error == (400, -32022, id)
            assert reply.json["error"]["data"] == {"supported": SUPPORTED, "requested": version}
        assert client.modern("server/discover").result["supportedVersions"] == SUPPORTED

    def test_a_modern_body_without_the_header_is_a_mismatch(self, gateway: Gateway) -> None:
        reply = gateway.client().modern("tools/list", headers={"MCP-Protocol-Version": None})
        assert reply.error == (400, -32020, 1)

    def test_a_session_gives_a_headerless_request_no_modern_rights(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        body, headers = session.client.modern_request("server/discover", headers={"MCP-Protocol-Version": None})
        assert session.client.ask("POST", "/mcp", body, [*headers, ("Mcp-Session-Id", session.id)]).error == (
            400,
            -32020,
            1,
        )

    @pytest.mark.parametrize("header", [None, "2025-11-25", "2024-11-05"])
    def test_initialize_opens_a_session_with_or_without_a_handshake_header(
        self, gateway: Gateway, header: str | None
    ) -> None:
        client = gateway.client()
        more = [] if header is None else [("MCP-Protocol-Version", header)]
        reply = client.ask("POST", "/mcp", initialize("2025-06-18"), [*client.basics(), *more])
        assert reply.result["protocolVersion"] == "2025-06-18"
        assert all(0x21 <= ord(letter) <= 0x7E for letter in reply.headers["mcp-session-id"])

    def test_a_session_takes_another_handshake_version_but_no_unknown_one(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        head = [*session.client.basics(), ("Mcp-Session-Id", session.id)]
        for version, status in (("2025-03-26", 200), ("2024-11-05", 200), ("2030-01-01", 400)):
            versioned = [*head, ("MCP-Protocol-Version", version)]
            assert session.client.ask("POST", "/mcp", PING, versioned).status == status
        for method in ("GET", "DELETE"):
            unknown = [*head, ("MCP-Protocol-Version", "2030-01-01")]
            assert session.client.ask(method, "/mcp", None, unknown).error == (400, -32022, None)
        assert session.call("ping").status == 200

    @pytest.mark.parametrize("method", ["ping", "tools/list", "server/discover", "nothing"])
    def test_without_header_and_session_nothing_is_served(self, gateway: Gateway, method: str) -> None:
        client = gateway.client()
        assert client.ask("POST", "/mcp", message(method, id=1), client.basics()).error == (400, -32600, None)

    @pytest.mark.parametrize("order", [(MODERN, "2025-11-25"), ("2025-11-25", MODERN), (MODERN, MODERN)])
    def test_two_versions_in_one_head_are_refused_whichever_comes_last(
        self, gateway: Gateway, order: tuple[str, str]
    ) -> None:
        session = gateway.client().session()
        twice = [("MCP-Protocol-Version", version) for version in order]
        head = [*session.client.basics(), ("Mcp-Session-Id", session.id), *twice]
        assert session.client.ask("POST", "/mcp", PING, head).error == (400, -32020, 1)

    def test_the_modern_revision_has_neither_get_nor_delete(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        head = [session.client.bearer, ("Mcp-Session-Id", session.id), ("MCP-Protocol-Version", MODERN)]
        for method in ("GET", "DELETE"):
            reply = session.client.ask(method, "/mcp", None, [*head, ("Accept", "text/event-stream")])
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert session.call("ping").status == 200


class TestHandshake:
    @pytest.mark.parametrize(
        ("proposed", "settled"),
        [*((one, one) for one in SUPPORTED[1:]), (MODERN, "2025-11-25"), ("1.0", "2025-11-25"), ("", "2025-11-25")],
    )
    def test_the_clients_revision_if_known_else_our_newest(self, gateway: Gateway, proposed: str, settled: str) -> None:
        client = gateway.client()
        result = client.ask("POST", "/mcp", initialize(proposed), client.basics()).result
        assert result["protocolVersion"] == settled
        assert result["serverInfo"]["name"] == "MCP-Server"
        changes = {"listChanged": True}
        offered = {"tools": changes, "prompts": changes, "resources": {"listChanged": True, "subscribe": True}}
        offered |= {"completions": {}, "logging": {}}
        assert {name: result["capabilities"][name] for name in offered} == offered
        assert "## demo\n" in result["instructions"]

    @pytest.mark.parametrize(
        "params",
        [
            None,
            {},
            {"protocolVersion": 1},
            {"protocolVersion": "2025-11-25", "capabilities": [1]},
            {"protocolVersion": "2025-11-25", "capabilities": None},
        ],
    )
    def test_a_handshake_of_the_wrong_shape_opens_nothing(self, gateway: Gateway, params: object) -> None:
        client = gateway.client()
        reply = client.ask("POST", "/mcp", message("initialize", params, id=0), client.basics())
        assert reply.error == (400, -32602, 0)
        assert "mcp-session-id" not in reply.headers

    def test_large_capabilities_still_give_an_id_that_works(self, gateway: Gateway) -> None:
        capabilities = {"elicitation": {"form": {}}, "experimental": {"x" * 50: {"y": '"\\\n' * 3000}}}
        session = gateway.client().session(capabilities=capabilities)
        assert len(session.id) < 4096
        assert session.call("ping").status == 200


class TestSession:
    def test_ping_and_notifications(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        assert session.call("ping", id="a").json == {"jsonrpc": "2.0", "id": "a", "result": {}}
        for told in (
            "notifications/initialized",
            "notifications/roots/list_changed",
            "notifications/cancelled",
            "vendor/thing",
        ):
            reply = session.tell(told)
            assert (reply.status, reply.body) == (202, b"")

    def test_a_response_to_nothing_is_taken_and_dropped(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        answer = json.dumps({"jsonrpc": "2.0", "id": 99, "result": {}}).encode()
        assert session.client.ask("POST", "/mcp", answer, session.headers).status == 202

    def test_an_id_that_is_none_of_ours_is_404(self, gateway: Gateway) -> None:
        client = gateway.client()
        for id in ("x", "A" * 200, "A" * 8000, "../../etc", "\xe9", "=", ""):
            reply = client.ask("POST", "/mcp", PING, [*client.basics(), ("Mcp-Session-Id", id)])
            assert reply.error == (404, -32600, None), id

    def test_any_changed_letter_makes_an_id_unknown(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        for at in range(0, len(session.id), 7):
            changed = session.id[:at] + ("A" if session.id[at] != "A" else "B") + session.id[at + 1 :]
            assert Session(session.client, changed, None).call("ping").status == 404, at
        for other in (session.id + "=", session.id + "A", session.id[:-1], session.id.swapcase()):
            assert Session(session.client, other, None).call("ping").status == 404

    def test_a_session_does_not_exist_for_another_key(self, gateway: Gateway) -> None:
        session, other = gateway.client().session(), gateway.client("other")
        stolen = Session(other, session.id, None)
        assert stolen.call("tools/list").error == (404, -32600, None)
        assert stolen.tell("notifications/cancelled", {"requestId": 1}).status == 404
        assert stolen.delete().status == 404
        head = [other.bearer, ("Mcp-Session-Id", session.id), ("Accept", "text/event-stream")]
        assert other.ask("GET", "/mcp", None, head).status == 404
        assert session.call("ping").status == 200

    def test_delete_ends_it_for_good_by_every_spelling(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        assert session.delete().status == 204
        assert session.call("ping").error == (404, -32600, None)
        assert session.delete().status == 404
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        spellings = [session.id + "=", session.id + "==", session.id.replace("-", "+").replace("_", "/") + "="]
        for spelling in [*spellings, *(session.id[:-1] + last for last in alphabet)]:
            assert Session(session.client, spelling, None).call("ping").status == 404

    def test_a_missing_id_is_400_and_a_doubled_one_too(self, gateway: Gateway) -> None:
        client = gateway.client()
        session = client.session()
        assert client.ask("DELETE", "/mcp", None, [client.bearer]).status == 400
        twice = [("Mcp-Session-Id", session.id), ("Mcp-Session-Id", session.id)]
        for method, body in (("POST", PING), ("DELETE", None), ("GET", None)):
            assert client.ask(method, "/mcp", body, [*client.basics(), *twice]).status == 400
        assert session.call("ping").status == 200

    def test_a_get_without_a_session_is_405(self, gateway: Gateway) -> None:
        client = gateway.client()
        reply = client.ask("GET", "/mcp", None, [client.bearer, ("Accept", "text/event-stream")])
        assert (reply.status, reply.headers["allow"]) == (405, "POST")

    def test_the_log_level_must_be_one(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        assert session.call("logging/setLevel", {"level": "warning"}).result == {}
        for params in ({"level": "loud"}, {"level": 3}, {}, {"level": "WARNING"}, None):
            assert session.call("logging/setLevel", params).error == (200, -32602, 1)


class TestOldStream:
    def test_the_first_event_names_a_relative_address(self, gateway: Gateway) -> None:
        with gateway.client().relay() as relay:
            assert relay.first == "endpoint"
            assert relay.address.startswith("/messages/?session_id=")
            assert relay.stream.headers["content-type"] == "text/event-stream"
            assert relay.stream.headers["x-accel-buffering"] == "no"

    @pytest.mark.parametrize("revision", SUPPORTED[1:])
    def test_any_handshake_revision_inside(self, gateway: Gateway, revision: str) -> None:
        with gateway.client().relay() as relay:
            relay.opened(revision)
            assert relay.call("ping", id="p") == {"jsonrpc": "2.0", "id": "p", "result": {}}
            echoed = relay.call("tools/call", {"name": "old__echo", "arguments": {"text": "é\n\r"}})
            assert echoed["result"]["content"][0]["text"] == "é\n\r"

    def test_posts_that_belong_to_no_stream(self, gateway: Gateway) -> None:
        client = gateway.client()
        with client.relay() as relay:
            for path, status in (
                ("/messages/", 400),
                ("/messages/?session_id=", 400),
                ("/messages/?session_id=a&session_id=b", 400),
                ("/messages/?session_id=" + "0" * 32, 404),
                (relay.address + "0", 404),
            ):
                assert client.ask("POST", path, PING, client.basics()).status == status, path
            other = gateway.client("other")
            assert other.ask("POST", relay.address, PING, other.basics()).error == (404, -32600, None)

    def test_what_is_no_message_is_400_and_the_stream_lives_on(self, gateway: Gateway) -> None:
        with gateway.client().relay() as relay:
            relay.opened()
            for body in (b"", b"{", b"[]", b'{"jsonrpc":"2.0","id":1}', b"\xff"):
                assert relay.post(body).status == 400
            assert relay.call("ping")["result"] == {}

    def test_nothing_is_served_before_the_handshake(self, gateway: Gateway) -> None:
        with gateway.client().relay() as relay:
            assert relay.call("tools/list", id=5)["error"]["code"] == -32600

    def test_a_client_that_asks_for_the_modern_era_first_may_still_shake_hands(self, gateway: Gateway) -> None:
        with gateway.client().relay() as relay:
            assert relay.call("server/discover", id="probe")["error"]["code"] == -32600
            relay.opened("2025-11-25")
            assert "tools" in relay.call("tools/list", id=1)["result"]

    def test_errors_come_down_the_stream(self, gateway: Gateway) -> None:
        with gateway.client().relay() as relay:
            relay.opened()
            assert relay.call("nothing", id=7)["error"]["code"] == -32601
            assert relay.call("tools/call", {"name": "no__such"}, id=8)["error"]["code"] == -32602
            assert relay.call("logging/setLevel", {"level": "loud"}, id=9)["error"]["code"] == -32602

    def test_an_id_that_is_in_flight_is_refused_and_the_first_still_answered(self, gateway: Gateway) -> None:
        with gateway.client().relay() as relay:
            relay.opened()
            slow = message("tools/call", {"name": "old__slow", "arguments": {"n": 1, "seconds": 0.3}}, id=1)
            assert relay.post(slow).status == 202
            assert relay.post(message("ping", id=1)).error == (400, -32600, 1)
            assert relay.stream.answer(1)["result"]["content"][0]["text"] == "1 steps"
            assert relay.call("ping", id=1)["result"] == {}

    @pytest.mark.edge(2)
    def test_a_lost_stream_ends_its_session_and_its_slot(self, gateway: Gateway) -> None:
        client = gateway.client()
        relay = client.relay().opened()
        relay.stream.close()
        until(lambda: not gateway.status()["connections"]["active"])
        assert client.ask("POST", relay.address, PING, client.basics()).status == 404
