"""Spans of OpenTelemetry: one for each request that is served, one for each attempt at a remote. Imported where traces are on.

The caller's context is continued (its `_meta`, else the header of its HTTP request), and the remote's is ours: `traceparent`
and `tracestate` of `_meta`, and headers where the remote is reached over HTTP. Baggage passes as it came. Names and attributes
are those of the semantic conventions for MCP. Arguments, results, addresses of resources, session ids and a remote's words are
in no span.

Sources: specification 2026-07-28, basic/index "OpenTelemetry trace context"; W3C Trace Context; OpenTelemetry, gen-ai/mcp.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Raw
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import mcpserver
from gateway.calls import Visit
from gateway.record import Verdict
from gateway.tracing.export import Counted, exporting
from mcpserver.protocol import inbound, jsonrpc
from mcpserver.protocol.inbound import Call
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Failure, Outcome, Refusal

# Names come from remotes, ids from clients: neither their length is ours.
_TEXT_MAX = 128
_W3C = ("traceparent", "tracestate")
_TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
_ERROR = Status(StatusCode.ERROR)
_propagator = TraceContextTextMapPropagator()

Attributes = dict[str, str | int]


class Tracing:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.processor: Counted = exporting(environment)
        # Its own hook at exit would wait half a minute for a collector that is away: `close` ends it.
        self._provider = TracerProvider(resource=_resource(environment), shutdown_on_exit=False)
        self._provider.add_span_processor(self.processor)
        self._tracer = self._provider.get_tracer("mcp-server", mcpserver.__version__)

    def request(self, call: Call, headers: inbound.Headers) -> "Traced":
        """The span of a request that begins now; it is the parent of what the same task does until `end`."""
        parent, links = _caller(call, headers)
        span = self._tracer.start_span(call.method, parent, SpanKind.SERVER, links=links)
        return Traced(span)

    async def attempt(self, upstream: Upstream, exchange: Exchange, tool: str, number: int) -> Outcome:
        """Send a request to a remote inside a span of its own, which the remote is told as its parent."""
        attributes = _attempted(upstream, exchange.method, tool, number)
        span = self._tracer.start_span(
            _name(exchange.method, tool if exchange.method in _TARGETS else ""),
            kind=SpanKind.CLIENT,
            attributes=attributes,
        )
        _hand_on(span, exchange)
        began, started = time.monotonic_ns(), _started(span)
        try:
            outcome = await upstream.exchange(exchange)
        except asyncio.CancelledError:
            _fail(span, "cancelled")
            raise
        except BaseException:
            _fail(span, "_OTHER")
            raise
        else:
            _tell(span, upstream, outcome)
            return outcome
        finally:
            # Its length is measured, not read off two clocks: the wall clock may be set in between.
            span.end(started + time.monotonic_ns() - began)

    async def close(self) -> None:
        await self.processor.close()


class Traced:
    """The span of one request."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._began, self._started = time.monotonic_ns(), _started(span)
        self._token = context.attach(trace.set_span_in_context(span))

    def end(self, visit: Visit, transport: str, verdict: Verdict, code: int, request: str) -> None:
        """`request`: its id in the log."""
        context.detach(self._token)
        span = self._span
        if span.is_recording():
            # What nobody has is only a stranger's word: it makes no name of a span.
            target = visit.name if visit.remote else ""
            span.update_name(_name(visit.call.method, target if visit.call.method in _TARGETS else ""))
            span.set_attributes(_served(visit, transport, verdict, code, request, target))
            if verdict in (Verdict.TOOL_ERROR, Verdict.FAILED, Verdict.CANCELLED) or code:
                _fail(span, _kind(verdict, code))
        span.end(self._started + time.monotonic_ns() - self._began)


