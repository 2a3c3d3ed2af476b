"""Nothing is lost between a remote and a client: odd but legal messages arrive as they were sent (exact_peer.py).

Within an era a payload is the very bytes of the remote. Across eras it differs by the fields that only one era has; all else is
compared as JSON with its order and with every number as it was spelled.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mcpserver.protocol.jsontext import one_line_for_any_reader
from tests import peers
from tests.component import exact_peer
from tests.component.real_gateway import PREFIX, Client, Gateway, Session, message, prepared, sentinel

PEER = str(Path(__file__).with_name("exact_peer.py"))
REMOTES = {
    "io": ("stdio", "legacy"),
    "io-new": ("stdio", "modern"),
    "old": ("http", "legacy"),
    "new": ("http", "modern"),
}
ERA_FIELDS = ("resultType", "ttlMs", "cacheScope")
KEYS = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources"}
KEYS |= {"resources/templates/list": "resourceTemplates"}
METHODS = ("tools/call", "prompts/get", "resources/read", "completion/complete")
CLIENTS = ["modern", "2025-11-25", "2025-06-18", "sse"]
every_remote = pytest.mark.parametrize("remote", REMOTES)
every_client = pytest.mark.parametrize("kind", CLIENTS)


@pytest.fixture(scope="module")
def gw() -> Iterator[Gateway]:
    with prepared({}) as gateway, contextlib.ExitStack() as stack:
        for name, (transport, era) in REMOTES.items():
            words = [PEER, "--transport", transport, "--era", era, "--name", name]
            if transport == "stdio":
                gateway.remotes[name] = {"command": sys.executable, "args": words}
            else:
                gateway.remotes[name] = {"url": stack.enter_context(peers.running([sys.executable, *words])).url}
        gateway.write_config()
        yield gateway.start().healthy(*REMOTES)


def exactly(raw: str | bytes) -> Any:
    """JSON as pairs in their order, numbers as they are spelled."""

    def number(text: str) -> tuple[str, str]:
        return ("number", text)

    return json.loads(raw, object_pairs_hook=lambda pairs: ("object", pairs), parse_int=number, parse_float=number)


def member(parsed: Any, *names: str) -> Any:
    for name in names:
        (parsed,) = [value for key, value in parsed[1] if key == name]
    return parsed


def without(parsed: Any, *names: str) -> Any:
    return ("object", [(key, value) for key, value in parsed[1] if key not in names])


class Caller:
    """One client of any era: the whole answer to a request, as bytes, notifications first."""

    def __init__(self, kind: str, client: Client) -> None:
        self.kind = kind
        self.client = client
        self.session: Session | None = None
        if kind == "sse":
            self.relay = client.relay().opened("2025-11-25")
        elif kind != "modern":
            self.session = client.session(kind)

    def ask(self, method: str, params: Mapping[str, Any], raw: str = "", meta: Mapping[str, Any] | None = None) -> Any:
        """All that comes, as raw messages. `raw` stands in place of the arguments' text `"RAW"`."""
        if self.kind == "modern":
            about = str(params.get("name", params.get("uri", "")))
            named = {"Mcp-Name": about if about.isascii() else sentinel(about)} if about else {}
            wanted = {PREFIX + "logLevel": "debug"} | dict(meta or {})
            body, headers = self.client.modern_request(method, params, meta=wanted, headers=named)
            return self.read(self.client.ask("POST", "/mcp", body.replace(b'"RAW"', raw.encode()), headers))
        body = message(method, {**params, **({"_meta": meta} if meta else {})}, id=1).replace(b'"RAW"', raw.encode())
        if self.session is not None:
            return self.read(self.client.ask("POST", "/mcp", body, self.session.headers))
        assert self.relay.post(body).status == 202
        came: list[bytes] = []
        while not came or b'"id"' not in came[-1][:60]:
            event = self.relay.stream.event()
            assert event is not None
            came.append(event[1].encode())
        return came

    @staticmethod
    def read(reply: Any) -> list[bytes]:
        if reply.headers["content-type"] != "text/event-stream":
            return [reply.body]
        return [line[6:] for line in reply.body.split(b"\n") if line.startswith(b"data: ")]

    def close(self) -> None:
        if self.kind == "sse":
            self.relay.stream.close()


@contextlib.contextmanager
def caller(kind: str, gateway: Gateway) -> Iterator[Caller]:
    one = Caller(kind, gateway.client())
    try:
        yield one
    finally:
        one.close()


