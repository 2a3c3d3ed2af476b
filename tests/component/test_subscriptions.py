"""What remotes say outside any request, and who hears of it: changes of resources and lists, errands, roots.

Through a real gateway between remotes of both eras on every transport and clients of every era.
"""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.component.real_gateway import PREFIX, Client, Gateway, Relay, Session, Stream, message, odd, prepared, until

APP_PEER = Path(__file__).with_name("app_peer.py")
SUBSCRIPTION = PREFIX + "subscriptionId"
UPDATED = "notifications/resources/updated"
# Every transport in each era that has it.
REMOTES = ("new", "old", "sse", "newpipe", "oldpipe")
_cities = itertools.count(1)


def app(name: str) -> dict[str, Any]:
    variables = {"PEER_JOURNAL": "${PEER_JOURNAL}", "NAME": name}
    return {"command": sys.executable, "args": [str(APP_PEER)], "env": variables}


@pytest.fixture(scope="module")
def _changing() -> Iterator[Gateway]:
    with prepared({}, MCP_HEARTBEAT_S="1") as gateway, contextlib.ExitStack() as stack:
        chosen = {"PEER_JOURNAL": str(gateway.journal)}
        gateway.remotes = {
            "new": {"url": stack.enter_context(peers.sdk_server("http", "--era", "modern", environment=chosen)).url},
            "old": {"url": stack.enter_context(peers.sdk_server("http", "--era", "legacy", environment=chosen)).url},
            "sse": {"url": stack.enter_context(peers.sdk_server("sse", environment=chosen)).url, "type": "sse"},
            "newpipe": peers.sdk_stdio(era="modern", **chosen).entry(),
            "oldpipe": peers.sdk_stdio(era="legacy", **chosen).entry(),
            "odd": odd(),
            "one": app("one"),
            "two": app("two"),
        }
        gateway.write_config()
        yield gateway.start().healthy(*gateway.remotes)


@pytest.fixture
def changing(_changing: Gateway) -> Gateway:
    _changing.idle()
    return _changing


def city(remote: str) -> tuple[str, str]:
    """A resource nobody has watched before: as the remote knows it, and as clients see it (the first keeps its URIs)."""
    own = f"peer://city/{next(_cities)}"
    return own, own if remote == "new" else f"{remote}+{own}"


def touch(client: Client, remote: str, own: str) -> None:
    """Let a remote say that its resource changed."""
    result = client.modern("tools/call", {"name": f"{remote}__touch", "arguments": {"uri": own}}).result
    assert result["content"][0]["text"] == own


def listen(client: Client, *uris: str, **wanted: Any) -> Stream:
    return client.modern_stream(
        "subscriptions/listen", {"notifications": wanted | {"resourceSubscriptions": list(uris)}}, id="sub"
    )


def names(client: Client) -> set[str]:
    return {tool["name"] for tool in client.modern("tools/list").result["tools"]}


def subscribe(session: Session | Relay, uri: Any, *, id: Any = 1) -> Any:
    answer = session.call("resources/subscribe", {"uri": uri}, id=id)
    return answer if isinstance(session, Relay) else answer.json


