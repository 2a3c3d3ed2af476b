"""A machine of a cluster, as a test starts and kills it, the load balancer in front, and a remote that notes who greets it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mcpserver.lib import control
from tests import peers
from tests.component.real_gateway import Client
from tests.system import gateway
from tests.system.gateway import ROOT, Remotes

DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}


class Node:
    """`mcpserver start` on one machine: two workers and Celery."""

    def __init__(self, folder: Path, remotes: Remotes | None = None, /, **shared: str) -> None:
        self.folder = folder
        self.port = peers.free_port()
        self.environment = gateway._environment(folder) | {"MCP_WORKERS": "2"} | shared
        (folder / "mcp-config.yaml").write_text(gateway.configuration(remotes or {"demo": DEMO}))
        self.process: subprocess.Popen[bytes] | None = None
        self.behind: tuple[str, ...] = ()
        """What it is started behind: a command that becomes it."""

    def start(self, *words: str, **more: str) -> None:
        began = time.monotonic()
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*self.behind, sys.executable, "manage.py", "mcpserver", "start", "--port", str(self.port), *words],
                cwd=ROOT, env=self.environment | more, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 40)[0], "not ready"
        said = json.loads(self.process.stdout.readline())
        assert said["ok"], said
        self.pids: dict[str, int] = said["pids"]
        self.took_s = time.monotonic() - began

    def manage(self, *words: str) -> dict[str, Any]:
        return gateway.manage(self.environment, *words)

    def status(self, worker: int = 0) -> dict[str, Any]:
        """What one worker says of itself, at once: no command is started for it."""
        return control.ask(self.folder / "run" / f"gateway-{worker}.sock", {"op": "status"})

    def supervision(self) -> dict[str, Any]:
        """What `mcpserver status` prints."""
        return control.ask(self.folder / "run" / "supervisor.sock", {"op": "status"})

    def die(self) -> None:
        """As a machine does: every process at once."""
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        if self.process is not None:
            peers.end_group(self.process, signal.SIGTERM)
            self.process = None


@contextlib.contextmanager
def installed(remotes: Mapping[str, Any], **environment: str) -> Iterator[tuple[Node, Client]]:
    """Folders with a database and one key in it, for one worker unless told otherwise; nothing runs before `start`."""
    with tempfile.TemporaryDirectory(prefix="node-", ignore_cleanup_errors=True) as name:
        (Path(name) / "data").mkdir()
        node = Node(Path(name), remotes, **({"MCP_WORKERS": "1"} | environment))
        gateway.manage(node.environment, "migrate")
        key = str(gateway.manage(node.environment, "mcpkey", "generate", "main")["key"])
        try:
            yield node, Client(node.port, key)
        finally:
            node.stop()


def in_turns(port: int, targets: list[int]) -> str:
    """Strict turns, which nginx's own workers keep together (`zone`); nothing is sticky."""
    lines = "".join(f"server 127.0.0.1:{target} max_fails=1 fail_timeout=2s;" for target in targets)
    return f"""
    upstream gateways {{ zone gateways 64k; {lines} }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 2m;
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_read_timeout 3600s;
            proxy_connect_timeout 2s;
        }}
    }}"""


class Greeted(http.server.BaseHTTPRequestHandler):
    """A remote of 2025-11-25 without any tools; `greetings` are the times at which somebody shook hands with it."""

    protocol_version = "HTTP/1.1"
    greetings: list[float]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["method"] == "initialize":
            self.greetings.append(time.monotonic())
            server = {"name": "greeted", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}
        else:
            result = {"tools": []}
        self._reply(200 if "id" in asked else 202, {"jsonrpc": "2.0", "id": asked.get("id"), "result": result})

    def do_GET(self) -> None:
        self._reply(405, {})

    def do_DELETE(self) -> None:
        self._reply(200, {})

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(OSError):  # a machine that was killed does not wait for it
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def greeted() -> Iterator[tuple[str, list[float]]]:
    """Its URL, and the times at which it was greeted."""
    times: list[float] = []
    handler = type("Handler", (Greeted,), {"greetings": times})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mcp", times
    finally:
        server.shutdown()
        server.server_close()
