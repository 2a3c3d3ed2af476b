"""A machine that has no processes, no descriptors, no ports left: who is told what, who goes on, and that it passes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.component.real_gateway import Client, until
from tests.system import clinging, gateway
from tests.system.gateway import ROOT
from tests.system.nodes import Node, installed

pytestmark = pytest.mark.edge(23)

# Limits of processes hold for other users than root, and count what the user runs on the whole machine: one who has nothing
# else here, and may read and write what belongs to root.
NOBODY = "61723"
BECOME = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")
MAY_READ = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
NAMES = {"nproc": "Max processes", "nofile": "Max open files"}
CALLS = 8  # more than open a circuit


def needs(what: str, there: object) -> None:
    if not there:
        pytest.fail(f"needs {what}") if os.environ.get("CI") else pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Node, Client]]:
    """Run by a user for whom limits hold, in front of a program that stays and two that will have to be started again."""
    needs("root and setpriv", os.geteuid() == 0 and shutil.which("setpriv"))
    with installed({name: clinging.entry(name) for name in ("steady", "lost", "gone")}) as (node, client):
        node.behind = (*BECOME, *MAY_READ)
        node.start("--no-worker")
        yield node, client


@contextlib.contextmanager
def limited(pid: int, what: str, to: int) -> Iterator[None]:
    """`what`: nproc or nofile, of a process that is somebody else's: who sets it must be the same user."""
    (line,) = [one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if one.startswith(NAMES[what])]
    before = line[len(NAMES[what]) :].split()[0]

    def set_to(value: int | str) -> None:
        subprocess.run([*BECOME, "prlimit", "--pid", str(pid), f"--{what}={value}:"], check=True)

    set_to(to)
    try:
        yield
    finally:
        set_to(before)


class Caller:
    """One connection that was open before anything ran out."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._wire = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)

    def call(self, name: str) -> dict[str, Any]:
        body, headers = self._client.modern_request("tools/call", {"name": f"{name}__echo", "arguments": {}})
        self._wire.request("POST", "/mcp", body, dict(headers))
        result: dict[str, Any] = json.loads(self._wire.getresponse().read())["result"]
        return result

    def works(self, name: str) -> bool:
        return not self.call(name).get("isError")


def lose(node: Node, name: str) -> None:
    """The program dies, and has to be started again for the next call."""
    pid = node.status()["mcps"][name]["process"]["pid"]
    psutil.Process(pid).kill()
    until(lambda: node.status()["mcps"][name]["process"]["last_exit"] == "signal KILL")


def refused(caller: Caller, name: str, short_of: str) -> None:
    """Calls that need what is not there say so; the others do not notice."""
    for _ in range(CALLS):
        result = caller.call(name)
        assert result["isError"]
        assert f"this machine is short of {short_of}" in result["content"][0]["text"]
        assert caller.works("steady")


def comes_back(node: Node, caller: Caller, name: str) -> None:
    """At once: nothing was held against the remote for what was not its fault."""
    assert node.status()["mcps"][name]["circuit"]["state"] == "closed"
    until(lambda: caller.works(name), within_s=5)
    until(lambda: node.status()["mcps"][name]["status"] == "healthy")
    assert caller.works("steady")


def test_no_more_processes_for_a_program(started: tuple[Node, Client]) -> None:
    node, client = started
    caller = Caller(client)
    assert caller.works("lost")
    with limited(node.pids["gateway-0"], "nproc", 1):
        lose(node, "lost")
        refused(caller, "lost", "processes")
        assert client.modern("tools/list").status == 200
    comes_back(node, caller, "lost")


def test_no_more_descriptors_for_a_program(started: tuple[Node, Client]) -> None:
    node, client = started
    caller = Caller(client)
    assert caller.works("gone")
    before = psutil.Process(node.pids["gateway-0"]).num_fds()
    lose(node, "gone")
    with limited(node.pids["gateway-0"], "nofile", psutil.Process(node.pids["gateway-0"]).num_fds() + 1):
        refused(caller, "gone", "open files")
    comes_back(node, caller, "gone")
    until(lambda: psutil.Process(node.pids["gateway-0"]).num_fds() <= before + 2, "none of them leaked")
    assert "Traceback" not in (node.folder / "logs" / "combined.log").read_text()


def test_no_more_processes_for_a_worker(started: tuple[Node, Client]) -> None:
    node, client = started
    with limited(node.pids["supervisor"], "nproc", 1):
        os.kill(node.pids["gateway-0"], signal.SIGKILL)
        until(lambda: node.supervision()["children"]["gateway-0"].get("crashes_in_a_row", 0) >= 2)
        child = node.supervision()["children"]["gateway-0"]
        assert child["last_error"]["message"] == ("gateway-0: cannot start a process: Resource temporarily unavailable")
    until(lambda: node.supervision()["children"]["gateway-0"]["state"] == "ready", within_s=40)
    until(lambda: Caller(client).works("steady"))


def test_no_more_local_ports_for_a_connection(tmp_path: Any) -> None:
    """In a network of its own, where ports are few: `no_ports` holds them all."""
    needs("root, unshare and ip", os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip"))
    inherited = {name: os.environ[name] for name in gateway.INHERITED if name in os.environ}
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.system.no_ports"],
        cwd=ROOT, env=inherited, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
