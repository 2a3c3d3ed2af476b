"""A real Prometheus that scrapes gateways each second and evaluates the alert rules that are shipped."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import peers
from tests.system.gateway import ROOT, eventually

SHIPPED = ROOT / "deploy" / "prometheus"


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire, with the remote where one is named."""
        alerts = [one["labels"] for one in self._ask("alerts")["alerts"] if one["state"] == "firing"]
        return {" ".join(filter(None, (one["alertname"], one.get("remote")))) for one in alerts}

    def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            document: dict[str, Any] = json.load(answer)
        assert document["status"] == "success", document
        data: dict[str, Any] = document["data"]
        return data


@contextlib.contextmanager
def running(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """The rules as shipped, but for their `for`: what must hold for minutes there need hold for one second here."""
    rules, changed = re.subn(r"(?m)^( +for:) \d+m$", r"\1 0s", (SHIPPED / "alerts.yml").read_text())
    assert changed == rules.count("alert:")
    (folder / "alerts.yml").write_text(rules)
    config = (SHIPPED / "prometheus.yml").read_text().split("alerting:")[0].replace(": 15s", ": 1s")
    (folder / "prometheus.yml").write_text(config.replace('["127.0.0.1:3000"]', json.dumps(list(targets))))
    port = peers.free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("wb") as words:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=words, stderr=words, start_new_session=True
        )
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: up(prometheus), lambda up: up == len(targets), within_s=30, what="every gateway is scraped")
        yield prometheus
    finally:
        peers.end_group(process, signal.SIGTERM)


def up(prometheus: Prometheus) -> int:
    try:
        return len(prometheus.query("up == 1"))
    except OSError:  # It does not listen yet.
        return 0
