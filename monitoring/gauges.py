"""What /health says, as gauges on /metrics: the rows that alerts look at, in the words and figures that an operator reads there.

Pure: facts in, metric families out, made anew for each scrape, so nothing has to be kept in step. Series are bounded by the
words of a status and by the remotes that are configured; only for whom names are meant does a series name one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring import health

_PERCENTILES = {"p50": "50", "p95": "95", "p99": "99"}
_MB = 1024 * 1024


class Gauges(Collector):
    """The families of one scrape. `said` is what the workers say, put together; empty until one serves."""

    def __init__(self, facts: health.Facts, said: Mapping[str, Any], *, names: bool, version: str) -> None:
        self._facts = facts
        self._said = said
        self._names = names
        self._version = version

    def collect(self) -> Iterator[Metric]:
        yield _labelled("mcp_build_info", "The version that serves", "version", {self._version: 1.0})
        yield from _words(self._facts)
        yield from _figures(self._facts)
        yield from _state(self._facts, self._said)
        yield from _worker(self._facts)
        if self._names:
            yield from _each_remote(self._facts, self._said.get("mcps") or {})


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
    yield GaugeMetricFamily("mcp_sockets", "Open connections of clients", facts.sockets)
    held = facts.connections_memory_bytes
    yield GaugeMetricFamily("mcp_connections_memory_bytes", "What waits to be read by clients", held)
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


def _state(facts: health.Facts, said: Mapping[str, Any]) -> Iterator[Metric]:
    keys, limits = said.get("keys") or {}, facts.limits
    yield GaugeMetricFamily("mcp_workers", "Workers of this machine that answer", said.get("workers") or 0)
    yield GaugeMetricFamily("mcp_uptime_seconds", "Since the oldest worker started", facts.uptime_s)
    yield GaugeMetricFamily("mcp_errors_per_minute", "Failed requests a minute, over five", facts.errors_per_minute)
    yield GaugeMetricFamily("mcp_memory_limit_bytes", "What a worker may use", limits.max_memory_mb * _MB)
    yield GaugeMetricFamily(
        "mcp_cpu_used_ratio", "CPU of the busiest worker, of a core", facts.process.cpu_percent / 100
    )
    yield GaugeMetricFamily("mcp_open_files", "Open files of the worker that has most", facts.process.open_files)
    yield GaugeMetricFamily("mcp_open_files_limit", "Files that a worker may have open", limits.max_open_files)
    if facts.disk.free_mb is not None:
        yield GaugeMetricFamily("mcp_disk_free_bytes", "Of the data folder's file system", facts.disk.free_mb * _MB)
    yield GaugeMetricFamily(
        "mcp_writes_stopped", "1 while something cannot be written", float(facts.disk.stopped_writes)
    )
    yield GaugeMetricFamily("mcp_config_revision", "The revision that is served", facts.config.revision or 0)
    yield GaugeMetricFamily("mcp_config_pending_errors", "Problems of an edit that waits", len(facts.config.pending))
    yield GaugeMetricFamily("mcp_keys_held", "Keys in memory", keys.get("held") or 0)
    yield GaugeMetricFamily("mcp_keys_remembered", "Keys that need no hashing any more", keys.get("remembered") or 0)
    yield GaugeMetricFamily("mcp_keys_stale", "1 while keys cannot be read anew", float(bool(keys.get("stale"))))
    if facts.clock_synchronised is not None:
        yield GaugeMetricFamily("mcp_clock_synchronised", "1 if the kernel says so", float(facts.clock_synchronised))


def _worker(facts: health.Facts) -> Iterator[Metric]:
    """The dependencies, and the Celery worker among them."""
    ill = health.ill_dependencies(facts)
    asked = {name: float(name not in ill) for name, word in facts.dependencies.items() if word != "unknown"}
    yield _labelled("mcp_dependency_up", "0 for one that is needed and does not answer", "dependency", asked)
    if facts.beat_age_s is not None:
        yield GaugeMetricFamily("mcp_worker_beat_age_seconds", "Since Celery last ran what was due", facts.beat_age_s)
    if facts.tasks is not None:
        tasks = CounterMetricFamily("mcp_worker_tasks", "Tasks that Celery ran since it started", labels=["outcome"])
        for outcome, count in facts.tasks.items():
            tasks.add_metric([outcome], count)
        yield tasks


def _each_remote(facts: health.Facts, said: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    word = GaugeMetricFamily("mcp_remote_status", "The word of each remote", labels=["remote", "status"])
    latency = GaugeMetricFamily("mcp_remote_latency_seconds", "Of the last contact", labels=["remote"])
    tools = GaugeMetricFamily("mcp_remote_tools", "Tools that the remote lists", labels=["remote"])
    for name, status in facts.remotes.items():
        word.add_metric([name, status], 1)
        tools.add_metric([name], (said.get(name) or {}).get("tools") or 0)
        if (milliseconds := (said.get(name) or {}).get("latency_ms")) is not None:
            latency.add_metric([name], milliseconds / 1000)
    yield from (word, latency, tools)


def _labelled(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
