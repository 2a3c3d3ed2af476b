"""Who may come in, and in what form: key, Host, Origin, method, media types, size."""

import json

import pytest

from tests.component.real_gateway import Client, Gateway, initialize, message

PING = message("ping", id=1)
UNAUTHORIZED = {"error": "unauthorized", "message": "send a valid key: Authorization: Bearer KEY, or X-API-Key: KEY"}
JSON = ("Content-Type", "application/json")


def wrong_keys(good: str) -> dict[str, list[tuple[str, str]]]:
    flipped = good[:-1] + ("a" if good[-1] != "a" else "b")
    return {
        "garbage": [("Authorization", "Bearer garbage")],
        "a near miss": [("Authorization", f"Bearer {flipped}")],
        "half a key": [("Authorization", f"Bearer {good[: len(good) // 2]}")],
        "two keys that differ": [("Authorization", f"Bearer {good}"), ("X-API-Key", flipped)],
        "the same header twice": [("X-API-Key", good), ("X-API-Key", good)],
        "bytes beyond ASCII": [("Authorization", "Bearer \xe9\xff")],
        "a very long one": [("X-API-Key", "k" * 8000)],
    }


class TestKey:
    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("POST", "/messages/")],
    )
    def test_without_a_key_every_path_is_401(self, gateway: Gateway, method: str, path: str) -> None:
        reply = gateway.client().ask(method, path, PING if method == "POST" else None, [JSON])
        assert (reply.status, reply.headers["www-authenticate"], reply.json) == (401, "Bearer", UNAUTHORIZED)
        assert reply.headers["content-type"] == "application/json"

    @pytest.mark.edge(6)
    def test_every_wrong_key_gets_the_same_answer(self, gateway: Gateway) -> None:
        client = gateway.client()
        seen = set()
        for why, headers in wrong_keys(client.key).items():
            reply = client.ask("POST", "/mcp", PING, [JSON, *headers])
            assert reply.status == 401, why
            varying = {"date", "x-request-id"}
            seen.add((reply.body, tuple(sorted(item for item in reply.headers.items() if item[0] not in varying))))
        assert len(seen) == 1
        assert json.loads(seen.pop()[0]) == UNAUTHORIZED

    def test_a_key_in_the_query_is_no_key(self, gateway: Gateway) -> None:
        client = gateway.client()
        reply = client.ask("POST", f"/mcp?key={client.key}&api_key={client.key}", PING, [JSON])
        assert reply.status == 401

    def test_another_scheme_is_not_ours(self, gateway: Gateway) -> None:
        reply = gateway.client().ask("POST", "/mcp", PING, [JSON, ("Authorization", "Basic dXNlcjpwYXNz")])
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize("name", ["main", "other"])
    def test_each_key_opens_by_either_header(self, gateway: Gateway, name: str) -> None:
        client = gateway.client(name)
        for header in (client.bearer, ("X-API-Key", client.key), ("authorization", f"bearer  {client.key}")):
            reply = client.ask("POST", "/mcp", initialize("2025-11-25"), [header, JSON])
            assert reply.status == 200, header[0]

    @pytest.mark.parametrize(
        "path", ["/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server", "/register"]
    )
    def test_what_oauth_clients_try_is_404_before_any_key(self, gateway: Gateway, path: str) -> None:
        assert gateway.client().ask("GET", path).status == 404


