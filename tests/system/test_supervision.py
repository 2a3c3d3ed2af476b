"""The supervisor with what it supervises in earnest: crashes that are seen, hangs that are written down, files that lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpserver.supervisor import pidfile
from tests.component.real_gateway import Client, until
from tests.system import gateway
from tests.system.nodes import DEMO, Node, installed

# What Python runs at its start when it finds it: a worker that is told so stops turning its loop, deep in Python code.
HANGING = """
import signal, time
def hang_here(*_):
    while True:
        time.sleep(1)
signal.signal(signal.SIGUSR2, hang_here)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Node, Client]]:
    with installed({"demo": DEMO}) as found:
        yield found


@pytest.fixture
def node(place: tuple[Node, Client]) -> Iterator[Node]:
    yield place[0]
    place[0].stop()


def answered(client: Client) -> bool:
    return client.modern("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).status == 200


def test_a_worker_that_hangs_in_python_says_where_in_the_log_and_is_replaced(
    place: tuple[Node, Client], node: Node, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    node.start("--no-worker", PYTHONPATH=str(tmp_path))
    victim = node.pids["gateway-0"]
    os.kill(victim, signal.SIGUSR2)
    until(lambda: node.supervision()["children"]["gateway-0"].get("stalled"))
    until(lambda: node.supervision()["pids"].get("gateway-0") not in (None, victim), within_s=40)
    until(lambda: node.supervision()["children"]["gateway-0"]["state"] == "ready", within_s=40)
    child = node.supervision()["children"]["gateway-0"]
    assert (child["last_exit"], child["restarts"]) == ("signal ABRT", 1)
    until(lambda: answered(place[1]))
    said = "".join(path.read_text() for path in (node.folder / "logs").glob("*.log"))
    assert "hang_here" in said
    assert "does not turn its loop" in said


def test_what_crashes_and_why_is_in_both_statuses_until_it_runs_again(place: tuple[Node, Client], node: Node) -> None:
    node.start("--no-worker")
    data, away = node.folder / "data", node.folder / "away"
    data.rename(away)
    os.kill(node.pids["gateway-0"], signal.SIGKILL)
    until(lambda: node.supervision()["children"]["gateway-0"].get("crashes_in_a_row", 0) >= 2, within_s=40)
    child = gateway.manage(node.environment, "mcpserver", "status")["children"]["gateway-0"]
    assert (child["state"] in {"waiting", "starting"}, child["last_exit"]) == (True, "exit code 1")
    assert "database" in child["last_error"]["message"]
    status = gateway.manage(node.environment, "mcpstatus")
    assert status["server"]["children"]["gateway-0"]["last_exit"] == "exit code 1"
    assert "gateway-0 ended with exit code 1 and is started again" in [one["message"] for one in status["warnings"]]
    away.rename(data)
    until(lambda: node.supervision()["children"]["gateway-0"]["state"] == "ready", within_s=40)
    until(lambda: answered(place[1]))


def test_a_pid_in_the_file_that_is_somebody_elses_is_left_alone(place: tuple[Node, Client], node: Node) -> None:
    (node.folder / "run").mkdir(exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (node.folder / "run" / pidfile.NAME).write_text(f"{stranger.pid}\n")
        assert gateway.manage(node.environment, "mcpserver", "stop")["error"] == "not_running"
        node.start("--no-worker")
        assert gateway.manage(node.environment, "mcpserver", "start")["error"] == "already_running"
        assert gateway.manage(node.environment, "mcpserver", "start", "--detach")["pid"] == node.pids["supervisor"]
        assert gateway.manage(node.environment, "mcpserver", "stop")["ok"]
        assert stranger.poll() is None
