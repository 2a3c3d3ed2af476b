"""OpenTelemetry: what a real gateway tells a real OTLP receiver, and what it passes on to remotes."""

from __future__ import annotations

import http.server
import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests import peers
from tests.component.collector import Collector, collecting
from tests.component.real_gateway import Gateway, odd, prepared

PLANTED = "planted-argument-5e1f"
TOOL = {"name": "shout", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


class Recorder(http.server.BaseHTTPRequestHandler):
    """A remote of 2026-07-28 that keeps what it was sent. `fails` calls are answered with 503 before that."""

    protocol_version = "HTTP/1.1"
    calls: list[tuple[dict[str, str], dict[str, Any]]]
    fails = 0

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, kind = message["method"], type(self)
        result: dict[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        if method == "server/discover":
            result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        elif method == "tools/list":
            result |= {"tools": [TOOL]}
        elif method == "tools/call":
            kind.calls.append(({k.lower(): v for k, v in self.headers.items()}, message["params"]))
            result |= {"content": [{"type": "text", "text": f"said {PLANTED}"}]}
        is_failing = method == "tools/call" and kind.fails > 0
        kind.fails -= is_failing
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        self.send_response(503 if is_failing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def recorder() -> Iterator[type[Recorder]]:
    Recorder.calls = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Recorder.url = f"http://127.0.0.1:{server.server_port}/mcp?key={PLANTED}"  # type: ignore[attr-defined]
    yield Recorder
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(recorder: type[Recorder], collector: Collector) -> Iterator[Gateway]:
    new = {"url": recorder.url, "headers": {"Authorization": f"Bearer {PLANTED}"}}  # type: ignore[attr-defined]
    variables = QUICK | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "gw-under-test"}
    down = {"url": f"http://127.0.0.1:{peers.free_port()}/mcp", "timeout": 2}
    with prepared({"odd": odd(), "new": new, "down": down}, **variables) as gateway:
        yield gateway.start().healthy("odd", "new")


def parent(*, sampled: bool = True) -> tuple[str, str, str]:
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{'01' if sampled else '00'}"


def call(gateway: Gateway, name: str, *, meta: dict[str, Any] | None = None, headers: Any = None) -> Any:
    params = {"name": name, "arguments": {"secret": PLANTED}}
    return gateway.client().modern("tools/call", params, meta=meta, headers=headers)


def test_a_call_is_a_span_with_one_below_it_for_the_remote(
    traced: Gateway, collector: Collector, recorder: type[Recorder]
) -> None:
    trace, span, traceparent = parent()
    meta = {"traceparent": traceparent, "tracestate": "vendor=1", "baggage": "who=me"}
    assert call(traced, "new__shout", meta=meta).status == 200
    served, sent = collector.of(trace, 2)
    assert (served.name, served.kind, served.parent, served.state) == (
        "tools/call new__shout",
        "server",
        span,
        "vendor=1",
    )
    assert (sent.name, sent.kind, sent.parent) == ("tools/call shout", "client", served.id)
    assert [served.is_error, sent.is_error] == [False, False]
    assert served.ms >= sent.ms > 0
    assert served.resource["service.name"] == "gw-under-test"
    assert served.attributes | {"mcp.gateway.key": 0, "mcp.gateway.request": 0} == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2026-07-28",
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "jsonrpc.request.id": "1",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "new__shout",
        "mcp.gateway.transport": "http",
        "mcp.gateway.outcome": "ok",
        "mcp.gateway.remote": "new",
        "mcp.gateway.key": 0,
        "mcp.gateway.request": 0,
    }
    assert {name: sent.attributes[name] for name in ("gen_ai.tool.name", "mcp.gateway.attempt", "server.address")} == {
        "gen_ai.tool.name": "shout",
        "mcp.gateway.attempt": 1,
        "server.address": "127.0.0.1",
    }
    headers, params = recorder.calls[-1]
    ours = f"00-{trace}-{sent.id}-01"
    assert (params["_meta"]["traceparent"], headers["traceparent"]) == (ours, ours)
    assert (params["_meta"]["tracestate"], headers["tracestate"]) == ("vendor=1", "vendor=1")
    assert params["_meta"]["baggage"] == "who=me"


def test_the_context_of_an_http_header_is_continued_and_the_message_goes_before_it(
    traced: Gateway, collector: Collector
) -> None:
    trace, span, traceparent = parent()
    call(traced, "new__shout", headers={"traceparent": traceparent})
    assert collector.of(trace, 2)[0].parent == span
    inner, inner_span, said = parent()
    call(traced, "new__shout", meta={"traceparent": said}, headers={"traceparent": traceparent})
    served, _ = collector.of(inner, 2)
    assert (served.parent, served.links) == (inner_span, [span])


def test_a_program_gets_the_context_in_its_message(traced: Gateway, collector: Collector) -> None:
    trace, _, traceparent = parent()
    reply = call(traced, "odd__mirrored", meta={"traceparent": traceparent})
    _, sent = collector.of(trace, 2)
    told = json.loads(reply.result["content"][0]["text"])
    assert told["_meta"]["traceparent"] == f"00-{trace}-{sent.id}-01"
    assert (sent.attributes["network.transport"], sent.attributes["mcp.protocol.version"]) == ("pipe", "2025-11-25")


def test_every_attempt_has_its_span_and_failures_say_of_which_kind(traced: Gateway, collector: Collector) -> None:
    trace, _, traceparent = parent()
    assert call(traced, "down__x", meta={"traceparent": traceparent}).status in (200, 400)
    assert collector.of(trace, 1)[0].is_error
    trace, _, traceparent = parent()
    Recorder.fails = 1
    call(traced, "new__shout", meta={"traceparent": traceparent})
    served, sent = collector.of(trace, 2)
    assert (served.is_error, served.attributes["error.type"]) == (True, "failed")
    assert (sent.is_error, sent.attributes["error.type"], sent.words) == (True, "http_status", "")


def test_a_name_that_nobody_has_makes_no_name_of_a_span(traced: Gateway, collector: Collector) -> None:
    trace, _, traceparent = parent()
    call(traced, f"who__{PLANTED}", meta={"traceparent": traceparent})
    (served,) = collector.of(trace, 1)
    assert (served.name, served.attributes["rpc.response.status_code"]) == ("tools/call", "-32602")
    assert "gen_ai.tool.name" not in served.attributes


def test_a_broken_context_begins_a_trace_of_its_own_and_travels_no_further(
    traced: Gateway, collector: Collector, recorder: type[Recorder]
) -> None:
    for broken in ("00-zz-1-01", "", 7, None, ["00"], "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 9000):
        before = len(recorder.calls)
        assert call(traced, "new__shout", meta={"traceparent": broken, "tracestate": "a=1"}).status == 200
        meta = recorder.calls[before][1]["_meta"]
        assert len(meta["traceparent"]) == 55
        assert "tracestate" not in meta
        assert collector.of(meta["traceparent"][3:35], 2)[0].parent == ""


def test_who_wants_no_trace_is_not_traced_and_his_wish_travels_on(
    traced: Gateway, collector: Collector, recorder: type[Recorder]
) -> None:
    trace, _, traceparent = parent(sampled=False)
    call(traced, "new__shout", meta={"traceparent": traceparent})
    told = recorder.calls[-1][1]["_meta"]["traceparent"]
    assert told.startswith(f"00-{trace}-")
    assert told.endswith("-00")
    other, _, sampled = parent()
    call(traced, "new__shout", meta={"traceparent": sampled})
    collector.of(other, 2)
    assert [one for one in collector.spans if one.trace == trace] == []


def test_sessions_and_lists_are_traced_too(traced: Gateway, collector: Collector) -> None:
    trace, span, traceparent = parent()
    session = traced.client().session()
    session.call("tools/list", {"_meta": {"traceparent": traceparent}})
    (listed,) = collector.of(trace, 1)
    assert (listed.name, listed.parent, listed.attributes["mcp.protocol.version"]) == ("tools/list", span, "2025-11-25")
    trace, _, traceparent = parent()
    session.call("tools/call", {"name": "new__shout", "_meta": {"traceparent": traceparent}})
    assert [one.name for one in collector.of(trace, 2)] == ["tools/call new__shout", "tools/call shout"]


def test_no_argument_result_or_credential_is_in_any_span(traced: Gateway, collector: Collector) -> None:
    trace, _, traceparent = parent()
    call(traced, "new__shout", meta={"traceparent": traceparent})
    collector.of(trace, 2)
    whole = b"".join(collector.bodies)
    assert len(whole) > 1000
    for secret in (PLANTED, traced.keys["main"], *traced.keys["main"].split("_")[-1:]):
        assert secret.encode() not in whole


def test_without_an_endpoint_nothing_of_opentelemetry_is_there_and_the_context_passes_untouched(
    recorder: type[Recorder],
) -> None:
    new = {"url": recorder.url}  # type: ignore[attr-defined]
    with prepared({"new": new}, OTEL_SERVICE_NAME="x", PYTHONVERBOSE="1") as gateway:
        gateway.start().healthy("new")
        _, _, traceparent = parent()
        call(gateway, "new__shout", meta={"traceparent": traceparent, "tracestate": "a=1"})
        headers, params = recorder.calls[-1]
        assert (params["_meta"]["traceparent"], params["_meta"]["tracestate"]) == (traceparent, "a=1")
        assert "traceparent" not in headers
        imported = (gateway.folder / "output").read_text()
        assert "import 'gateway.attempts'" in imported
        assert "import 'opentelemetry" not in imported
        assert "import 'redis" not in imported, "what nobody asked for takes memory too"
