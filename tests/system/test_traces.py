"""A collector of traces that is ill: no call is lost, slower or held up by it, and what it did not get is counted."""

import time

import pytest

from tests import peers
from tests.component.collector import collecting
from tests.component.real_gateway import odd, prepared, until

QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


@pytest.mark.parametrize("illness", ["refuses", "hangs", "is not there"])
def test_a_collector_that_is_ill_hurts_nothing_and_what_is_lost_is_counted(illness: str) -> None:
    with collecting() as collector:
        collector.status = {"refuses": 400, "hangs": 0, "is not there": 200}[illness]
        url = f"http://127.0.0.1:{peers.free_port()}" if illness == "is not there" else collector.url
        variables = QUICK | {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_MAX_QUEUE_SIZE": "8"}
        variables |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        with prepared({"odd": odd()}, **variables) as gateway:
            gateway.start().healthy("odd")
            for _ in range(30):
                assert gateway.client().modern("tools/call", {"name": "odd__mirrored"}).status == 200

            def lost() -> float:
                page = gateway.client().ask("GET", "/metrics").body.decode()
                told = [line.split() for line in page.splitlines() if line.startswith("mcp_spans_total{")]
                return sum(float(number) for labels, number in told if "sent" not in labels)

            until(lambda: lost() >= 20, "spans are lost")
            began = time.monotonic()
            gateway.term()
            assert gateway.process.wait(20) == 0
            assert time.monotonic() - began < 10
