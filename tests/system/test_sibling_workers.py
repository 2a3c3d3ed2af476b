"""Two gateway workers with one run folder: each process of a stdio remote exists once, whoever is called and whoever dies."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.component.real_gateway import Client, until
from tests.system import gateway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are counted in /proc")

# A server that journals what it gets: `hold` is never answered, `echo` is.
SCRIPT = """
import json, os, sys
journal = open(sys.argv[1], "a", buffering=1)
journal.write("start %d\\n" % os.getpid())
tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("hold", "echo")]
results = {
    "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}},
    "tools/list": {"tools": tools},
    "tools/call": {"content": [{"type": "text", "text": "here"}]},
}
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    name = message.get("params", {}).get("name", "")
    journal.write(f"{method} {name}\\n")
    if "id" not in message or name == "hold":
        continue
    answer = {"result": results[method]} if method in results else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"]} | answer), flush=True)
"""


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    client: Client

    def processes(self) -> list[psutil.Process]:
        """What it runs, by its own account of its children."""
        return psutil.Process(self.process.pid).children(recursive=True)


class Node:
    """A run folder and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.workers: list[Worker] = []
        self._environment = gateway._environment(folder) | {"MCP_WORKERS": "2"}

    def prepare(self) -> None:
        (self.folder / "data").mkdir()
        (self.folder / "script.py").write_text(SCRIPT)
        remotes: dict[str, Any] = {
            "demo": {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(gateway.ROOT)},
            "script": {"command": sys.executable, "args": [str(self.folder / "script.py"), str(self.journal)]},
        }
        (self.folder / "mcp-config.yaml").write_text(gateway.configuration(remotes))
        gateway.manage(self._environment, "migrate")
        self._key = gateway.manage(self._environment, "mcpkey", "generate", "main")["key"]

    def start(self) -> Worker:
        number = len(self.workers)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            read, write = os.pipe()
            words = ["mcpgateway", "--worker", str(number), "--fd", str(listener.fileno()), "--ready-fd", str(write)]
            process = subprocess.Popen(
                [sys.executable, "manage.py", *words],
                cwd=gateway.ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(listener.fileno(), write),
                start_new_session=True,
            )
            os.close(write)
            worker = Worker(process, Client(listener.getsockname()[1], self._key))
            self.workers.append(worker)
            assert select.select([read], [], [], 40)[0], "not ready"
            with os.fdopen(read, "rb") as pipe:
                assert json.loads(pipe.readline())["ok"]
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.process.wait(20)
            finally:
                worker.process.kill()

    def lines(self, beginning: str) -> list[str]:
        text = self.journal.read_text() if self.journal.exists() else ""
        return [line for line in text.splitlines() if line.startswith(beginning)]

    def status(self, number: int) -> dict[str, Any]:
        from mcpserver.lib import control

        return control.ask(self.folder / "run" / f"gateway-{number}.sock", {"op": "status"})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.prepare()
    try:
        for _ in range(2):
            made.start()
        yield made
    finally:
        made.stop()


def call(worker: Worker, name: str, arguments: dict[str, Any] | None = None) -> Any:
    return worker.client.modern("tools/call", {"name": name, "arguments": arguments or {}}).result


def text(result: Any) -> str:
    return str(result["content"][0]["text"])


def test_two_workers_share_each_process_and_a_killed_owner_is_followed_by_its_sibling(node: Node) -> None:
    first, second = node.workers
    for worker in node.workers:
        assert text(call(worker, "demo__echo", {"text": "hello"})) == "hello"
        assert text(call(worker, "script__echo")) == "here"
    running = [one.processes() for one in node.workers]
    assert sum(len(one) for one in running) == 2, "one demo and one script, whoever runs them"
    assert len(node.lines("start")) == 1
    owner, sibling = (first, second) if node.status(0)["mcps"]["script"]["process"] else (second, first)

    progress = sibling.client.modern_stream(
        "tools/call",
        {"name": "demo__slow", "arguments": {"seconds": 0.2, "steps": 3}},
        meta={"progressToken": "p"},
    )
    with progress:
        steps = [progress.message()["params"]["progress"] for _ in range(3)]
        assert steps == [1, 2, 3]
        assert "3 steps" in text(progress.answer(1)["result"])

    body, headers = sibling.client.modern_request("tools/call", {"name": "script__hold"})
    held = sibling.client.post_only("POST", "/mcp", body, headers)
    until(lambda: len(node.lines("tools/call hold")) == 1)
    held.close()
    until(lambda: node.lines("notifications/cancelled"), "a sibling's client left: its call is cancelled at the remote")

    open_call = sibling.client.post_only("POST", "/mcp", body, headers)
    until(lambda: len(node.lines("tools/call hold")) == 2)
    left = owner.processes()
    owner.process.kill()
    owner.process.wait(5)
    failed = json.loads(open_call.getresponse().read())["result"]
    assert failed["isError"]
    assert "script: the worker that ran it is gone" in text(failed)
    assert text(call(sibling, "script__echo")) == "here"
    assert text(call(sibling, "demo__echo", {"text": "again"})) == "again"
    assert len(node.lines("tools/call hold")) == 2, "never executed twice"
    assert len(node.lines("start")) == 2
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left), within_s=5)
    assert len(sibling.processes()) == 2

    third = node.start()
    assert text(call(third, "script__echo")) == "here"
    assert len(node.lines("start")) == 2
    assert not third.processes()
