"""Revision 2026-07-28: every check of a stateless request, with code, HTTP status and order, and what answers look like."""

import json
from typing import Any

import pytest

from tests.component.real_gateway import MODERN, PREFIX, Client, Gateway, message, sentinel

VERSION = PREFIX + "protocolVersion"
CAPABILITIES = PREFIX + "clientCapabilities"
ECHO = {"name": "new__echo", "arguments": {"text": "hi"}}


def mirrored(client: Client, arguments: dict[str, Any], **headers: str) -> Any:
    named = {"Mcp-Param-" + name: value for name, value in headers.items()}
    return client.modern("tools/call", {"name": "odd__mirrored", "arguments": arguments}, headers=named)


class TestLadder:
    @pytest.mark.parametrize("missing", [VERSION, CAPABILITIES])
    def test_meta_must_name_version_and_capabilities(self, gateway: Gateway, missing: str) -> None:
        assert gateway.client().modern("tools/list", meta={missing: None}).error == (400, -32602, 1)

    @pytest.mark.parametrize(
        "meta",
        [
            {VERSION: 20260728},
            {VERSION: {}},
            {CAPABILITIES: []},
            {CAPABILITIES: True},
            {PREFIX + "logLevel": "loud"},
            {PREFIX + "logLevel": 3},
        ],
    )
    def test_meta_of_the_wrong_type(self, gateway: Gateway, meta: dict[str, Any]) -> None:
        assert gateway.client().modern("tools/list", meta=meta).error == (400, -32602, 1)

    @pytest.mark.parametrize("params", [None, {}, {"_meta": None}, {"_meta": []}, {"_meta": "x"}])
    def test_no_meta_at_all(self, gateway: Gateway, params: Any) -> None:
        client = gateway.client()
        head = [*client.basics(), ("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/list")]
        assert client.ask("POST", "/mcp", message("tools/list", params, id=1), head).error == (400, -32602, 1)

    def test_of_two_metas_everyone_reads_the_last(self, gateway: Gateway) -> None:
        client = gateway.client()
        body, head = client.modern_request("tools/list")
        emptied = body.replace(b'"params": {', b'"params": {"_meta": {"x": 1}, ')
        assert client.ask("POST", "/mcp", emptied, head).status == 200
        last = body[:-2] + b', "_meta": {}}}'
        assert client.ask("POST", "/mcp", last, head).error == (400, -32602, 1)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Mcp-Method": None},
            {"Mcp-Method": "tools/list"},
            {"Mcp-Method": "Tools/Call"},
            {"Mcp-Method": sentinel("tools/call")},
            {"Mcp-Name": None},
            {"Mcp-Name": ""},
            {"Mcp-Name": "New__echo"},
            {"Mcp-Name": "new__add"},
            {"Mcp-Name": "=?base64?!!!?="},
            {"Mcp-Name": "=?base64?\xe9?="},
            {"Mcp-Name": "\xe9"},
            {"Mcp-Name": "=?BASE64?bmV3X19lY2hv?="},
            {"Mcp-Name": sentinel("new__add")},
        ],
    )
    def test_headers_that_disagree_with_the_body(self, gateway: Gateway, headers: dict[str, str | None]) -> None:
        assert gateway.client().modern("tools/call", ECHO, headers=headers).error == (400, -32020, 1)

    @pytest.mark.parametrize("name", ["new__echo", " new__echo\t", sentinel("new__echo")])
    def test_headers_that_agree_in_another_spelling(self, gateway: Gateway, name: str) -> None:
        result = gateway.client().modern("tools/call", ECHO, headers={"Mcp-Name": name}).result
        assert result["content"][0]["text"] == "hi"

    @pytest.mark.parametrize(
        "twice", ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version", "mCP-nAME", "Mcp-Param-Region"]
    )
    def test_a_routing_header_twice_even_with_equal_values(self, gateway: Gateway, twice: str) -> None:
        client = gateway.client()
        body, head = client.modern_request("tools/call", ECHO)
        value = {name.lower(): value for name, value in head}.get(twice.lower(), "x")
        more = [(twice, value)] * (2 if "Param" in twice else 1)
        assert client.ask("POST", "/mcp", body, [*head, *more]).error == (400, -32020, 1)

    def test_the_body_may_not_name_another_version_than_the_header(self, gateway: Gateway) -> None:
        client = gateway.client()
        assert client.modern("tools/list", meta={VERSION: "2025-11-25"}).error == (400, -32020, 1)
        assert client.modern("tools/list", meta={VERSION: "2099-01-01"}).error == (400, -32020, 1)

    @pytest.mark.parametrize(
        "method",
        [
            "ping",
            "initialize",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "tasks/list",
            "tasks/result",
            "",
            "tools/",
            "\u0000",
            "rpc.discover",
            "tools/CALL",
        ],
    )
    def test_unknown_methods_are_404_with_the_id(self, gateway: Gateway, method: str) -> None:
        client = gateway.client()
        sent = {"Mcp-Method": method if method.isprintable() else None}
        reply = client.modern(method, id="the id", headers=sent)
        expected = (404, -32601, "the id") if method.isprintable() else (400, -32020, "the id")
        assert reply.error == expected

    def test_the_first_failure_wins(self, gateway: Gateway) -> None:
        """Each step of the ladder, broken together with all that follow it."""
        client = gateway.client()
        below = {"Mcp-Method": "wrong", "MCP-Protocol-Version": MODERN}
        body, head = client.modern_request("nothing", headers=below)
        assert client.ask("POST", "/mcp", body, [*head, ("Mcp-Method", "wrong")]).error == (400, -32020, 1)
        assert client.modern("nothing", headers=below, meta={CAPABILITIES: None}).error == (400, -32602, 1)
        assert client.modern("nothing", headers=below).error == (400, -32020, 1)
        assert client.modern("nothing").error == (404, -32601, 1)

    def test_notifications_are_taken_and_responses_are_not(self, gateway: Gateway) -> None:
        client = gateway.client()
        head = [*client.basics(), ("MCP-Protocol-Version", MODERN)]
        reply = client.ask("POST", "/mcp", message("notifications/cancelled", {"requestId": 1}), head)
        assert (reply.status, reply.body) == (202, b"")
        answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode()
        assert client.ask("POST", "/mcp", answer, head).error == (400, -32600, None)

    def test_a_session_id_is_ignored_and_none_is_minted(self, gateway: Gateway) -> None:
        reply = gateway.client().modern("tools/list", headers={"Mcp-Session-Id": "nonsense", "Last-Event-ID": "7"})
        assert reply.status == 200
        assert "mcp-session-id" not in reply.headers