class TestHostAndOrigin:
    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "127.0.0.1:x", ""]
    )
    def test_an_unknown_host_is_421(self, gateway: Gateway, host: str) -> None:
        client = gateway.client()
        assert client.ask("POST", "/mcp", PING, client.basics(), host=host).error == (421, -32600, None)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:3000", "LOCALHOST", "[::1]:80", "localhost."])
    def test_our_own_names_pass(self, gateway: Gateway, host: str) -> None:
        client = gateway.client()
        assert client.ask("POST", "/mcp", initialize("2025-11-25"), client.basics(), host=host).status == 200

    def test_two_hosts_are_refused(self, gateway: Gateway) -> None:
        client = gateway.client()
        reply = client.ask("POST", "/mcp", PING, [*client.basics(), ("Host", "127.0.0.1")])
        assert reply.status == 400

    @pytest.mark.parametrize(
        "origin",
        ["null", "", "https://evil.example", "http://localhost.evil.example", "localhost", "http://[", "file://"],
    )
    def test_a_foreign_origin_is_403(self, gateway: Gateway, origin: str) -> None:
        client = gateway.client()
        for path in ("/mcp", "/messages/?session_id=x"):
            reply = client.ask("POST", path, PING, [*client.basics(), ("Origin", origin)])
            assert reply.error == (403, -32600, None)

    def test_two_origins_are_refused_though_each_alone_would_pass(self, gateway: Gateway) -> None:
        client = gateway.client()
        ours = ("Origin", "http://localhost:3000")
        assert client.ask("POST", "/mcp", initialize("2025-11-25"), [*client.basics(), ours]).status == 200
        assert client.ask("POST", "/mcp", PING, [*client.basics(), ours, ours]).error == (400, -32600, None)

    def test_a_doubled_host_is_not_hidden_behind_another_doubled_header(self, gateway: Gateway) -> None:
        client = gateway.client()
        twice = [JSON, JSON, client.bearer, ("Host", "evil.example"), ("Host", "127.0.0.1")]
        assert client.ask("POST", "/mcp", PING, twice, host=None).status == 400

    def test_a_foreign_origin_learns_nothing_about_its_key(self, gateway: Gateway) -> None:
        reply = gateway.client().ask("POST", "/mcp", PING, [JSON, ("Origin", "https://evil.example")])
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers


