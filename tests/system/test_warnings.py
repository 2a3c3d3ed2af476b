"""Every process of the gateway from start to stop with warnings made errors: none of ours, and none of what it is built on."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import pytest

from tests.component.real_gateway import Client, until
from tests.system import gateway, servers
from tests.system.gateway import ROOT, Gateway

pytestmark = pytest.mark.edge(24)

STRICT = {"PYTHONWARNINGS": "error"}
OF_REDIS = 2  # the first of these ask it
COMMANDS = (
    "mcpstatus", "mcp doctor", "mcpkey list", "mcpkey generate more", "mcpkey revoke more", "mcpconfig validate",
    "mcpconfig show", "mcpconfig history", "mcp remote list", "mcp remote test demo", "mcp tools list",
    "mcp tools call demo__add a=1 b=2", "mcp logs -n 3", "mcpbackup create", "mcpbackup verify", "mcprestore latest",
    "mcpserver status", "check --fail-level WARNING", "makemigrations --check --dry-run",
)  # fmt: skip


@pytest.fixture(scope="module", params=["redis", "alone"])
def strict(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
    with ExitStack() as stack:
        several = {}
        if request.param == "redis":
            several = {"REDIS_URL": stack.enter_context(servers.redis()).url, "MCP_WORKERS": "2"}
        yield stack.enter_context(gateway.running({"demo": demo}, worker=True, **STRICT, **several))


def test_it_serves_and_runs_its_schedule(strict: Gateway) -> None:
    client = Client(urlsplit(strict.url).port or 0, strict.key)
    add = {"name": "demo__add", "arguments": {"a": 1, "b": 2}}
    assert client.modern("tools/call", add).result["content"]
    assert client.session().call("tools/call", add).result["content"]
    with client.relay() as relay:
        assert relay.opened().call("tools/call", add)["result"]["content"]
    for page in ("/health", "/health/live", "/health/ready", "/metrics"):
        with urllib.request.urlopen(strict.url + page, timeout=10) as answer:
            assert answer.read()
    until(lambda: strict.command("mcpstatus")["worker"]["alive"], "the schedule runs")
    for process in children(strict):
        assert process.environ()["PYTHONWARNINGS"] == "error"
    assert warned(strict) == []


def test_commands_end_well_and_warn_of_nothing(strict: Gateway) -> None:
    for words in COMMANDS[:OF_REDIS] if strict.environment["REDIS_URL"] else COMMANDS:
        done = subprocess.run(
            [sys.executable, "-W", "error", "manage.py", *words.split()],
            cwd=ROOT, env=dict(strict.environment), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, words + done.stdout + done.stderr
        assert not re.search(r"Warning\b|Traceback", done.stderr), words + done.stderr


def test_it_stops_without_a_word(strict: Gateway) -> None:
    strict.process.terminate()
    assert strict.process.wait(30) == 0
    assert warned(strict) == []


def children(running: Gateway) -> list[psutil.Process]:
    found = psutil.Process(running.process.pid).children()
    assert len(found) >= 2
    return [one for one in found if one.environ().get("MCP_RUN_DIR")]


def warned(running: Gateway) -> list[str]:
    return [line for line in running.log().splitlines() if re.search(r"Warning\b", line)]
