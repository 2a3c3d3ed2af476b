"""What /health says, as gauges on /metrics: the rows that alerts look at, in the words and figures that an operator reads there.

Pure: facts in, metric families out, made anew for each scrape, so nothing has to be kept in step. Series are bounded by the
words of a status and by the remotes that are configured; only for whom names are meant does a series name one.
"""

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring import health

_PERCENTILES = {"p50": "50", "p95": "95", "p99": "99"}
_MB = 1024 * 1024


class Gauges(Collector):
    """The families of one scrape."""

    def __init__(self, facts: health.Facts, *, names: bool) -> None:
        self._facts = facts
        self._names = names

    def collect(self) -> Iterator[Metric]:
        yield from _words(self._facts)
        yield from _figures(self._facts)
        if self._names:
            yield _each_remote(self._facts)


def _words(facts: health.Facts) -> Iterator[Metric]:
    status = GaugeMetricFamily(
        "mcp_health", "The gateway's word in /health: 1 for the one that holds", labels=["status"]
    )
    holds = health.judge(facts)
    for word in get_args(health.Status):
        status.add_metric([word], float(word == holds))
    yield status
    remotes = GaugeMetricFamily("mcp_remotes", "Remotes by their word in /health", labels=["status"])
    for word, count in sorted(Counter(facts.remotes.values()).items()):
        remotes.add_metric([word], count)
    yield remotes
    warned = GaugeMetricFamily("mcp_warnings", "What /health warns of: 1 for each code that it shows", labels=["code"])
    for one in health.warnings(facts):
        warned.add_metric([one.code], 1)
    yield warned


def _figures(facts: health.Facts) -> Iterator[Metric]:
    yield GaugeMetricFamily("mcp_connections", "Open event streams", facts.connections)
    limit = facts.limits.max_total_connections
    yield GaugeMetricFamily("mcp_connections_limit", "Open event streams that are allowed at once", limit)
    yield GaugeMetricFamily("mcp_requests_in_flight", "Requests that are being served", facts.in_flight)
    memory = facts.process.rss_mb / facts.limits.max_memory_mb
    yield GaugeMetricFamily("mcp_memory_used_ratio", "Memory of the worker, of what it may use", memory)
    yield GaugeMetricFamily("mcp_memory_used_bytes", "Memory of the worker", facts.process.rss_mb * _MB)
    if facts.disk.percent is not None:
        disk = facts.disk.percent / 100
        yield GaugeMetricFamily("mcp_disk_used_ratio", "Use of the file system of the data folder", disk)
    # Not `quantile`: that label is a summary's, and Prometheus' own check says so.
    latency = GaugeMetricFamily(
        "mcp_latency_seconds", "Time of requests over the last five minutes", labels=["percentile"]
    )
    for name, percentile in _PERCENTILES.items():
        if (milliseconds := facts.latency_ms.get(name)) is not None:
            latency.add_metric([percentile], milliseconds / 1000)
    yield latency


def _each_remote(facts: health.Facts) -> Metric:
    family = GaugeMetricFamily("mcp_remote_status", "The word of each remote", labels=["remote", "status"])
    for name, word in facts.remotes.items():
        family.add_metric([name, word], 1)
    return family
