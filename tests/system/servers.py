"""PostgreSQL, Redis and nginx as real processes, each with its own folder and port, for tests to kill, freeze and start again.

What refuses to run as root runs as an unprivileged user. Nothing outlives its `with`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from tests import peers

READY_S = 20.0
_DEBIAN = "/usr/lib/postgresql"

S = TypeVar("S", bound="Server")


class Server:
    """One process that listens; `start` comes back when it does."""

    def __init__(self, argv: Sequence[str], folder: Path, port: int, *, user: str | None, cwd: Path) -> None:
        self.folder = folder
        self.port = port
        self._argv = list(argv)
        self._user = user
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._process is None
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._user,
                start_new_session=True,
            )
        until = time.monotonic() + READY_S
        while not self.is_ready():
            hopeless = self._process.poll() is not None or time.monotonic() > until
            assert not hopeless, (self.folder / "output").read_text()
            time.sleep(0.05)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """Without a goodbye, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            peers.end_group(process, signal.SIGKILL)

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, number)


class Postgres(Server):
    @property
    def url(self) -> str:
        return f"postgresql://gateway:secret@127.0.0.1:{self.port}/postgres"

    def is_ready(self) -> bool:
        ready = program("pg_isready")
        done = subprocess.run([ready, "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False)
        return done.returncode == 0

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """With every process that serves a connection: each is in a session of its own."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        for one in [first, *first.children()]:
            one.send_signal(number)

    def query(self, statement: str) -> str:
        psql = [program("psql"), self.url, "-X", "-A", "-t", "-c", statement]
        return subprocess.run(psql, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


class Redis(Server):
    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def postgres(*options: str) -> Iterator[Postgres]:
    with _folder() as (folder, user):
        data, port = folder / "data", peers.free_port()
        (folder / "password").write_text("secret")
        words = ["-A", "scram-sha-256", "--pwfile", str(folder / "password"), "-U", "gateway", "-N", "-E", "UTF8"]
        subprocess.run(
            [program("initdb"), "-D", str(data), *words],
            check=True, cwd=folder, user=user, stdout=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        argv = [program("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
        with _running(Postgres([*argv, "-c", "fsync=off", *options], folder, port, user=user, cwd=folder)) as server:
            yield server


@contextlib.contextmanager
def redis(*options: str) -> Iterator[Redis]:
    with _folder() as (folder, user):
        port = peers.free_port()
        argv = [
            program("redis-server"),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
            *options,
        ]
        with _running(Redis(argv, folder, port, user=user, cwd=folder)) as server:
            yield server


@contextlib.contextmanager
def nginx(configuration: Callable[[Path, int], str]) -> Iterator[Server]:
    """`configuration` writes what stands inside `http { }`, given the folder and the port to listen on."""
    with _folder() as (folder, user):
        port = peers.free_port()
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 2;"
        text += f"events {{ worker_connections 1024; }} http {{ access_log off; {temporary}\n"
        (folder / "nginx.conf").write_text(text + configuration(folder, port) + "\n}\n")
        argv = [program("nginx"), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        with _running(Server(argv, folder, port, user=user, cwd=folder)) as server:
            yield server


@contextlib.contextmanager
def _running(server: S) -> Iterator[S]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def _folder() -> Iterator[tuple[Path, str | None]]:
    """An empty folder, and the user it belongs to: this one, unless that is root."""
    folder = Path(tempfile.mkdtemp(prefix="server-"))
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    try:
        yield folder, user
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def program(name: str) -> str:
    """Where a program is; Debian keeps PostgreSQL's off the PATH. Without it the test is skipped, in CI it fails."""
    versions = sorted(Path(_DEBIAN).glob(f"*/bin/{name}")) if Path(_DEBIAN).is_dir() else []
    found = str(versions[-1]) if versions else shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"needs {name}")
    pytest.skip(f"needs {name}")
