"""A collector of traces: takes OTLP over HTTP as a real one does, and decodes the protobuf with its own definitions."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.component.real_gateway import until

KINDS = {2: "server", 3: "client"}


@dataclass
class Seen:
    """One span, as it came."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    links: list[str]
    attributes: dict[str, Any]
    is_error: bool
    words: str
    ms: float
    resource: dict[str, Any]


class Collector:
    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self.is_gone = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def of(self, trace: str, count: int) -> list[Seen]:
        """The spans of a trace once there are so many; servers' before clients'."""

        def found() -> list[Seen]:
            return [span for span in self.spans if span.trace == trace]

        until(lambda: len(found()) >= count, f"{count} spans of {trace}")
        return sorted(found(), key=lambda span: (span.kind != "server", span.attributes.get("mcp.gateway.attempt", 0)))

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for each in request.resource_spans:
            resource = _values(each.resource.attributes)
            for scope in each.scope_spans:
                self.spans += [_seen(span, resource) for span in scope.spans]

    def close(self) -> None:
        self.is_gone.set()
        self._server.shutdown()
        self._server.server_close()


def _seen(span: Any, resource: dict[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        links=[link.span_id.hex() for link in span.links],
        attributes=_values(span.attributes),
        is_error=span.status.code == 2,
        words=span.status.message,
        ms=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
        resource=resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _handler(collector: Collector) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.status == 0:  # it took the request, and says nothing
                collector.is_gone.wait(60)
                return
            if collector.status == 200:
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_words: Any) -> None:
            """Quiet."""

    return Handler


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()