def _served(
    visit: Visit, transport: str, verdict: Verdict, code: int, request: str, target: str
) -> Mapping[str, str | int]:
    call = visit.call
    told: Attributes = {
        "mcp.method.name": call.method,
        "mcp.protocol.version": call.revision,
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "jsonrpc.request.id": _id(call.id),
        "mcp.gateway.transport": transport,
        "mcp.gateway.outcome": verdict.value,
        "mcp.gateway.key": visit.principal.key_id,
        "mcp.gateway.request": request,
    }
    if visit.remote:
        told["mcp.gateway.remote"] = visit.remote
    if code:
        told["rpc.response.status_code"] = str(code)
    if target and call.method in _TARGETS:
        told[_TARGETS[call.method]] = target[:_TEXT_MAX]
    if call.method == "tools/call":
        told["gen_ai.operation.name"] = "execute_tool"
    return told


def _attempted(upstream: Upstream, method: str, tool: str, number: int) -> Attributes:
    spec, greeting = upstream.spec, upstream.greeting
    told: Attributes = {
        "mcp.method.name": method,
        "mcp.gateway.remote": spec.name,
        "mcp.gateway.attempt": number,
        "network.transport": "pipe" if spec.transport == "stdio" else "tcp",
    }
    if greeting is not None:
        told["mcp.protocol.version"] = greeting.revision
    if method in _TARGETS:
        told[_TARGETS[method]] = tool[:_TEXT_MAX]
    if method == "tools/call":
        told["gen_ai.operation.name"] = "execute_tool"
    return told | _place(spec)


def _place(spec: RemoteSpec) -> Attributes:
    """Host and port alone: the rest of an address may hold a credential."""
    if not spec.url:
        return {}
    parts = urlsplit(spec.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"network.protocol.name": "http", "server.address": parts.hostname or "", "server.port": port}


def _tell(span: Span, upstream: Upstream, outcome: Outcome) -> None:
    if not span.is_recording():
        return
    if upstream.greeting is not None:  # of the first request of all, known only now
        span.set_attribute("mcp.protocol.version", upstream.greeting.revision)
    match outcome:
        case Refusal():
            code = str(jsonrpc.error_body(outcome.error).code)
            span.set_attribute("rpc.response.status_code", code)
            _fail(span, code)
        case Failure():
            _fail(span, outcome.fault.value)


def _fail(span: Span, kind: str) -> None:
    """Without words: a remote's may quote what it was sent."""
    span.set_attribute("error.type", kind)
    span.set_status(_ERROR)


def _kind(verdict: Verdict, code: int) -> str:
    return str(code) if code else verdict.value


def _name(method: str, target: str) -> str:
    return f"{method} {target[:_TEXT_MAX]}" if target else method


def _id(raw: bytes) -> str:
    return (jsonrpc.text(raw) or raw.decode("utf-8", "replace"))[:_TEXT_MAX]


def _started(span: Span) -> int:
    return getattr(span, "start_time", None) or 0


def _caller(call: Call, headers: inbound.Headers) -> tuple[context.Context, list[Link]]:
    """Whose part this request is: what the message says goes before what its envelope does, which is then linked."""
    envelope = _extracted({name: headers[name.encode()].decode("latin-1") for name in _W3C if name.encode() in headers})
    message = _extracted({name: text for name in _W3C if (text := jsonrpc.text(call.meta.get(name)))})
    if message is None:
        return envelope or context.Context(), []
    other = trace.get_current_span(envelope).get_span_context() if envelope is not None else None
    same = trace.get_current_span(message).get_span_context()
    return message, [Link(other)] if other is not None and other != same else []


def _extracted(carrier: dict[str, str]) -> context.Context | None:
    if _W3C[0] not in carrier:
        return None
    found = _propagator.extract(carrier, context.Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _hand_on(span: Span, exchange: Exchange) -> None:
    """The attempt's context in place of the caller's, for messages and for HTTP."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    others = {name: raw for name, raw in exchange.meta.items() if name not in _W3C}
    exchange.meta = others | {name: Raw(jsonrpc.encode(text)) for name, text in carrier.items()}
    exchange.trace_headers = carrier


def _resource(environment: Mapping[str, str]) -> Resource:
    """Who sends the spans; what the environment says wins."""
    told: dict[str, Any] = {
        "service.version": mcpserver.__version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    given = {pair.partition("=")[0].strip() for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")}
    if not environment.get("OTEL_SERVICE_NAME") and "service.name" not in given:
        told["service.name"] = "mcp-server"
    return Resource.create({name: value for name, value in told.items() if name not in given})
