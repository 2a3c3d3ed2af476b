"""One line in the log for each request, whatever became of it, under the id that its client was given."""

import contextlib
import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.component.real_gateway import Client, Gateway, Reply, initialize, message, until

pytestmark = pytest.mark.edge(11)

ECHO = {"name": "demo__echo", "arguments": {"text": "hi"}}
JSON = ("Content-Type", "application/json")


def lines(gateway: Gateway, request: str, *, count: int = 1) -> list[dict[str, Any]]:
    """What the log has about a request, of whichever worker, once there are so many lines."""

    def found() -> list[dict[str, Any]]:
        content = b"".join(path.read_bytes() for path in gateway.folder.rglob("combined.log"))
        return [json.loads(line) for line in content.splitlines() if request.encode() in line]

    until(lambda: len(found()) >= count, f"{count} lines about {request}")
    return found()


def line(gateway: Gateway, reply: Reply) -> dict[str, Any]:
    (only,) = lines(gateway, reply.headers["x-request-id"])
    return only


def matching(gateway: Gateway, **wanted: Any) -> dict[str, Any]:
    """The line with these fields, of a request whose answer nobody got."""

    def found() -> dict[str, Any] | None:
        content = b"".join(path.read_bytes() for path in gateway.folder.rglob("combined.log"))
        every = (json.loads(one) for one in content.splitlines() if b"mcp.access" in one)
        return next((one for one in every if all(one.get(name) == value for name, value in wanted.items())), None)

    one: dict[str, Any] = until(found, f"a line with {wanted}")
    return one


def called(gateway: Gateway, transport: str) -> tuple[str, str]:
    """A call over one transport: the id that its client was given, and its revision."""
    client = gateway.client()
    if transport == "stateless":
        return client.modern("tools/call", ECHO).headers["x-request-id"], "2026-07-28"
    if transport == "session":
        return client.session().call("tools/call", ECHO).headers["x-request-id"], "2025-11-25"
    with client.relay() as relay:
        reply = relay.opened().post(message("tools/call", ECHO, id=3))
        assert relay.stream.answer(3)["result"]
        return reply.headers["x-request-id"], "2024-11-05"


@pytest.mark.parametrize("transport", ["stateless", "session", "sse"])
def test_a_call_is_told_of_once_with_all_that_an_operator_asks_for(gateway: Gateway, transport: str) -> None:
    request, era = called(gateway, transport)
    (only,) = lines(gateway, request)
    assert only.pop("time").endswith("Z")
    assert 0 < only.pop("ms") < 20_000
    assert only.pop("pid") > 1
    assert only == {
        "level": "INFO",
        "logger": "mcp.access",
        "message": "call",
        "process": "gateway",
        "request": request,
        "method": "tools/call",
        "key": gateway.keys["main"].split("_")[1],
        "remote": "demo",
        "name": "demo__echo",
        "era": era,
        "transport": "sse" if transport == "sse" else "http",
        "outcome": "ok",
        "code": 0,
        "source": "127.0.0.1",
    }


def unauthorized(client: Client) -> Reply:
    return client.ask("POST", "/mcp", message("ping", id=1), [("Authorization", "Bearer mcp_wrong"), JSON])


