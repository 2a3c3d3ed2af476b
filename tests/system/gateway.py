"""The gateway as an operator runs it: `mcpserver start` in folders of its own, with the remotes that a test names.

`running(remotes, …)` migrates, makes two keys, writes the configuration, starts, waits until /health/ready says so, and ends
the whole process group. Nothing here reaches into the gateway's code: what a test knows comes over HTTP, from the commands
and from files. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests import peers

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 40.0
COMMAND_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
POLL_S = 0.05
# What the gateway inherits of whoever runs the tests: enough to find programs, nothing that changes what it does.
INHERITED = ("HOME", "LANG", "PATH", "TMPDIR", "USER")

T = TypeVar("T")
Remotes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves."""

    process: subprocess.Popen[bytes]
    folder: Path
    environment: Mapping[str, str]
    url: str
    keys: tuple[str, str]

    @property
    def key(self) -> str:
        return self.keys[0]

    def address(self, mode: str) -> str:
        """Where a client of tests/clients connects in a mode."""
        return f"{self.url}/sse" if mode == "sse" else f"{self.url}/mcp"

    def command(self, *words: str) -> dict[str, Any]:
        """What `manage.py WORDS` prints, run beside the gateway."""
        return manage(self.environment, *words)

    def remotes(self) -> dict[str, dict[str, Any]]:
        """What `mcpstatus` says of each remote."""
        found: dict[str, dict[str, Any]] = self.command("mcpstatus")["mcps"]
        return found

    def configure(self, remotes: Remotes) -> None:
        """Save the configuration as an editor does: a new file in the place of the old one."""
        fresh = self.folder / "mcp-config.new"
        fresh.write_text(configuration(remotes))
        fresh.replace(self.folder / "mcp-config.yaml")

    def log(self) -> str:
        """What it said: on stderr, and in its log files."""
        texts = [(self.folder / "stderr").read_text(errors="replace")]
        texts += [path.read_text(errors="replace") for path in sorted((self.folder / "logs").glob("*.log"))]
        return "\n".join(texts)


@contextlib.contextmanager
def running(remotes: Remotes, *, worker: bool = False, **environment: str) -> Iterator[Gateway]:
    """A gateway in front of `remotes`, the entries of `mcpServers` by name; `environment` is what it has besides.

    `worker`: with Celery, which probes.
    """
    options = [] if worker else ["--no-worker"]
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    own = _environment(folder) | environment
    try:
        (folder / "data").mkdir()
        (folder / "mcp-config.yaml").write_text(configuration(remotes))
        manage(own, "migrate")
        keys = (manage(own, "mcpkey", "generate", "first")["key"], manage(own, "mcpkey", "generate", "second")["key"])
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "mcpserver", "start", "--port", "0", *options],
                cwd=ROOT,
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            url = _started(process, folder)
            yield Gateway(process, folder, own, url, keys)
        finally:
            _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def configuration(remotes: Remotes) -> str:
    """The file's text. JSON is YAML, and needs no quoting rules of our own."""
    return json.dumps({"version": 1, "mcpServers": remotes}, indent=1)


def manage(environment: Mapping[str, str], *words: str) -> dict[str, Any]:
    """Run one command and return its document; `migrate` prints none."""
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
    )
    if words[0] == "migrate":
        assert done.returncode == 0, done.stderr
        return {}
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}") from None
    return document


def eventually(ask: Callable[[], T], holds: Callable[[T], bool], *, within_s: float, what: str) -> T:
    """Ask until it holds, and return what was answered; fails with the last answer at the deadline."""
    until = time.monotonic() + within_s
    while not holds(answer := ask()):
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {within_s:g} s, but {answer}")
        time.sleep(POLL_S)
    return answer


def _environment(folder: Path) -> dict[str, str]:
    """Every setting that says where things are, so that neither `.env` nor the tests' own environment does."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    names = {"MCP_DATA_DIR": "data", "MCP_RUN_DIR": "run", "MCP_LOG_DIR": "logs", "MCP_BACKUP_DIR": "backups"}
    folders = {variable: str(folder / name) for variable, name in names.items()}
    return (
        inherited
        | folders
        | {
            "SECRET_KEY": "only-for-tests",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "DEBUG": "",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": f"sqlite:///{folder}/data/gateway.sqlite3",
            "REDIS_URL": "",
            "MCP_CONFIG": str(folder / "mcp-config.yaml"),
            "MCP_WORKERS": "1",
            "MCP_SHUTDOWN_GRACE_S": "5",
            "MCP_LOG_TARGET": "files",
            "LOG_LEVEL": "info",
            "NO_PROXY": "127.0.0.1",
        }
    )


def _started(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The base URL from the one line that `mcpserver start` prints, once /health/ready agrees."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_DEADLINE_S)
    line = process.stdout.readline() if ready else b""
    said = json.loads(line) if line.endswith(b"\n") else {}
    if not said.get("ok"):
        words = (folder / "stderr").read_text(errors="replace")[-3000:]
        raise AssertionError(f"the gateway did not start: {line!r}\n{words}")
    url: str = said["url"].removesuffix("/mcp")
    with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
        assert json.load(answer) == {"status": "ready"}
    return url


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asked first: it ends what it started. The workers are in groups of their own, and die with it if it must be killed."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_DEADLINE_S)
    finally:
        peers.end_group(process, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
