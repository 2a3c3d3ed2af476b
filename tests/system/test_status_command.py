"""`mcpstatus` as people and scripts call it: at rest, at its limits, and with what it asks hung or gone."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.system import gateway
from tests.system.gateway import ROOT, Gateway, eventually
from tests.system.tools import require

DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
# Nobody is waited for longer than half a second; what a command takes besides is measured beside it.
WAITS_S = 1.0


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    with gateway.running(
        {"demo": DEMO},
        MCP_MAX_CONNECTIONS_PER_KEY="100",
        MCP_MAX_IN_FLIGHT_PER_KEY="100",
        MCP_MAX_IN_FLIGHT_PER_REMOTE="100",
    ) as served:
        yield served


def timed(environment: Mapping[str, str], *words: str) -> tuple[float, dict[str, Any]]:
    began = time.monotonic()
    document = gateway.manage(environment, "mcpstatus", *words)
    return time.monotonic() - began, document


def exit_code(environment: Mapping[str, str], *words: str) -> int:
    command = [sys.executable, "manage.py", "mcpstatus", *words]
    return subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, check=False).returncode


# The guide's own lines.


@pytest.mark.edge(18)
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mcpstatus | jq '.server.status'", '"healthy"'),
        ("curl localhost:3000/health | jq '.memory.percent'", r"\d+(\.\d+)?"),
        ("curl localhost:3000/health | jq '.status'", '"healthy"'),
        ("curl localhost:3000/metrics | grep '^mcp_health.*healthy'", r'mcp_health\{status="healthy"\} 1.0[^$]*'),
        ("mcpstatus | jq '.mcps[].status'", '"healthy"'),
        ("mcpstatus | jq '.connections.active, .disk.percent, .errors.rate, .latency.p99'", r"([\d.]+\s*){4}"),
    ],
)
def test_the_lines_of_the_guide_work_word_for_word(running: Gateway, line: str, says: str) -> None:
    require("jq")
    require("curl")
    place = running.url.removeprefix("http://").replace("127.0.0.1", "localhost")
    environment = {**running.environment, "MCP_PYTHON": sys.executable}
    environment["PATH"] = f"{ROOT / 'bin'}:{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line.replace("localhost:3000", place)],
        env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert re.fullmatch(says, done.stdout.strip()), (line, done.stdout, done.stderr)


# How long it takes.


@contextlib.contextmanager
def at_its_limits(running: Gateway) -> Iterator[None]:
    """100 open streams and 100 calls in flight."""
    place = running.url.removeprefix("http://")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stream = stack.enter_context(contextlib.closing(http.client.HTTPConnection(place, timeout=20)))
            stream.request("GET", "/sse", headers={"Authorization": f"Bearer {running.key}"})
            assert stream.getresponse().status == 200
        for _ in range(100):
            call = stack.enter_context(contextlib.closing(http.client.HTTPConnection(place, timeout=20)))
            call.request("POST", "/mcp", slow_call(), slow_headers(running.key))
        yield


def slow_call() -> str:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "demo__slow", "arguments": {"seconds": 55, "steps": 1}, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})


def slow_headers(key: str) -> dict[str, str]:
    accepts = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    names = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "demo__slow"}
    return {"Authorization": f"Bearer {key}"} | accepts | names


@pytest.mark.edge(18)
def test_at_its_limits_health_and_status_answer_as_fast_as_at_rest(running: Gateway) -> None:
    at_rest, _ = timed(running.environment)
    with at_its_limits(running):

        def shown() -> dict[str, Any]:
            return running.command("mcpstatus")

        full = lambda said: (said["connections"]["active"], said["in_flight"]) == (100, 100)  # noqa: E731
        eventually(shown, full, within_s=20, what="all open")
        took, said = timed(running.environment)
        assert took < at_rest + WAITS_S, (at_rest, took)
        assert said["server"]["status"] == "healthy"
        assert "high_connections" in [one["code"] for one in said["warnings"]]
        times = [health_s(running) for _ in range(40)]
        assert statistics.quantiles(times, n=20)[-1] < 1, sorted(times)[-5:]
    eventually(
        lambda: running.command("mcpstatus")["connections"]["active"], lambda n: n == 0, within_s=20, what="none"
    )


def health_s(running: Gateway) -> float:
    with contextlib.closing(http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=10)) as connection:
        began = time.monotonic()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        document = json.loads(answer.read())
        took = time.monotonic() - began
    assert (answer.status, document["connections"]["active"]) == (200, 100)
    return took


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """A server that accepts and says nothing, to anybody, ever; its place."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for one in held:
                one.close()


def test_a_database_and_a_redis_that_accept_and_say_nothing_are_not_waited_for(running: Gateway) -> None:
    well, _ = timed(running.environment)
    with mute() as place:
        hung = {"DATABASE_URL": f"postgresql://a:b@{place}/gateway", "REDIS_URL": f"redis://{place}/0"}
        took, said = timed({**running.environment, **hung})
    assert took < well + WAITS_S, (well, took)
    assert (said["dependencies"]["db"], said["dependencies"]["redis"]) == ("down", "down")
    assert said["mcps"]["demo"]["status"] == "healthy", "what the workers know is told all the same"
    assert {"database_down", "redis_down"} <= {one["code"] for one in said["warnings"]}


