"""The page of /metrics: what every worker counts, as if one process had served all.

Counters and histograms are summed, and what workers had counted that are gone, or do not answer, is added by the supervisor
(`mcpserver.supervisor.ledger`): a sum that fell would look like a restart, and all of it like news. Gauges are summed where
they count things, else the highest stands. What is true of the gateway as a whole comes from `gauges`. Merging is pure.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from gateway import metrics
from mcpserver.lib import control
from mcpserver.lib.errors import GatewayError
from monitoring import siblings

SUPERVISOR_S = 1.0
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

# Name, kind, words, samples of (name, labels, value): how families travel between workers.
Family = list[Any]

_COUNTING = frozenset({"counter", "histogram", "summary"})
_SUMMED_GAUGES = frozenset({"mcp_open_streams"})
# django-prometheus has series for a request cycle and models that this project's pages do not pass through.
_EMPTY_PREFIXES = ("django_http_", "django_model_", "django_db_", "django_cache_")
_NAMING_LABELS = frozenset({"remote", "mcp", "tool", "key"})


def page(run_dir: Path, more: Iterable[Metric], *, names: bool) -> bytes:
    """Prometheus text. Without `names`, without the series that name remotes; GatewayError when sums cannot be told."""
    workers = _workers(run_dir)
    summed = merged(workers.values(), _counted_elsewhere(run_dir, workers))
    return prometheus_client.generate_latest(_Shown([*summed, *more], names=names))


def merged(workers: Iterable[Sequence[Family]], elsewhere: Mapping[str, float]) -> list[Metric]:
    """One family for each name. `elsewhere`: what is to be added to counters, by the names of `counts`."""
    found: dict[str, Metric] = {}
    values: dict[str, dict[str, float]] = {}
    for families in workers:
        for name, kind, words, samples in families:
            found.setdefault(name, Metric(name, words, kind))
            _join(values.setdefault(name, {}), name, kind, samples)
    for key, value in elsewhere.items():
        family = json.loads(key)[0]
        if family in values:
            values[family][key] = values[family].get(key, 0.0) + value
    for name, metric in found.items():
        for key, value in values[name].items():
            _, sample, labels = json.loads(key)
            metric.add_sample(sample, dict(labels), value)
    return [metric for metric in found.values() if metric.samples or not metric.name.startswith(_EMPTY_PREFIXES)]


def counts(families: Sequence[Family]) -> dict[str, float]:
    """What of a worker's families only ever grows, by family, sample and labels."""
    found: dict[str, float] = {}
    for name, kind, _, samples in families:
        if kind in _COUNTING:
            _join(found, name, kind, samples)
    return found


def _join(values: dict[str, float], family: str, kind: str, samples: Iterable[Sequence[Any]]) -> None:
    is_summed = kind in _COUNTING or family in _SUMMED_GAUGES
    for sample, labels, value in samples:
        key = json.dumps([family, sample, sorted(labels.items())])
        values[key] = values.get(key, 0.0) + value if is_summed else max(values.get(key, value), value)


def _workers(run_dir: Path) -> dict[str, Sequence[Family]]:
    """This worker's families, and those of its siblings, by process id."""
    found: dict[str, Sequence[Family]] = {}
    if len(siblings.places(run_dir)) > 1:
        heard = siblings.ask(run_dir, {"op": "metrics"})
        found = {str(one["pid"]): one["families"] for one in heard.answers if one.get("ok")}
    return found | {str(os.getpid()): metrics.families()}


def _counted_elsewhere(run_dir: Path, workers: Mapping[str, Sequence[Family]]) -> Mapping[str, float]:
    """What the supervisor adds. Without one, nothing outlives a worker; one that does not answer makes no page: a sum
    without its part would be wrong for ever, a scrape that failed is tried again."""
    request = {"op": "counted", "workers": {pid: counts(families) for pid, families in workers.items()}}
    try:
        told = control.ask(run_dir / "supervisor.sock", request, timeout_s=SUPERVISOR_S)
    except GatewayError as error:
        if error.code == "not_running":
            return {}
        raise
    counted: Mapping[str, float] = told.get("counted") or {}
    return counted


class _Shown(CollectorRegistry):
    """What is on the page; a family of which a sample names a remote, a tool or a key only for whom it is meant."""

    def __init__(self, shown: Iterable[Metric], *, names: bool) -> None:
        super().__init__()
        self.register(_Given([one for one in shown if names or not _is_naming(one)]))


class _Given(Collector):
    def __init__(self, shown: Sequence[Metric]) -> None:
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        return iter(self._shown)


def _is_naming(metric: Metric) -> bool:
    return any(_NAMING_LABELS & sample.labels.keys() for sample in metric.samples)
