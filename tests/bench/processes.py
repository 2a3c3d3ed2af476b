"""The processes of one run: started from nothing in a folder of their own, pinned, stopped and woken, measured through /proc.

Whoever starts one ends it. Nothing of the machine's own installation is read or written: every folder, the database and the
keys are this run's, and REDIS_URL and DATABASE_URL of the caller's environment are overruled.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
REMOTES = 10
TOOLS_PER_REMOTE = 100
READY_TIMEOUT_S = 30.0
END_TIMEOUT_S = 8.0
_TICKS = os.sysconf("SC_CLK_TCK")
# One key makes all the calls here and none may be refused: the limits that share the gateway out are lifted.
_FAIRNESS = (
    "CONNECTIONS_PER_KEY",
    "TOTAL_CONNECTIONS",
    "REQUESTS_IN_FLIGHT",
    "IN_FLIGHT_PER_KEY",
    "IN_FLIGHT_PER_REMOTE",
    "CPU_PERCENT",
)
_LIFTED = "100000"


class StartError(Exception):
    """A process could not be started; the message carries its own last words."""


@dataclass(frozen=True)
class Cores:
    """Where what runs: the measured processes on one core, the load and the upstream on the other, if there are two."""

    measured: int
    load: int

    @classmethod
    def allowed(cls) -> "Cores":
        cores = sorted(os.sched_getaffinity(0))
        return cls(measured=cores[0], load=cores[1 if len(cores) > 1 else 0])

    @property
    def shared(self) -> bool:
        return self.measured == self.load


class Process:
    """One child in its own session, so that Ctrl-C reaches us alone and we end it in order."""

    def __init__(
        self, name: str, command: list[str], *, core: int, folder: Path, fds: list[int], env: dict[str, str]
    ) -> None:
        self.name = name
        self._words = folder / f"{name}.log"
        with self._words.open("ab") as words, _running_on(core):
            self._child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """TERM, then KILL; a paused process is woken first, or it would not hear."""
        self.wake()
        self._signal(signal.SIGTERM)
        try:
            self._child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._child.wait()

    def require_alive(self) -> None:
        code = self._child.poll()
        if code is not None:
            raise StartError(f"{self.name} ended with code {code}: {self.last_words()}")

    def last_words(self) -> str:
        return self._words.read_text(errors="replace")[-1500:].strip() or "it said nothing"

    def cpu_s(self) -> float:
        """User and system time so far of the process and its descendants."""
        return sum(_cpu_ticks(pid) for pid in _tree(self.pid)) / _TICKS

    def pss_kb(self) -> int:
        """Memory, pages shared with other processes counted in proportion."""
        return sum(_pss_kb(pid) for pid in _tree(self.pid))

    def _signal(self, number: int) -> None:
        if self._child.poll() is None:
            self._child.send_signal(number)


@dataclass(frozen=True)
class Site:
    """A gateway's installation in a temporary folder: migrated, configured, with one key."""

    folder: Path
    env: dict[str, str]
    key: str

    @classmethod
    def install(cls, folder: Path, *, upstream_port: int, port: int) -> "Site":
        env = _environment(folder, port)
        _write_config(Path(env["MCP_CONFIG"]), upstream_port)
        _manage(env, "migrate", "--noinput", "--verbosity", "0")
        key = json.loads(_manage(env, "mcpkey", "generate", "bench"))["key"]
        return cls(folder, env, key)

    def start(self, listener: socket.socket, core: int) -> Process:
        """Start one worker as the supervisor does, and wait until it says that it is ready."""
        reader, writer = os.pipe()
        fds = [listener.fileno(), writer]
        options = ["--fd", str(fds[0]), "--ready-fd", str(fds[1]), "--worker", "0"]
        command = [sys.executable, "manage.py", "mcpgateway", *options]
        try:
            worker = Process("gateway", command, core=core, folder=self.folder, fds=fds, env=self.env)
        finally:
            os.close(writer)
        try:
            document = _ready_document(reader)
        finally:
            os.close(reader)
        if not document.get("ok"):
            words = worker.last_words()
            worker.end()
            raise StartError(f"the gateway did not start: {json.dumps(document)}: {words}")
        return worker

    def logged_bytes(self) -> int:
        """The size of all logs of this run, to see that the line per call is really written."""
        logs = [*Path(self.env["MCP_LOG_DIR"]).glob("*"), self.folder / "gateway.log"]
        return sum(path.stat().st_size for path in logs if path.is_file())


def listen() -> socket.socket:
    """A listening socket on a free loopback port; the child that inherits it may start serving whenever it is ready."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def start_module(module: str, listener: socket.socket, *, core: int, folder: Path) -> Process:
    """`python -m tests.bench.MODULE --fd N`."""
    command = [sys.executable, "-m", f"tests.bench.{module}", "--fd", str(listener.fileno())]
    return Process(module, command, core=core, folder=folder, fds=[listener.fileno()], env=child_environment())


def child_environment() -> dict[str, str]:
    """The caller's, without what it may have set for a gateway of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}


def _environment(folder: Path, port: int) -> dict[str, str]:
    folders = {f"MCP_{name.upper()}_DIR": str(folder / name) for name in ("data", "log", "backup", "run")}
    for path in folders.values():
        Path(path).mkdir(mode=0o700)
    return {
        **child_environment(),
        **folders,
        **{f"MCP_MAX_{name}": _LIFTED for name in _FAIRNESS},
        "MCP_MAX_OPEN_FILES": "4096",
        "MCP_CONFIG": str(folder / "mcp-config.yaml"),
        "MCP_WORKERS": "1",
        "SECRET_KEY": secrets.token_hex(32),
        "DATABASE_URL": f"sqlite:///{folder}/data/gateway.sqlite3",
        "REDIS_URL": "",
        "DEBUG": "false",
        "LOG_LEVEL": "info",
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }


def _write_config(path: Path, upstream_port: int) -> None:
    url = f"http://127.0.0.1:{upstream_port}/{TOOLS_PER_REMOTE}/mcp"
    entries = (f"  bench{number}:\n    type: http\n    url: {url}\n" for number in range(REMOTES))
    path.write_text("version: 1\nmcpServers:\n" + "".join(entries))


def _manage(env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        words = (done.stderr or done.stdout)[-1500:].strip()
        raise StartError(f"manage.py {' '.join(arguments)}: exit {done.returncode}: {words}")
    return done.stdout


def _ready_document(reader: int) -> dict[str, Any]:
    """The one JSON line of a starting worker; an empty document when it ended or stayed silent."""
    line, deadline = b"", monotonic() + READY_TIMEOUT_S
    while not line.endswith(b"\n") and select.select([reader], [], [], max(0, deadline - monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            break
        line += part
    first = line.partition(b"\n")[0]  # what follows are the worker's heartbeats
    document: dict[str, Any] = json.loads(first) if first.strip() else {}
    return document


@contextlib.contextmanager
def _running_on(core: int) -> Iterator[None]:
    """What is spawned inside inherits the core, its threads included, from its first instruction."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _tree(pid: int) -> list[int]:
    """The process and its descendants; any of its threads may have been the parent of one."""
    children: list[str] = []
    with contextlib.suppress(OSError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            children += listing.read_text().split()
    return [pid, *(descendant for child in children for descendant in _tree(int(child)))]


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime and stime: fields 14 and 15 of proc(5)


def _pss_kb(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
