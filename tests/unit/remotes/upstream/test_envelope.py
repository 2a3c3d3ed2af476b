"""A request in the words of each era, and what of a remote's talk is handed on."""

import json
from typing import Any

import pytest
from msgspec import Raw

import mcpserver
from remotes.upstream import envelope
from remotes.upstream.envelope import Exchange

OURS = {"name": "MCP-Server", "version": mcpserver.__version__}
PREFIX = "io.modelcontextprotocol/"


def exchange(method: str = "tools/call", **changed) -> Exchange:
    params = changed.pop("params", {"name": Raw(b'"echo"'), "arguments": Raw(b'{"n": 12345678901234567890}')})
    return Exchange(method, params, deadline=0, **changed)


def sent(one: Exchange, number: int = 7, *, modern: bool) -> Any:
    return json.loads(envelope.message(one, number, modern=modern))


def test_a_handshake_request_carries_nothing_that_was_not_asked_for():
    assert sent(exchange(), modern=False) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "echo", "arguments": {"n": 12345678901234567890}},
    }


def test_a_modern_request_says_version_capabilities_and_who_asks():
    one = exchange(capabilities=Raw(b'{"elicitation":{}}'), client_info=Raw(b'{"name":"c"}'), log_level="info")
    assert sent(one, modern=True)["params"]["_meta"] == {
        PREFIX + "protocolVersion": "2026-07-28",
        PREFIX + "clientCapabilities": {"elicitation": {}},
        PREFIX + "clientInfo": {"name": "c"},
        PREFIX + "logLevel": "info",
    }


def test_a_modern_request_for_nobody_in_particular_is_ours():
    assert sent(exchange(), modern=True)["params"]["_meta"] == {
        PREFIX + "protocolVersion": "2026-07-28",
        PREFIX + "clientCapabilities": {},
        PREFIX + "clientInfo": OURS,
    }


@pytest.mark.parametrize("modern", [True, False])
def test_the_progress_token_is_our_number_and_never_the_callers(modern):
    meta = sent(exchange(progress_token=Raw(b'"theirs"')), 42, modern=modern)["params"]["_meta"]
    assert meta["progressToken"] == 42


@pytest.mark.parametrize("modern", [True, False])
def test_vendor_and_trace_keys_travel_on(modern):
    one = exchange(meta={"traceparent": Raw(b'"00-a-b-01"'), "com.example/x": Raw(b"[1]")})
    meta = sent(one, modern=modern)["params"]["_meta"]
    assert (meta["traceparent"], meta["com.example/x"]) == ("00-a-b-01", [1])


def test_what_the_caller_put_in_meta_cannot_speak_for_us():
    one = exchange(meta={PREFIX + "protocolVersion": Raw(b'"1999"'), PREFIX + "clientCapabilities": Raw(b'{"all":1}')})
    meta = sent(one, modern=True)["params"]["_meta"]
    assert (meta[PREFIX + "protocolVersion"], meta[PREFIX + "clientCapabilities"]) == ("2026-07-28", {})


def test_payloads_are_copied_byte_for_byte():
    raw = b'{"a": 1.0e2,  "b":"\\u00e9", "a": 2}'
    assert raw in envelope.message(exchange(params={"arguments": Raw(raw)}), 1, modern=True)


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("tools/call", {"name": Raw(b'"echo"')}, "echo"),
        ("prompts/get", {"name": Raw(b'"greet"')}, "greet"),
        ("resources/read", {"uri": Raw(b'"file:///a"')}, "file:///a"),
        ("tools/call", {"name": Raw('"é\\n"'.encode())}, "=?base64?w6kK?="),
        ("tools/call", {"name": Raw(b'"=?base64?YQ==?="')}, "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
    ],
)
def test_routing_headers_mirror_the_request(method, params, name):
    assert envelope.routing_headers(exchange(method, params=params)) == {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
        "Mcp-Name": name,
    }


@pytest.mark.parametrize("method", ["tools/list", "server/discover", "completion/complete"])
def test_a_method_that_names_nothing_has_no_name_header(method):
    assert envelope.routing_headers(exchange(method, params={})) == {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
    }


def heard(method: str, raw: bytes | None, **changed) -> list[tuple[str, bytes | None]]:
    told: list[tuple[str, bytes | None]] = []
    envelope.hand_on(exchange(notify=lambda *one: told.append(one), **changed), method, raw)
    return told


def test_progress_is_handed_on_under_the_callers_token_with_all_it_says():
    raw = b'{"progressToken":7,"progress":0.5,"message":"half","x":1}'
    ((method, said),) = heard("notifications/progress", raw, progress_token=Raw(b'"mine"'))
    assert method == "notifications/progress"
    assert json.loads(said or b"") == {"progressToken": "mine", "progress": 0.5, "message": "half", "x": 1}


def test_progress_nobody_asked_for_is_handed_to_nobody():
    assert heard("notifications/progress", b'{"progressToken":7}') == []


def test_a_log_message_is_handed_on_as_it_came():
    assert heard("notifications/message", b'{"level":"info"}') == [("notifications/message", b'{"level":"info"}')]


def test_a_caller_that_does_not_listen_is_told_nothing():
    envelope.hand_on(exchange(progress_token=Raw(b"1")), "notifications/progress", b'{"progressToken":7}')


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b'{"progressToken":7}', 7),
        (b'{"progressToken":"7"}', None),
        (b'{"progressToken":7.0}', None),
        (b'{"progressToken":null}', None),
        (b'{"progressToken":' + b"9" * 5000 + b"}", None),
        (b"{}", None),
        (b"[7]", None),
        (None, None),
    ],
)
def test_the_request_that_progress_speaks_of(raw, number):
    assert envelope.progress_number(raw) == number
