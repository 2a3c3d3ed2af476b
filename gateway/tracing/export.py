"""How spans leave: from a bounded queue, in batches, by a thread of its own, as OTLP over HTTP.

A collector that is away costs no request anything: what does not fit into the queue is dropped, what the collector does not
take is given up, and both are counted (`mcp_spans_total`). The log says it when that begins and when it is over, not for each
batch.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from gateway import metrics

log = logging.getLogger("mcp.tracing")

# As many spans wait at most, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise.
_QUEUE_MAX = 2048
# The last spans of a process that ends may take this long; a collector that hangs holds nobody up.
_GOODBYE_S = 2.0


class Delivery(SpanExporter):
    """An exporter, counted; `handed` is how many spans the queue has given it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_away = False
        self.handed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.handed += len(spans)
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        metrics.SPANS.labels("failed" if is_away else "sent").inc(len(spans))
        if is_away != self._is_away:
            self._is_away = is_away
            log.warning("the collector takes no spans") if is_away else log.info("the collector takes spans again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class Counted(BatchSpanProcessor):
    """The queue. A full one drops its oldest span for each new one, which is what is counted here."""

    def __init__(self, delivery: Delivery, most: int) -> None:
        super().__init__(delivery, max_queue_size=most)
        self._delivery = delivery
        self._most = most
        self._taken = 0
        self.dropped = 0

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._taken - self._delivery.handed - self.dropped >= self._most:
            self.dropped += 1
            metrics.SPANS.labels("dropped").inc()
        self._taken += 1
        super().on_end(span)

    async def close(self) -> None:
        """Send what is left, if that goes quickly."""
        ending = threading.Thread(target=self.shutdown, name="last-spans", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _GOODBYE_S)


def exporting(environment: Mapping[str, str]) -> Counted:
    """To where the environment says; raises ValueError for numbers in it that make no sense."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # said here, once, and counted
    return Counted(Delivery(OTLPSpanExporter()), int(environment.get("OTEL_BSP_MAX_QUEUE_SIZE") or _QUEUE_MAX))