class TestSession:
    @pytest.mark.parametrize("remote", REMOTES)
    def test_hears_of_a_change_under_the_uri_that_it_knows(self, changing: Gateway, remote: str) -> None:
        client, (own, exposed) = changing.client(), city(remote)
        session = client.session()
        with session.stream() as stream:
            assert subscribe(session, exposed) == {"jsonrpc": "2.0", "id": 1, "result": {}}
            touch(client, remote, own)
            assert stream.message() == {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": exposed}}

    @pytest.mark.parametrize("remote", REMOTES)
    def test_over_an_event_stream_too(self, changing: Gateway, remote: str) -> None:
        client, (own, exposed) = changing.client(), city(remote)
        with client.relay() as relay:
            relay.opened()
            assert subscribe(relay, exposed)["result"] == {}
            touch(client, remote, own)
            assert relay.stream.message() == {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": exposed}}

    def test_hears_nothing_of_what_it_gave_up_or_never_asked_for(self, changing: Gateway) -> None:
        client, (own, exposed), (other, _), (last, exposed_last) = changing.client(), *(city("old") for _ in range(3))
        session = client.session()
        with session.stream() as stream:
            for uri in (exposed, exposed_last):
                subscribe(session, uri)
            assert session.call("resources/unsubscribe", {"uri": exposed}).json["result"] == {}
            for uri in (own, other, last):
                touch(client, "old", uri)
            assert stream.message()["params"] == {"uri": exposed_last}

    def test_what_changes_while_nobody_reads_is_told_once_to_the_next_stream(self, changing: Gateway) -> None:
        client, (own, exposed) = changing.client(), city("new")
        session = client.session()
        subscribe(session, exposed)
        for _ in range(3):
            touch(client, "new", own)
        with session.stream() as stream:
            assert stream.message()["params"] == {"uri": exposed}
            other, exposed_other = city("new")
            subscribe(session, exposed_other)
            touch(client, "new", other)
            assert stream.message()["params"] == {"uri": exposed_other}

    @pytest.mark.parametrize(
        ("params", "error"),
        [
            ({"uri": "nobody://has/this"}, {"code": -32002, "message": "resource not found"}),
            ({"uri": 7}, {"code": -32602, "message": "resources/subscribe needs uri, a string"}),
            ({}, {"code": -32602, "message": "resources/subscribe needs uri, a string"}),
            ({"uri": "odd://a/b/"}, {"code": -32602, "message": "odd does not tell when this resource changes"}),
        ],
    )
    def test_is_told_what_cannot_be_watched(self, changing: Gateway, params: Any, error: Any) -> None:
        answer = changing.client().session().call("resources/subscribe", params).json
        assert {name: answer["error"][name] for name in error} == error

    def test_watches_no_more_than_so_many(self, changing: Gateway) -> None:
        session = changing.client().session()
        with session.stream():
            for number in range(256):
                assert subscribe(session, f"peer://city/many{number}")["result"] == {}
            assert subscribe(session, "peer://city/many256")["error"]["code"] == -32602
            session.call("resources/unsubscribe", {"uri": "peer://city/many0"})
            assert subscribe(session, "peer://city/many256")["result"] == {}
        assert session.delete().status == 204


class TestListener:
    @pytest.mark.parametrize("remote", REMOTES)
    @pytest.mark.one_program("its program is another one there, and nothing changed in it")
    def test_hears_of_a_change_with_its_own_mark(self, changing: Gateway, remote: str) -> None:
        client, (own, exposed) = changing.client(), city(remote)
        with listen(client, exposed) as stream:
            assert stream.message()["params"]["notifications"] == {"resourceSubscriptions": [exposed]}
            touch(client, remote, own)
            params = {"_meta": {SUBSCRIPTION: "sub"}, "uri": exposed}
            assert stream.message() == {"jsonrpc": "2.0", "method": UPDATED, "params": params}

    def test_is_granted_what_exists_and_can_be_told(self, changing: Gateway) -> None:
        _, exposed = city("new")
        wanted = (exposed, "nobody://has/this", "odd://a/b/", exposed)
        with listen(changing.client(), *wanted, toolsListChanged=True) as stream:
            granted = stream.message()["params"]["notifications"]
            assert granted == {"toolsListChanged": True, "resourceSubscriptions": [exposed]}

    @pytest.mark.parametrize("uris", ["peer://motd", [1], {"a": 1}])
    def test_uris_must_be_a_list_of_strings(self, changing: Gateway, uris: Any) -> None:
        params = {"notifications": {"resourceSubscriptions": uris}}
        assert changing.client().modern("subscriptions/listen", params).error == (400, -32602, 1)

    @pytest.mark.parametrize("remote", ["new", "newpipe", "old", "oldpipe", "sse"])
    @pytest.mark.one_program("its program is another one there, and nothing changed in it")
    def test_hears_of_a_list_that_changed_at_the_remote(self, changing: Gateway, remote: str) -> None:
        client, tool = changing.client(), f"grown{next(_cities)}"
        with listen(client, toolsListChanged=True) as stream:
            stream.message()
            client.modern("tools/call", {"name": f"{remote}__grow", "arguments": {"name": tool}})
            assert stream.message()["method"] == "notifications/tools/list_changed"
        until(lambda: f"{remote}__{tool}" in names(client))

    def test_hears_of_it_whichever_of_the_remotes_sessions_said_so(self, changing: Gateway) -> None:
        client, tool = changing.client(), f"grown{next(_cities)}"
        asked = client.session(capabilities={"sampling": {}})  # calls of such a client have a session of their own
        with listen(client, toolsListChanged=True) as stream:
            stream.message()
            asked.call("tools/call", {"name": "old__grow", "arguments": {"name": tool}})
            assert stream.message()["method"] == "notifications/tools/list_changed"
        until(lambda: f"old__{tool}" in names(client))


class TestCount:
    @pytest.mark.one_worker("each asks the remote on its own session")
    def test_a_remote_is_asked_once_and_let_go_by_the_last(self, changing: Gateway) -> None:
        client, (own, exposed) = changing.client(), city("old")
        first, second = client.session(), client.session()
        for session in (first, second):
            assert subscribe(session, exposed)["result"] == {}
        with listen(client, exposed) as stream:
            stream.message()
            first.call("resources/unsubscribe", {"uri": exposed})
            assert second.delete().status == 204
            touch(client, "old", own)
            assert stream.message()["params"]["uri"] == exposed
            assert changing.journal_of(own) == ["subscribed"]
        until(lambda: changing.journal_of(own) == ["subscribed", "unsubscribed"], "the remote is told")

    def test_an_event_stream_that_is_lost_lets_go(self, changing: Gateway) -> None:
        own, exposed = city("oldpipe")
        with changing.client().relay() as relay:
            subscribe(relay.opened(), exposed)
        until(lambda: changing.journal_of(own) == ["subscribed", "unsubscribed"], "the remote is told")


MOTD = "peer://motd"
Losing = tuple[Gateway, dict[str, peers.Peer]]


@pytest.fixture(scope="module")
def losing() -> Iterator[Losing]:
    """A gateway whose remotes are there to be killed."""
    with prepared({}) as gateway, contextlib.ExitStack() as stack:
        chosen = {"PEER_JOURNAL": str(gateway.journal)}
        started = {
            name: stack.enter_context(peers.sdk_server("http", "--era", era, environment=chosen))
            for name, era in (("a", "modern"), ("b", "legacy"))
        }
        gateway.remotes = {name: {"url": peer.url} for name, peer in started.items()}
        gateway.write_config()
        yield gateway.start().healthy(*started), started


class TestLoss:
    @pytest.mark.parametrize(("remote", "era", "exposed"), [("a", "modern", MOTD), ("b", "legacy", f"b+{MOTD}")])
    def test_a_remote_that_comes_back_is_watched_again(
        self, losing: Losing, remote: str, era: str, exposed: str
    ) -> None:
        gateway, started = losing
        client, peer = gateway.client(), started[remote]
        stream = listen(client, exposed)
        assert stream.message()["params"]["notifications"] == {"resourceSubscriptions": [exposed]}
        peer.kill()
        chosen = {"PEER_JOURNAL": str(gateway.journal)}
        with stream, peers.sdk_server("http", "--era", era, port=peer.port, environment=chosen):
            # Nothing is replayed: what may have changed meanwhile counts as changed.
            assert stream.message()["params"]["uri"] == exposed
            for _ in gateway.workers:  # the one that listens for this stream too, whichever it is
                touch(client, remote, MOTD)
            assert stream.message()["params"]["uri"] == exposed


class TestApps:
    def test_the_page_of_a_tool_leads_to_the_tools_own_remote(self, changing: Gateway) -> None:
        client = changing.client()
        tools = {tool["name"]: tool for tool in client.modern("tools/list").result["tools"]}
        page, other = "ui://shared/page", "two+ui://shared/page"
        assert tools["one__show"]["_meta"] == {"ui": {"resourceUri": page, "visibility": ["model"]}, "other": 1.1}
        assert tools["two__show"]["_meta"] == {"ui": {"resourceUri": other, "visibility": ["model"]}, "other": 1.1}
        assert (tools["one__earlier"]["_meta"], tools["two__earlier"]["_meta"]) == (
            {"ui/resourceUri": page},
            {"ui/resourceUri": other},
        )
        for uri, text in ((page, f"one has {page}"), (other, f"two has {page}")):
            assert client.modern("resources/read", {"uri": uri}).result["contents"] == [{"uri": uri, "text": text}]


class TestLinks:
    def test_a_link_in_a_result_leads_back_to_where_it_came_from(self, changing: Gateway) -> None:
        client, session = changing.client(), changing.client().session()
        assert client.modern("resources/read", {"uri": "note://3"}).error == (400, -32602, 1)
        one = client.modern("tools/call", {"name": "one__link", "arguments": {}}).result["content"]
        two = session.call("tools/call", {"name": "two__link", "arguments": {}}).result["content"]
        assert one[1] == {
            "type": "resource_link",
            "uri": "note://1",
            "name": "one",
            "vendor": {"wide": 12345678901234567890123},
        }
        assert [block.get("uri") or block.get("resource", {}).get("uri") for block in two] == [
            None,
            "two+note://1",
            "two+note://2",
            "https://example.com/3",  # a client may fetch it from the web itself
        ]
        for uri, text in (("note://2", "one has note://2"), ("two+note://2", "two has note://2")):
            contents = [{"uri": uri, "text": text}]
            assert client.modern("resources/read", {"uri": uri}).result["contents"] == contents
            assert session.call("resources/read", {"uri": uri}).result["contents"] == contents

    def test_what_is_read_says_the_uri_that_was_asked_for(self, changing: Gateway) -> None:
        client, (_, exposed) = changing.client(), city("old")
        (contents,) = client.modern("resources/read", {"uri": exposed}).result["contents"]
        assert contents["uri"] == exposed


class TestErrand:
    CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}

    @pytest.mark.parametrize("when", ["after", "refused"])
    def test_whoever_was_sent_hears_that_it_is_done_and_nobody_else(self, changing: Gateway, when: str) -> None:
        client, errand = changing.client(), f"errand {when}"
        session, other = client.session(capabilities=self.CAPABILITIES), client.session(capabilities=self.CAPABILITIES)
        with session.stream() as stream, other.stream() as elsewhere:
            arguments = {"errand": errand, "when": when}
            with contextlib.closing(session.begin("tools/call", {"name": "one__errand", "arguments": arguments})) as c:
                response = Stream(c, c.getresponse())
                if when == "after":
                    self.accept(session, response)
                else:
                    assert json.loads(response.response.read())["error"]["code"] == -32042
            # The remote says so on the session that it was asked on.
            for name in ("unheard of", errand):
                session.call("tools/call", {"name": "one__done", "arguments": {"errand": name}}, id=2)
            done = {"jsonrpc": "2.0", "method": "notifications/elicitation/complete"}
            assert stream.message() == done | {"params": {"elicitationId": errand}}
            assert elsewhere.line().startswith(b": ")

    def test_a_client_without_a_stream_hears_of_it_on_the_calls_own(self, changing: Gateway) -> None:
        session = changing.client().session(capabilities=self.CAPABILITIES)
        arguments = {"errand": "at once", "when": "during"}
        with contextlib.closing(session.begin("tools/call", {"name": "one__errand", "arguments": arguments})) as c:
            stream = Stream(c, c.getresponse())
            self.accept(session, stream)
            assert stream.message()["params"] == {"elicitationId": "at once"}
            assert stream.message()["result"] == {"content": []}

    @staticmethod
    def accept(session: Session, stream: Stream) -> None:
        question = stream.message()
        assert question["method"] == "elicitation/create"
        body = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
        assert session.client.ask("POST", "/mcp", json.dumps(body).encode(), session.headers).status == 202


class TestRoots:
    def test_a_change_reaches_the_remotes_that_were_told_of_them_and_no_other(self, changing: Gateway) -> None:
        changed = "notifications/roots/list_changed"
        client = changing.client()
        has_roots, has_none = client.session(capabilities={"roots": {"listChanged": True}}), client.session()
        for session in (has_roots, has_none):
            session.call("tools/call", {"name": "two__link", "arguments": {}})
        assert has_none.tell(changed).status == 202
        assert has_roots.tell(changed).status == 202
        until(lambda: changed in changing.journal_of("two"), "the remote is told")
        with client.relay() as relay:
            relay.opened()
            relay.post(message(changed))
        assert changing.journal_of("two").count(changed) == 1
        assert changed not in changing.journal_of("one")
