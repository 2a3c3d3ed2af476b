"""Bad keys in a flood: who has a good one is served, known or new, and the gateway's memory does not grow."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.system import gateway
from tests.system.gateway import ROOT, Gateway
from tests.system.test_recovery import clean

FLOOD_S = 6.0


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    with gateway.running({}) as one:
        yield one


def ask(running: Gateway, key: str, *, source: str = "127.0.0.1") -> tuple[int, float]:
    """The status and the seconds of one request, over a connection of its own."""
    host, port = running.url.removeprefix("http://").split(":")
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, int(port), timeout=30, source_address=(source, 0))
    connection.request("POST", "/mcp", b"{}", {"Authorization": f"Bearer {key}"})
    status = connection.getresponse().status
    connection.close()
    return status, time.monotonic() - began


def worker(running: Gateway) -> psutil.Process:
    (found,) = running.command("mcpstatus")["server"]["workers"]
    return psutil.Process(found["pid"])


@pytest.mark.edge(6)
def test_forty_callers_with_bad_keys_shut_nobody_out_and_take_no_memory(running: Gateway) -> None:
    first, second = running.keys
    assert ask(running, first)[0] == 415  # the key opens: what it asks is not JSON
    process = worker(running)
    before = process.memory_info().rss
    calm = statistics.quantiles([ask(running, first)[1] for _ in range(50)], n=20)[-1]
    port = running.url.rsplit(":", 1)[1]
    flood = subprocess.Popen(
        [sys.executable, "-m", "tests.system.bad_keys", port, str(FLOOD_S)],
        cwd=ROOT, env=clean(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert flood.stdout is not None
    assert flood.stdout.readline() == "begun\n"
    known = [ask(running, first) for _ in range(100)]
    fresh = ask(running, second, source="127.0.0.2")
    grown = process.memory_info().rss - before
    answers = json.loads(flood.communicate(timeout=60)[0])
    assert {status for status, _ in known} == {415}
    assert statistics.quantiles([took for _, took in known], n=20)[-1] < max(2.0, 20 * calm)
    assert fresh[0] == 415, "a key that was not used yet, from elsewhere"
    assert fresh[1] < 2.0
    assert grown < 200 << 20
    assert set(answers) <= {"401", "503"}
    assert answers["401"] > 0