def test_a_worker_that_is_stopped_is_not_waited_for_and_is_named(running: Gateway) -> None:
    well, _ = timed(running.environment)
    pid = running.command("mcpserver", "status")["pids"]["gateway-0"]
    os.kill(pid, signal.SIGSTOP)
    try:
        took, said = timed(running.environment)
        assert took < well + WAITS_S, (well, took)
        assert (said["server"]["status"], said["server"]["silent_workers"]) == ("unhealthy", ["gateway-0"])
        assert exit_code(running.environment, "--check") == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    asked = lambda: running.command("mcpstatus")["server"]["status"]  # noqa: E731
    eventually(asked, lambda word: word == "healthy", within_s=30, what="it goes on, or its successor")


# The live page.


class Terminal:
    """`mcpstatus --watch` on a terminal of its own."""

    def __init__(self, environment: Mapping[str, str], *words: str, columns: int = 110, rows: int = 30) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            command = [sys.executable, "manage.py", "mcpstatus", *words]
            os.execve(sys.executable, command, dict(environment))
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._master)
        self.got = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def page(self) -> list[str]:
        """The last whole one, without colours."""
        self.read(0.05)
        whole = [one for one in self.got.split("\x1b[H")[1:] if one.endswith("\x1b[J")]
        plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", whole[-1]) if whole else ""
        return [line.rstrip("\r") for line in plain.split("\n")]

    def end(self) -> int:
        """Its exit code, once it has ended; everything that it wrote is in `got` then."""
        eventually(lambda: self.read(0.1), lambda more: not more, within_s=10, what="it ends")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def read(self, within_s: float) -> bool:
        """False when nobody has it open any more."""
        while select.select([self._master], [], [], within_s)[0]:
            try:
                more = os.read(self._master, 65536)
            except OSError:
                return False
            if not more:
                return False
            self.got += more.decode(errors="replace")
        return True


def test_the_live_page_follows_the_gateway_and_the_terminal_and_leaves_it_as_it_was(running: Gateway) -> None:
    watching = Terminal(running.environment, "--watch", "0.5")
    place = running.url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(place, timeout=20)) as stream:
        stream.request("GET", "/sse", headers={"Authorization": f"Bearer {running.key}"})
        assert stream.getresponse().status == 200
        eventually(watching.page, lambda page: any("streams per key" in one for one in page), within_s=20, what="a key")
    page = watching.page()
    assert page[0].startswith("MCP gateway  healthy"), page
    for beginning in ("memory", "disk", "streams", "calls", "REMOTE", "demo"):
        assert any(line.startswith(beginning) for line in page), (beginning, page)
    watching.resize(40, 12)
    small = lambda page: len(page) <= 12 and max(map(len, page)) <= 40  # noqa: E731
    eventually(watching.page, small, within_s=10, what="drawn to the smaller terminal")
    watching.type(b"\x03")
    assert watching.end() == 0
    assert watching.got.startswith("\x1b[?1049h\x1b[?25l")
    assert watching.got.endswith("\x1b[?25h\x1b[?1049l"), "the cursor is shown, and what stood there before"
    assert "Traceback" not in watching.got


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_page_that_is_ended_from_outside_gives_the_screen_back(running: Gateway, number: signal.Signals) -> None:
    watching = Terminal(running.environment, "--watch")
    eventually(watching.page, lambda page: len(page) > 5, within_s=20, what="a page")
    os.kill(watching.pid, number)
    assert watching.end() == 0
    assert watching.got.endswith("\x1b[?25h\x1b[?1049l")


def test_piped_it_is_a_line_each_time_and_ends_with_its_reader(running: Gateway) -> None:
    words = shlex.join([sys.executable, "manage.py", "mcpstatus", "--watch", "0.2"])
    done = subprocess.run(
        ["sh", "-c", f"{words} | head -n 3"],
        cwd=ROOT, env=dict(running.environment), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert [json.loads(line)["server"]["status"] for line in done.stdout.splitlines()] == ["healthy"] * 3
    assert done.stderr == ""


# The last of this file: it ends the gateway.


def test_down_it_says_so_at_once_and_in_exit_codes(running: Gateway) -> None:
    assert exit_code(running.environment, "--check") == exit_code(running.environment, "--strict") == 0
    well, _ = timed(running.environment)
    assert running.command("mcpserver", "stop")["ok"]
    took, said = timed(running.environment)
    assert took < well + WAITS_S, (well, took)
    assert (said["ok"], said["error"], said["server"]["status"]) == (False, "not_running", "stopped")
    assert list(said["mcps"]) == ["demo"]
    assert {exit_code(running.environment, *words) for words in ((), ("--check",), ("--strict",))} == {7}
    with mute() as place:
        hung = {"DATABASE_URL": f"postgresql://a:b@{place}/gateway", "REDIS_URL": f"redis://{place}/0"}
        took, said = timed({**running.environment, **hung})
    assert took < well + WAITS_S, (well, took)
    assert said["server"]["status"] == "stopped"
