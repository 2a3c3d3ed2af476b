"""Real MCP servers, started as real processes: what a gateway's remotes are in the system tests.

`running(...)` is the one way to start one: it waits for the announcement or the port with a deadline, fails with the
server's own last words, and ends the whole process group. The commands of stdio servers are here too, for a gateway's
configuration; nobody starts those but the gateway. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients import install

HERE = Path(__file__).resolve().parent
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 5.0
POLL_S = 0.02  # a third-party server announces its port to nobody; asked this often, until the deadline

EVERYTHING_PATHS = {"streamableHttp": "/mcp", "sse": "/sse"}


@dataclass(frozen=True)
class Peer:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    port: int
    path: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def kill(self) -> None:
        """Die as a crashed server does: at once, with everything it started."""
        end_group(self.process, signal.SIGKILL)


@dataclass(frozen=True)
class Command:
    """How to start a stdio server, in the words of a configuration file."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def entry(self, **more: Any) -> dict[str, Any]:
        """The entry of `mcpServers` that starts it."""
        entry: dict[str, Any] = {"command": self.command, "args": list(self.args)}
        return entry | ({"env": dict(self.env)} if self.env else {}) | more


def journal_lines(path: Path) -> list[dict[str, Any]]:
    """What the peers with PEER_JOURNAL=path say has happened so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# stdio servers, as commands


def sdk_stdio(*, era: str = "both", python: str = sys.executable, **environment: str) -> Command:
    arguments = (str(HERE / "sdk_server.py"), "--transport", "stdio", "--era", era)
    return Command(python, arguments, tuple(environment.items()))


def legacy_stdio(**environment: str) -> Command:
    return Command(str(install.program("sdk1")), (str(HERE / "legacy1_server.py"),), tuple(environment.items()))


def everything_stdio() -> Command:
    program, *arguments = install.npm_program("@modelcontextprotocol/server-everything", "mcp-server-everything")
    return Command(program, (*arguments, "stdio"))


def time_stdio(timezone: str = "UTC") -> Command:
    return Command(str(install.program("servers", "mcp-server-time")), ("--local-timezone", timezone))


def fetch_stdio(*, private: bool = True) -> Command:
    """mcp-server-fetch; `private` lets it fetch from the test's own web server on loopback."""
    arguments = ("--ignore-robots-txt", *(("--allow-private-ips",) if private else ()))
    return Command(str(install.program("servers", "mcp-server-fetch")), arguments)


# HTTP servers, as running processes


@contextlib.contextmanager
def sdk_server(
    transport: str = "http", *options: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[Peer]:
    """sdk_server.py on mcp 2.x: `sdk_server("http", "--era", "legacy", "--key", "mcp_k", environment={…})`."""
    command = [sys.executable, str(HERE / "sdk_server.py"), "--transport", transport, "--port", str(port), *options]
    with running(command, path="/sse" if transport == "sse" else "/mcp", environment=environment) as peer:
        yield peer


@contextlib.contextmanager
def legacy_server(
    transport: str = "http", *options: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[Peer]:
    """legacy1_server.py on mcp 1.x, in its own environment."""
    python = str(install.program("sdk1"))
    command = [python, str(HERE / "legacy1_server.py"), "--transport", transport, "--port", str(port), *options]
    with running(command, path="/sse" if transport == "sse" else "/mcp", environment=environment) as peer:
        yield peer


@contextlib.contextmanager
def everything(transport: str = "streamableHttp", *, port: int = 0) -> Iterator[Peer]:
    """npm's server-everything over "streamableHttp" or "sse"."""
    program = install.npm_program("@modelcontextprotocol/server-everything", "mcp-server-everything")
    port = port or free_port()
    chosen = {"PORT": str(port)}
    with running([*program, transport], path=EVERYTHING_PATHS[transport], port=port, environment=chosen) as peer:
        yield peer


@contextlib.contextmanager
def running(
    command: list[str],
    *,
    path: str = "/mcp",
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    deadline_s: float = START_DEADLINE_S,
) -> Iterator[Peer]:
    """Start a server and yield it once it answers; without `port` it must announce one on `--ready-fd`."""
    folder = Path(tempfile.mkdtemp(prefix="peer-"))
    log = folder / "log"
    read_end, write_end = os.pipe()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command if port is not None else [*command, "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=install.node_environment() | dict(environment or {}),
                pass_fds=(write_end,) if port is None else (),
                start_new_session=True,  # a group of its own, so that what it spawns ends with it
            )
        os.close(write_end)
        write_end = -1
        try:
            until = time.monotonic() + deadline_s
            found = announced(read_end, process, log, until) if port is None else answering(port, process, log, until)
            yield Peer(process, found, path, log)
        finally:
            end_group(process, signal.SIGTERM)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
        shutil.rmtree(folder, ignore_errors=True)


def announced(descriptor: int, process: subprocess.Popen[bytes], log: Path, until: float) -> int:
    """The port of the one line a peer writes; end of file means that it died instead."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        chunk = os.read(descriptor, 4096) if ready else b""
        if not chunk:
            raise failed_start(process, log, "ended" if ready else "announced no port in time")
        line += chunk
    return int(json.loads(line)["port"])


def answering(port: int, process: subprocess.Popen[bytes], log: Path, until: float) -> int:
    while time.monotonic() < until:
        if process.poll() is not None:
            raise failed_start(process, log, f"ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return port
        time.sleep(POLL_S)
    raise failed_start(process, log, f"did not listen on port {port} in time")


def failed_start(process: subprocess.Popen[bytes], log: Path, what: str) -> RuntimeError:
    words = log.read_text(errors="replace")[-2000:]
    return RuntimeError(f"{Path(str(process.args[0])).name} {what}:\n{words}")  # type: ignore[index]


def end_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End the process and all that it started: asked first, unless `how` is to kill; killed at the deadline."""
    if process.returncode is not None:
        return  # already waited for: its number may belong to somebody else by now
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_DEADLINE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the rest of the group too, when its leader went first
    process.wait()


def free_port() -> int:
    """A port that was free a moment ago, for a server that cannot be given a socket or port 0."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