class TestUnknownThings:
    """The same name asked for in each era."""

    @pytest.mark.parametrize(
        "name",
        [
            "no__such",
            "echo",
            "new__",
            "__echo",
            "new__echo\u0000",
            "größe",
            "../new__echo",
            "new__echo ",
            "x" * 4000,
            "",
        ],
    )
    def test_tools(self, gateway: Gateway, name: str) -> None:
        client = gateway.client()
        headers = {"Mcp-Name": sentinel(name)}
        assert client.modern("tools/call", {"name": name}, headers=headers).error == (400, -32602, 1)
        assert client.session().call("tools/call", {"name": name}).error == (200, -32602, 1)

    def test_prompts(self, gateway: Gateway) -> None:
        client = gateway.client()
        assert client.modern("prompts/get", {"name": "no__such"}).error == (400, -32602, 1)
        assert client.session().call("prompts/get", {"name": "no__such"}).error == (200, -32602, 1)

    def test_resources_have_a_code_for_each_era_and_name_the_uri(self, gateway: Gateway) -> None:
        client = gateway.client()
        for uri in ("no://such", "file:///etc/passwd", "", "peer://motd\u0000", "u:" + "x" * 9000):
            headers = {"Mcp-Name": sentinel(uri)}
            modern = client.modern("resources/read", {"uri": uri}, headers=headers)
            assert modern.error == (400, -32602, 1)
            assert modern.json["error"]["data"] == {"uri": uri}
            assert client.session().call("resources/read", {"uri": uri}).error == (200, -32002, 1)

    @pytest.mark.parametrize(
        "ref",
        [
            None,
            {},
            [],
            {"type": "ref/tool", "name": "new__echo"},
            {"type": "ref/prompt"},
            {"type": "ref/prompt", "name": "no__such"},
            {"type": "ref/resource", "uri": "no://such"},
            {"type": 7},
        ],
    )
    def test_completions(self, gateway: Gateway, ref: Any) -> None:
        client = gateway.client()
        params = {"ref": ref, "argument": {"name": "style", "value": "p"}}
        assert client.modern("completion/complete", params).error == (400, -32602, 1)
        assert client.session().call("completion/complete", params).error == (200, -32602, 1)

    @pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list"])
    def test_cursors_that_nobody_gave_out(self, gateway: Gateway, method: str) -> None:
        client = gateway.client()
        cursor: Any
        for cursor in ("", "x", 7, {}):
            assert client.modern(method, {"cursor": cursor}).error == (400, -32602, 1)
            assert client.session().call(method, {"cursor": cursor}).error == (200, -32602, 1)

    @pytest.mark.parametrize(
        "params",
        [
            {"name": 7},
            {"name": None},
            {},
            {"name": ["new__echo"]},
            {"name": "new__echo", "arguments": []},
            {"name": "new__echo", "arguments": "x"},
            {"name": "new__echo", "arguments": None},
        ],
    )
    def test_params_of_the_wrong_type(self, gateway: Gateway, params: dict[str, Any]) -> None:
        client = gateway.client()
        assert client.modern("tools/call", params, headers={"Mcp-Name": "new__echo"}).error == (400, -32602, 1)
        assert client.session().call("tools/call", params).error == (200, -32602, 1)

    def test_a_handshake_client_has_no_modern_methods(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        for method in ("server/discover", "subscriptions/listen", "nothing"):
            assert session.call(method).error == (200, -32601, 1)


class TestParamHeaders:
    """`x-mcp-header`: specification, "Server Behavior for Custom Headers"."""

    def test_all_present_and_right(self, gateway: Gateway) -> None:
        arguments = {"region": "Hello, 世界", "deep": {"count": 42}, "sure": True}
        reply = mirrored(gateway.client(), arguments, Region=sentinel("Hello, 世界"), Count="42.0", Sure="true")
        assert json.loads(reply.result["content"][0]["text"])["arguments"] == arguments

    def test_absent_and_null_arguments_need_none(self, gateway: Gateway) -> None:
        arguments: Any
        for arguments in ({}, {"region": None}, {"deep": {}}, {"deep": 7}):
            assert mirrored(gateway.client(), arguments).status == 200

    @pytest.mark.parametrize(
        ("arguments", "headers"),
        [
            ({"region": "a"}, {}),
            ({"region": "a"}, {"Region": "b"}),
            ({"region": "a"}, {"Region": "A"}),
            ({"region": "é"}, {"Region": "\xe9"}),
            ({"region": "a"}, {"Region": "=?base64?YQ?="}),
            ({}, {"Region": "a"}),
            ({"region": None}, {"Region": "null"}),
            ({"deep": {"count": 1000}}, {"Count": "1_000"}),
            ({"deep": {"count": 2**53}}, {"Count": str(2**53)}),
            ({"deep": {"count": 1}}, {"Count": "true"}),
            ({"sure": True}, {"Sure": "True"}),
            ({"sure": True}, {"Sure": "1"}),
        ],
    )
    def test_what_disagrees_is_a_mismatch(
        self, gateway: Gateway, arguments: dict[str, Any], headers: dict[str, str]
    ) -> None:
        assert mirrored(gateway.client(), arguments, **headers).error == (400, -32020, 1)

    def test_a_param_header_nobody_knows_is_ignored(self, gateway: Gateway) -> None:
        assert mirrored(gateway.client(), {}, Unknown="x").status == 200

    def test_handshake_clients_send_none(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        reply = session.call("tools/call", {"name": "odd__mirrored", "arguments": {"region": "a"}})
        assert reply.result["content"]


class TestAnswers:
    def test_lists_carry_cache_hints_and_a_signature(self, gateway: Gateway) -> None:
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover"):
            result = gateway.client().modern(method).result
            assert result["resultType"] == "complete"
            assert result["ttlMs"] >= 0
            assert result["cacheScope"] == "private"
            assert result["_meta"][PREFIX + "serverInfo"]["name"] == "MCP-Server"

    def test_handshake_lists_carry_neither(self, gateway: Gateway) -> None:
        assert set(gateway.client().session().call("tools/list").result) == {"tools"}

    def test_both_eras_see_the_same_list_in_the_same_order_every_time(self, gateway: Gateway) -> None:
        client = gateway.client()
        lists = [client.modern("tools/list").result["tools"] for _ in range(2)]
        lists.append(client.session().call("tools/list").result["tools"])
        lists.append(gateway.client("other").modern("tools/list").result["tools"])
        assert all(one == lists[0] for one in lists)
        oldest = client.session("2024-11-05").call("tools/list").result["tools"]
        assert [tool["name"] for tool in oldest] == [tool["name"] for tool in lists[0]]
        assert [tool["name"] for tool in lists[0]][:2] == ["new__add", "new__structured"]

    def test_a_legacy_remotes_answer_is_completed_and_otherwise_untouched(self, gateway: Gateway) -> None:
        body = gateway.client().modern("tools/call", {"name": "odd__raw"}).body
        assert b'"vendor":{"wide":123456789012345678901234567890,"exponent":1E+2,"empty":[],"nothing":null}' in body
        assert b'{"type":"text","text":"\\u00e9\\ud83d\\ude00","futureHint":1.10}' in body
        result = json.loads(body)["result"]
        assert result["resultType"] == "complete"
        assert result["_meta"] == {
            PREFIX + "serverInfo": {"name": "MCP-Server", "version": result["_meta"][PREFIX + "serverInfo"]["version"]}
        }

    def test_a_modern_remotes_answer_loses_only_what_old_clients_do_not_know(self, gateway: Gateway) -> None:
        result = gateway.client().session().call("resources/read", {"uri": "peer://motd"}).result
        assert not {"resultType", "ttlMs", "cacheScope"} & set(result)
        assert result["contents"][0]["text"] == "Real peers, real sockets."

    @pytest.mark.parametrize("remote", ["new", "old", "sse", "demo"])
    def test_a_remotes_own_errors(self, gateway: Gateway, remote: str) -> None:
        result = (
            gateway.client()
            .modern("tools/call", {"name": f"{remote}__fail", "arguments": {"message": "no luck"}})
            .result
        )
        assert result["isError"] is True
        assert "no luck" in result["content"][0]["text"]

    def test_raw_line_ends_in_a_body_reach_a_line_framed_remote_as_one_message(self, gateway: Gateway) -> None:
        """What stands between the tokens of a body is copied, and must not become a second message."""
        session = gateway.client().session()
        smuggled = '{"a":1,\r\n\n"b":\n{"jsonrpc":"2.0","id":777,"method":"tools/call","params":{"name":"wait"}}\n}'
        body = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"odd__smuggle","arguments":'
            + smuggled
            + "}}"
        )
        reply = session.client.ask("POST", "/mcp", body.encode(), session.headers)
        assert json.loads(reply.result["content"][0]["text"])["arguments"] == json.loads(smuggled)
        assert session.call("ping").status == 200

    def test_half_an_emoji_is_mended_and_the_rest_of_the_call_kept(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        arguments = b'{"cut":"\\ud83d","whole":"\\ud83d\\ude00","n":1.10}'
        params = b'{"name":"odd__smuggle","arguments":' + arguments + b"}"
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + params + b"}"
        reply = session.client.ask("POST", "/mcp", body, session.headers)
        assert '"cut": "\ufffd"' in reply.result["content"][0]["text"]
        assert '"whole": "\U0001f600"' in reply.result["content"][0]["text"]


class TestCatalogue:
    @pytest.mark.edge(13)
    def test_malformed_entries_are_dropped_and_named_and_their_siblings_served(self, gateway: Gateway) -> None:
        tools = [tool["name"] for tool in gateway.client().modern("tools/list").result["tools"]]
        assert [name for name in tools if name.startswith("odd__")] == [
            "odd__mirrored",
            "odd__raw",
            "odd__gr__e_1",
            "odd__wait",
            "odd__smuggle",
            "odd__late",
        ]
        warnings = [one for one in gateway.status()["warnings"] if one.startswith("odd: ")]
        assert len(warnings) == 5
        assert [
            word
            for word in ("no-schema", "x-mcp-header", "it has no name", "it has no uri", "no URI template")
            if not any(word in one for one in warnings)
        ] == []

    def test_a_cleaned_name_leads_back_to_the_remotes_own(self, gateway: Gateway) -> None:
        reply = gateway.client().modern("tools/call", {"name": "odd__gr__e_1", "arguments": {}})
        assert json.loads(reply.result["content"][0]["text"])["name"] == "größe 1"
        prompt = gateway.client().modern("prompts/get", {"name": "odd__ask_me"}).result
        assert prompt["messages"][0]["content"]["text"] == "ask me"

    @pytest.mark.edge(13)
    def test_a_uri_that_two_remotes_have_is_told_apart_and_read_from_each(self, gateway: Gateway) -> None:
        client = gateway.client()
        uris = [one["uri"] for one in client.modern("resources/list").result["resources"]]
        assert len(uris) == len(set(uris))
        assert {"peer://motd", "old+peer://motd", "odd+peer://motd"} <= set(uris)
        read = client.modern("resources/read", {"uri": "odd+peer://motd"}).result
        assert read["contents"][0]["text"] == "odd says peer://motd"
        assert client.modern("resources/read", {"uri": "peer://motd"}).result["contents"][0]["text"].startswith("Real")

    def test_templates_route_what_fits_them(self, gateway: Gateway) -> None:
        client = gateway.client()
        assert (
            client.modern("resources/read", {"uri": "odd://p/q/"}).result["contents"][0]["text"]
            == "odd says odd://p/q/"
        )
        for misfit in ("odd://p/q", "odd://p/q/r/", "odd:///q/ x"):
            assert client.modern("resources/read", {"uri": misfit}).status == 400
        assert (
            client.modern("resources/read", {"uri": "peer://city/Oslo"}).result["contents"][0]["text"]
            == "Oslo is a city."
        )
        assert client.session().call("resources/read", {"uri": "old+peer://city/Oslo"}).result["contents"]

    def test_completion_goes_to_who_owns_the_reference(self, gateway: Gateway) -> None:
        params = {"ref": {"type": "ref/prompt", "name": "old__greet"}, "argument": {"name": "style", "value": "p"}}
        for reply in (
            gateway.client().modern("completion/complete", params),
            gateway.client().session().call("completion/complete", params),
        ):
            assert reply.result["completion"]["values"] == ["plain", "polite", "pirate"]
        template = {
            "ref": {"type": "ref/resource", "uri": "peer://city/{name}"},
            "argument": {"name": "name", "value": "P"},
        }
        assert gateway.client().modern("completion/complete", template).result["completion"]["values"] == [
            "Paris",
            "Prague",
            "Porto",
        ]