def params_for(method: str, remote: str, tool: str = "exact") -> dict[str, Any]:
    if method == "resources/read":
        return {"uri": f"exact.{remote}://a/b?c=%20"}
    if method == "completion/complete":
        ref = {"type": "ref/prompt", "name": f"{remote}__exact"}
        return {"ref": ref, "argument": {"name": "a", "value": ""}}
    return {"name": f"{remote}__{tool}", "arguments": {}}


def same_era(kind: str, remote: str) -> bool:
    return (kind == "modern") == (REMOTES[remote][1] == "modern")


@every_client
@every_remote
@pytest.mark.parametrize("method", METHODS)
def test_a_result_is_what_the_remote_sent(gw: Gateway, kind: str, remote: str, method: str) -> None:
    sent = exact_peer.results(remote)[method]
    with caller(kind, gw) as one:
        (raw,) = one.ask(method, params_for(method, remote))
    if same_era(kind, remote):
        assert sent.encode() in raw, "the very bytes"
    got, wanted = member(exactly(raw), "result"), exactly("{" + sent + "}")
    if kind != "modern":
        assert got == wanted
        return
    if not same_era(kind, remote):
        info = PREFIX + "serverInfo"
        assert member(got, "resultType") == "complete"
        assert member(got, "_meta", info)
        meta = without(member(got, "_meta"), info)
        got = ("object", [(key, meta if key == "_meta" else value) for key, value in got[1]])
    assert without(got, *ERA_FIELDS) == wanted


@every_client
@every_remote
@pytest.mark.parametrize("method", KEYS)
def test_a_lists_entries_are_what_the_remote_sent_but_for_the_name(
    gw: Gateway, kind: str, remote: str, method: str
) -> None:
    with caller(kind, gw) as one:
        (raw,) = one.ask(method, {})
    listed = member(exactly(raw), "result", KEYS[method])
    wanted = exactly("[" + exact_peer.lists(remote)[method] + "]")
    if method in ("tools/list", "prompts/list"):
        ours = [entry for entry in listed if member(entry, "name").startswith(f"{remote}__")]
        names = [member(entry, "name") for entry in ours]
        assert names == [f"{remote}__{member(entry, 'name')}" for entry in wanted]
        listed, wanted = [without(entry, "name") for entry in ours], [without(entry, "name") for entry in wanted]
    assert [entry for entry in listed if entry in wanted] == wanted


@every_client
@every_remote
def test_an_error_is_what_the_remote_said(gw: Gateway, kind: str, remote: str) -> None:
    with caller(kind, gw) as one:
        (raw,) = one.ask("tools/call", params_for("tools/call", remote, "fail"))
    assert exact_peer.ERROR.encode() in raw


@every_client
@every_remote
def test_arguments_and_vendor_meta_reach_the_remote_as_the_client_wrote_them(
    gw: Gateway, kind: str, remote: str
) -> None:
    params = params_for("tools/call", remote, "mirror") | {"arguments": "RAW", "vendorParam": {"a": [1.5]}}
    with caller(kind, gw) as one:
        (raw,) = one.ask(
            "tools/call", params, exact_peer.ODD, {"vendor.example/x": {"deep": [None, 1.5]}, "baggage": "b"}
        )
    heard = json.loads(raw)["result"]["content"][0]["text"]
    # Some programs end a line at U+2028 too: to them it goes escaped.
    written = one_line_for_any_reader(exact_peer.ODD.encode()).decode() if remote.startswith("io") else exact_peer.ODD
    assert f'"arguments":{written}' in heard.replace('"arguments": ', '"arguments":')
    seen = json.loads(heard)["params"]
    assert seen["name"] == "mirror"
    assert seen["vendorParam"] == {"a": [1.5]}
    assert {name: seen["_meta"][name] for name in ("vendor.example/x", "baggage")} == {
        "vendor.example/x": {"deep": [None, 1.5]},
        "baggage": "b",
    }


@every_client
@every_remote
def test_progress_and_log_messages_are_what_the_remote_told(gw: Gateway, kind: str, remote: str) -> None:
    with caller(kind, gw) as one:
        *told, _ = one.ask("tools/call", params_for("tools/call", remote, "tell"), meta={"progressToken": "\u00e9 1"})
    progress, log = (member(exactly(each), "params") for each in told)
    assert member(progress, "progressToken") == "\u00e9 1"
    assert without(progress, "progressToken") == exactly("{" + exact_peer.PROGRESS + "}")
    assert log == exactly(exact_peer.LOG)
