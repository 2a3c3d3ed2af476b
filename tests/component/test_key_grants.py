"""What a key may not use does not exist for it, whatever it asks and in whatever revision; and how often it may ask.

`narrow` may use `demo` and `odd` (`old` is denied whole), but nothing called echo and none of odd's peer:// resources.
"""

import pytest

from tests.component.real_gateway import Gateway, until

TOOL = {"name": "demo__add", "arguments": {"a": 1, "b": 2}}
FORBIDDEN = ("new__add", "old__add", "demo__echo")


def named(reply, member, field="name"):
    return [entry[field] for entry in reply.result[member]]


@pytest.fixture
def narrow(gateway: Gateway):
    return gateway.client("narrow")


class TestWhatANarrowKeySees:
    @pytest.mark.parametrize("member", ["tools", "prompts", "resources", "resourceTemplates"])
    def test_lists_hold_what_it_may_use_in_both_eras(self, gateway: Gateway, narrow, member):
        method = f"{member if member != 'resourceTemplates' else 'resources/templates'}/list"
        field = {"resources": "uri", "resourceTemplates": "uriTemplate"}.get(member, "name")
        every = named(gateway.client().modern(method), member, field)
        seen = named(narrow.modern(method), member, field)
        assert seen == named(narrow.session().call(method), member, field)
        assert set(seen) < set(every)
        if field == "name":
            assert seen == [one for one in every if one.startswith(("demo__", "odd__")) and not one.endswith("__echo")]
        else:
            assert not [one for one in seen if "peer:" in one]

    def test_the_answer_for_what_it_may_not_use_is_that_for_an_unknown_name(self, narrow):
        for ask in (narrow.modern, narrow.session().call):
            for name in FORBIDDEN:
                refused = ask("tools/call", {"name": name, "arguments": {"text": "x"}})
                unknown = ask("tools/call", {"name": "demo__nothing", "arguments": {"text": "x"}})
                assert refused.status == unknown.status
                assert refused.body.replace(name.encode(), b"demo__nothing") == unknown.body
            prompt = ask("prompts/get", {"name": "new__greet", "arguments": {}})
            assert prompt.messages[-1]["error"]["message"] == "unknown prompt new__greet"
            read, nowhere = (ask("resources/read", {"uri": uri}) for uri in ("peer://motd", "nowhere://"))
            assert read.body.replace(b"peer://motd", b"nowhere://") == nowhere.body

    def test_completion_subscription_and_listening_know_no_more(self, narrow):
        ref = {"ref": {"type": "ref/prompt", "name": "new__greet"}, "argument": {"name": "style", "value": "p"}}
        assert narrow.modern("completion/complete", ref).error[:2] == (400, -32602)
        session = narrow.session()
        refused = session.call("resources/subscribe", {"uri": "peer://motd"})
        assert refused.messages[-1]["error"]["message"] == "resource not found"
        wanted = {"notifications": {"resourceSubscriptions": ["peer://motd", "demo://about"]}}
        with narrow.modern_stream("subscriptions/listen", wanted) as stream:
            granted = stream.message()["params"]["notifications"]
        assert "peer://motd" not in granted.get("resourceSubscriptions", [])

    def test_what_it_may_use_works(self, narrow):
        assert narrow.modern("tools/call", TOOL).result["content"][0]["text"] == "3.0"
        assert narrow.session().call("tools/call", TOOL).result["content"][0]["text"] == "3.0"
        with narrow.relay().opened() as relay:
            assert relay.call("tools/call", TOOL, id=1)["result"]["content"][0]["text"] == "3.0"
            assert relay.call("tools/call", {"name": "new__add", "arguments": {}}, id=2)["error"]["code"] == -32602

    def test_remotes_that_it_cannot_reach_tell_it_nothing_about_themselves(self, gateway: Gateway, narrow):
        whole = gateway.client().session().greeting.get("instructions", "")
        assert "## new" in whole
        for told in (narrow.session().greeting, narrow.modern("server/discover").result):
            assert not [name for name in ("new", "old", "sse") if f"## {name}\n" in told.get("instructions", "")]

    def test_the_operator_can_look_through_its_eyes(self, gateway: Gateway, narrow):
        seen = gateway.command("mcp", "tools", "list", "--key", "narrow")["tools"]
        assert [tool["name"] for tool in seen] == named(narrow.modern("tools/list"), "tools")


class TestRates:
    def test_requests_are_counted_told_and_refused_with_the_time_of_the_next(self, gateway: Gateway):
        client = gateway.client("counted")
        first = client.modern("tools/call", TOOL)
        assert first.status == 200
        assert first.headers["ratelimit-policy"] == '"key";q=3;w=60, "mcp:demo";q=1;w=60'
        assert first.headers["ratelimit"] == '"key";r=2;t=60, "mcp:demo";r=0;t=60'
        second = client.modern("tools/call", TOOL)
        assert second.error[:2] == (429, -32603)
        assert "requests to demo a minute" in second.json["error"]["message"]
        assert 1 <= int(second.headers["retry-after"]) <= 60
        assert client.modern("tools/list").status == 200
        third = client.modern("tools/list")
        assert third.error[:2] == (429, -32603)
        assert third.headers["ratelimit"].startswith('"key";r=0;t=')
        assert "ratelimit" not in gateway.client().modern("ping").headers

    def test_its_own_limit_of_streams_is_met_before_everybodys(self, gateway: Gateway):
        client = gateway.client("counted")
        with client.relay():
            refused = client.ask("GET", "/sse", None, [client.bearer, ("Accept", "text/event-stream")])
            assert refused.status == 429
            assert "its limit is 1" in refused.json["error"]["message"]


def test_a_key_that_may_use_other_things_is_told_so_and_sees_them(gateway: Gateway, narrow):
    with narrow.relay().opened() as relay:
        before = relay.call("tools/list", id=1)["result"]["tools"]
        changed = gateway.command("mcpkey", "set", "narrow", "--deny", "*__echo", "--deny", "old__*")["changed"]
        assert changed[0]["deny"] == ["*__echo", "old__*"]
        told = {relay.stream.message()["method"] for _ in range(3)}
        assert told == {f"notifications/{kind}/list_changed" for kind in ("prompts", "resources", "tools")}
        assert relay.call("tools/list", id=2)["result"]["tools"] == before
        until(lambda: "odd+peer://motd" in named(narrow.modern("resources/list"), "resources", "uri"))
    gateway.command("mcpkey", "set", "narrow", "--deny", "*__echo", "--deny", "old__*", "--deny", "odd__peer://*")