class TestForm:
    @pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "ELETE", "ET", "POS", "P"])
    def test_other_methods_are_405_with_allow(self, gateway: Gateway, method: str) -> None:
        client = gateway.client()
        reply = client.ask(method, "/mcp", None, [client.bearer])
        assert (reply.status, reply.headers["allow"]) == (405, "POST, GET, DELETE")

    def test_a_post_to_the_old_stream_is_405_at_once(self, gateway: Gateway) -> None:
        client = gateway.client()
        reply = client.ask("POST", "/sse", PING, client.basics())
        assert (reply.status, reply.headers["allow"]) == (405, "GET")
        assert client.ask("GET", "/messages/?session_id=x", None, [client.bearer]).status == 405

    def test_part_of_a_methods_name_ends_no_session(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        head = [session.client.bearer, ("Mcp-Session-Id", session.id)]
        assert session.client.ask("ELETE", "/mcp", None, head).status == 405
        assert session.call("ping").status == 200

    @pytest.mark.parametrize(
        "type", ["text/plain", "application/jsonx", "application/json-seq", "multipart/form-data", ""]
    )
    def test_what_is_not_json_is_415(self, gateway: Gateway, type: str) -> None:
        client = gateway.client()
        for path in ("/mcp", "/messages/?session_id=x"):
            reply = client.ask("POST", path, PING, [client.bearer, ("Content-Type", type)])
            assert reply.error == (415, -32600, None)

    def test_no_content_type_is_415(self, gateway: Gateway) -> None:
        client = gateway.client()
        assert client.ask("POST", "/mcp", PING, [client.bearer]).status == 415

    @pytest.mark.parametrize("type", ["application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"])
    def test_json_by_any_spelling_comes_in(self, gateway: Gateway, type: str) -> None:
        client = gateway.client()
        reply = client.ask("POST", "/mcp", initialize("2025-11-25"), [client.bearer, ("Content-Type", type)])
        assert reply.status == 200

    def test_a_client_that_takes_no_json_is_406(self, gateway: Gateway) -> None:
        client = gateway.client()
        assert client.ask("POST", "/mcp", PING, client.basics(accept="text/html")).error == (406, -32600, None)

    def test_a_stream_for_a_client_that_takes_none_is_406(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        head = [session.client.bearer, ("Mcp-Session-Id", session.id), ("Accept", "application/json")]
        assert session.client.ask("GET", "/mcp", None, head).error == (406, -32600, None)

    def test_accept_may_come_in_two_lines(self, gateway: Gateway) -> None:
        client = gateway.client()
        body, headers = client.modern_request(
            "tools/call", {"name": "new__log", "arguments": {}}, meta={"io.modelcontextprotocol/logLevel": "debug"}
        )
        lines = [pair for pair in headers if pair[0] != "Accept"]
        reply = client.ask(
            "POST", "/mcp", body, [*lines, ("Accept", "text/event-stream"), ("Accept", "application/json")]
        )
        assert reply.headers["content-type"] == "text/event-stream"

    @pytest.mark.edge(14)
    def test_one_mebibyte_passes_and_one_byte_more_is_413(self, gateway: Gateway) -> None:
        client = gateway.client()
        frame = len(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "nothing", "params": {"pad": ""}}))
        fits = message("nothing", {"pad": "x" * (1024 * 1024 - frame)}, id=1)
        session = client.session()
        assert len(fits) == 1024 * 1024
        assert client.ask("POST", "/mcp", fits, session.headers).error == (200, -32601, 1)
        assert client.ask("POST", "/mcp", fits + b" ", session.headers).status == 413


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "code", "id"),
        [
            (b"", -32700, None),
            (b"{", -32700, None),
            (b"\xff\xfe{}", -32700, None),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xc3\x28"}}', -32700, None),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700, None),
            (
                b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
                -32700,
                None,
            ),
            (
                b'{"jsonrpc":"2.0","id":1,"method":"ping","params":'
                + b'{"a":' * 100_000
                + b"1"
                + b"}" * 100_000
                + b"}",
                -32700,
                None,
            ),
            (b"null", -32600, None),
            (b'"ping"', -32600, None),
            (b"[]", -32600, None),
            (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
            (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600, 1),
            (b'{"jsonrpc":"2.0","id":1}', -32600, 1),
            (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600, None),
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
            (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, None),
            (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600, None),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', -32600, 1),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', -32600, 1),
            (b'{"jsonrpc":"2.0","id":1,"meth\\u006fd":"ping","method":"tools/call"}', -32600, 1),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32602, 1),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}', -32602, 1),
        ],
        ids=lambda value: value[:60] if isinstance(value, bytes) else None,
    )
    def test_what_is_no_message_is_refused_alike_in_every_era(
        self, gateway: Gateway, body: bytes, code: int, id: object
    ) -> None:
        client = gateway.client()
        modern = [*client.basics(), ("MCP-Protocol-Version", "2026-07-28")]
        assert client.ask("POST", "/mcp", body, client.basics()).error == (400, code, id)
        assert client.ask("POST", "/mcp", body, modern).error == (400, code, id)

    def test_a_number_of_many_digits_disturbs_nothing(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        wide = b'{"method":"ping","x":"\\u0041","jsonrpc":"2.0","id":1,"params":{"n":' + b"9" * 5000 + b"}}"
        reply = session.client.ask("POST", "/mcp", wide, session.headers)
        assert (reply.status, reply.json) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})

    def test_an_id_goes_back_as_it_came(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        for id in (b"1", b'"1"', b"-0", b"12345678901234567890123", b'"\\u00e9\\n"', b'""', b"9" * 6000):
            body = b'{"jsonrpc":"2.0","id":' + id + b',"method":"ping"}'
            reply = session.client.ask("POST", "/mcp", body, session.headers)
            assert reply.body == b'{"jsonrpc":"2.0","id":' + id + b',"result":{}}'

    def test_the_gateway_is_well_after_all_that(self, gateway: Gateway) -> None:
        assert Client(gateway.port, gateway.keys["main"]).modern("server/discover").status == 200