REFUSED: dict[str, tuple[Callable[[Client], Reply], int, str]] = {
    "no key": (unauthorized, 401, ""),
    "host": (lambda c: c.ask("POST", "/mcp", b"{}", c.basics(), host="evil.example"), 421, ""),
    "origin": (lambda c: c.ask("POST", "/mcp", b"{}", [*c.basics(), ("Origin", "http://evil.example")]), 403, ""),
    "method": (lambda c: c.ask("PUT", "/mcp", None, c.basics()), 405, ""),
    "type": (lambda c: c.ask("POST", "/mcp", b"{}", [c.bearer, ("Content-Type", "text/plain")]), 415, "main"),
    "no json": (lambda c: c.ask("POST", "/mcp", b"{nonsense", c.basics()), 400, "main"),
    "session": (lambda c: c.ask("POST", "/mcp", message("ping", id=1), [*c.basics(), ("Mcp-Session-Id", "x")]), 404, "main"),
    "too large": (lambda c: c.ask("POST", "/mcp", b"x" * 1_100_000, c.basics()), 413, ""),
    "head": (lambda c: c.ask("GET", "/mcp", None, [c.bearer, ("X-Long", "x" * 40_000)]), 431, ""),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_request_is_told_of_with_its_reason(gateway: Gateway, why: str) -> None:
    ask, status, key = REFUSED[why]
    reply = ask(gateway.client())
    told = line(gateway, reply)
    assert (reply.status, told["status"], told["outcome"], told["source"]) == (status, status, "refused", "127.0.0.1")
    assert told["key"] == (gateway.keys[key].split("_")[1] if key else "")
    assert told["why"]


def test_a_call_too_many_is_told_of_by_its_tool(tight: Gateway) -> None:
    client = tight.client("counted")
    ask = partial(client.modern, "tools/call", {"name": "odd__mirrored"})
    refused = until(lambda: reply if (reply := ask()).status == 429 else None, "a minute's calls are made")
    told = line(tight, refused)
    assert (told["outcome"], told["name"], told["method"]) == ("refused", "odd__mirrored", "tools/call")


def test_what_is_no_call_is_told_of_by_its_method(gateway: Gateway) -> None:
    client = gateway.client()
    greeted = client.ask("POST", "/mcp", initialize("2025-11-25"), client.basics())
    session = client.session()
    asked = [
        greeted,
        session.tell("notifications/roots/list_changed"),
        session.call("nonsense/method"),
        session.delete(),
    ]
    told = [line(gateway, reply) for reply in asked]
    assert [(one["method"], one["outcome"], one["code"]) for one in told] == [
        ("initialize", "ok", 0),
        ("notifications/roots/list_changed", "ok", 0),
        ("nonsense/method", "refused", -32601),
        ("DELETE /mcp", "ok", 0),
    ]


def test_each_call_of_a_batch_is_told_of_under_the_id_of_its_request(gateway: Gateway) -> None:
    session = gateway.client().session("2025-03-26")
    batch = b"[" + message("tools/call", ECHO, id=1) + b"," + message("ping", id=2) + b"]"
    reply = session.client.ask("POST", "/mcp", batch, session.headers)
    told = lines(gateway, reply.headers["x-request-id"], count=2)
    assert sorted(one["method"] for one in told) == ["ping", "tools/call"]


@pytest.mark.parametrize("kind", ["session", "sse", "listen"])
def test_a_stream_is_told_of_when_it_opens_and_with_its_duration_when_it_ends(gateway: Gateway, kind: str) -> None:
    client = gateway.client()
    if kind == "session":
        stream, method = client.session().stream(), "GET /mcp"
    elif kind == "sse":
        stream, method = client.relay().stream, "GET /sse"
    else:
        asked = {"notifications": {"toolsListChanged": True}}
        stream, method = client.modern_stream("subscriptions/listen", asked), "subscriptions/listen"
    request = stream.headers["x-request-id"]
    (opened,) = lines(gateway, request)
    stream.close()
    opened, closed = lines(gateway, request, count=2)
    assert (opened["method"], opened["outcome"], opened["status"]) == (method, "opened", 200)
    assert (closed["method"], closed["outcome"], closed["client"]) == (method, "closed", "gone")
    assert closed["ms"] > opened["ms"]


def test_a_cancelled_call_and_one_whose_client_left_are_told_apart(gateway: Gateway) -> None:
    tags = [uuid.uuid4().hex for _ in range(2)]
    cancelled, left = ({"name": "odd__wait", "arguments": {"tag": tag}} for tag in tags)
    client = gateway.client("other")
    session = client.session()
    connection = session.begin("tools/call", cancelled, id=7)
    until(lambda: gateway.journal_of(tags[0]), "started")
    session.tell("notifications/cancelled", {"requestId": 7})
    request = connection.getresponse().headers["x-request-id"]
    connection.close()
    (told,) = lines(gateway, request)
    assert (told["outcome"], told["name"], told.get("client")) == ("cancelled", "odd__wait", None)
    with contextlib.closing(client.post_only("POST", "/mcp", *client.modern_request("tools/call", left))):
        until(lambda: gateway.journal_of(tags[1]), "started")
    gone = matching(gateway, name="odd__wait", client="gone", key=gateway.keys["other"].split("_")[1])
    assert (gone["outcome"], gone["era"]) == ("cancelled", "2026-07-28")


def test_the_record_finds_a_call_by_the_id_that_its_client_got(gateway: Gateway) -> None:
    request, _ = called(gateway, "session")
    (call,) = until(lambda: gateway.command("mcp", "calls", "--request", request)["calls"], "it is recorded")
    (told,) = lines(gateway, request)
    same = ("time", "request", "key", "source", "remote", "name", "era", "transport", "outcome", "code", "ms")
    assert {name: call[name] for name in same} == {name: told[name] for name in same}
    assert (call["key_name"], call["kind"], "arguments" in call) == ("main", "tool", False)
    assert call["answer_bytes"] > 50
