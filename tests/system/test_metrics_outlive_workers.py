"""What was counted before a worker was killed is counted still."""

from __future__ import annotations

import os
import signal
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.component.real_gateway import Client
from tests.system import gateway

DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(gateway.ROOT)}


def calls(url: str) -> float:
    """-1 while nobody answers."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return -1
    samples = [sample for family in families for sample in family.samples]
    return sum(one.value for one in samples if one.name == "mcp_tool_calls_total")


@pytest.mark.edge(18)
def test_counters_stand_when_a_worker_is_killed() -> None:
    with gateway.running({"demo": DEMO}) as running:
        client = Client(int(running.url.rpartition(":")[2]), running.key)
        for _ in range(7):
            assert client.session().call("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).result
        assert calls(running.url) == 7
        pids = running.command("mcpserver", "status")["pids"]
        os.kill(pids["gateway-0"], signal.SIGKILL)
        gateway.eventually(lambda: calls(running.url), lambda count: count >= 0, within_s=30, what="a successor")
        assert calls(running.url) == 7
        assert client.session().call("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).result
        assert calls(running.url) == 8
