"""`mcpserver start|stop|restart|status`: the processes of the gateway.

Wiring: settings become sockets and child specs here, the supervisor runs them. `start` prints its one document when every
child is ready and stays in the foreground (with --detach it comes back then); the others ask it over its control socket.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import psutil
from django.conf import settings
from django.core.management.base import CommandParser
from django.db import connection, connections

from keys.selectors import any_opens
from mcpserver.lib import ballast, control, log
from mcpserver.lib.command import SCHEMA, Answer, JsonCommand, Result, Subcommand, usage_error
from mcpserver.lib.database import UNUSABLE, unapplied, unavailable
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.sockets import is_loopback, listening_socket
from mcpserver.supervisor import door, pidfile, plan
from mcpserver.supervisor.address import url_of
from mcpserver.supervisor.arbiter import Arbiter
from mcpserver.supervisor.plan import Spec
from remotes.management.config.changing import Reload as TakeFile

# What sweeping up and answering takes after the last process was told to end, and killed if need be.
SWEEP_S = 10.0
ASK_TIMEOUT_S = 5.0
# Workers whose supervisor was killed close the port as soon as their loop turns.
LEAVING_S = 5.0
# How long a database server that does not answer is waited for at start.
DATABASE_PATIENCE_S = 10.0
DATABASE_RETRY_S = 0.5
# A restart drains every child, one after the other, each after its successor has started.
RESTART_MAX_S = 600.0
# What a supervisor's refusal means to a script.
_EXITS: Mapping[str, Exit] = {"locked": Exit.CONFLICT, "invalid_config": Exit.CONFIG}


class Start(Subcommand):
    help = "Start the gateway and stay in the foreground; one JSON line when all is ready."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST, default 127.0.0.1)")
        parser.add_argument("--port", type=_port, default=settings.PORT, help="port, 0 for any (PORT, default 3000)")
        parser.add_argument("--workers", type=_count, default=settings.MCP_WORKERS, help="processes (MCP_WORKERS)")
        parser.add_argument("--no-worker", action="store_true", help="no Celery worker: no probes, no daily tasks")
        parser.add_argument("--detach", action="store_true", help="come back when all is ready")
        parser.add_argument(
            "--last-known-good",
            action="store_true",
            help="where the file is not valid, start with the revision that ran last, and say so",
        )

    def run(
        self, *, host: str, port: int, workers: int, no_worker: bool, detach: bool, last_known_good: bool
    ) -> Result:
        if workers > 1 and not settings.REDIS_URL:
            raise usage_error(
                f"{workers} workers count streams and find each other through Redis, and REDIS_URL is not set",
                hint="set REDIS_URL, or leave MCP_WORKERS at 1",
            )
        _refuse_unguarded(host)
        if detach:
            return _detached()
        with pidfile.held(settings.MCP_RUN_DIR) as was_killed, _database_held_open(), _logged():
            sockets = _sockets(host, port, workers, patience_s=LEAVING_S if was_killed else 0.0)
            _refuse_unmigrated()
            gateways = [_gateway(number, sockets, host, last_known_good) for number in range(workers)]
            specs = gateways if no_worker else [*gateways, _celery()]
            raise SystemExit(_supervise(specs, sockets, url=url_of(host, sockets[0].getsockname()[1])))


class Stop(Subcommand):
    help = "Let the running requests end (30 s), then end every process."

    def run(self) -> Result:
        began_at = time.monotonic()
        pid = _owner()
        patience_s = _stops_within_s() + SWEEP_S
        document = _asked_to_stop(pid, patience_s)
        left_s = max(1.0, patience_s - (time.monotonic() - began_at))
        if not pidfile.wait_until_free(settings.MCP_RUN_DIR, timeout_s=left_s):
            raise GatewayError("timeout", f"the supervisor (pid {pid}) did not end", hint=f"kill -9 {pid}", pid=pid)
        return {**document, "took_s": round(time.monotonic() - began_at, 3)}


class Restart(Subcommand):
    help = "Replace every process, one after the other: the new one is ready before the old one drains."

    def run(self) -> Result:
        _owner()
        return _answer(_asked({"op": "restart"}, timeout_s=RESTART_MAX_S))


class Reload(TakeFile):
    help = (
        "Take the configuration file now, without replacing a process: mcpconfig reload. For the environment: restart."
    )


class Status(Subcommand):
    help = "What runs, since when, and what crashed."

    def run(self) -> Result:
        return _answer(_asked({"op": "status"}, timeout_s=ASK_TIMEOUT_S))


class Command(JsonCommand):
    help = "Start, stop, restart and see the processes of the gateway."
    subcommands: ClassVar[Mapping[str, type[Subcommand]]] = {
        "start": Start,
        "stop": Stop,
        "restart": Restart,
        "reload": Reload,
        "status": Status,
    }


# Starting.


def _refuse_unguarded(host: str) -> None:
    """Beyond this machine only when somebody could authenticate: nothing is gained by a gateway that refuses everyone."""
    if is_loopback(host) or any_opens(datetime.now(UTC)):
        return
    raise GatewayError(
        "no_key",
        f"{host} is reachable from other machines and there is no key yet",
        hint="make one with: mcpkey generate main",
        exit_code=Exit.KEY,
    )


def _refuse_unmigrated() -> None:
    """Workers without a table that they need later would start, and fail and log ever after."""
    if missing := _unapplied():
        raise GatewayError(
            "not_migrated",
            f"the database has not seen {len(missing)} of this version's migrations, the first is {missing[0]}",
            hint="run: .venv/bin/python manage.py migrate",
        )


def _unapplied() -> list[str]:
    """A server that is only starting itself, as after a power cut, is waited for. What is wrong with a file the workers find out:
    they can serve from one that nobody can write."""
    is_server = connection.vendor != "sqlite"
    until = time.monotonic() + DATABASE_PATIENCE_S
    while True:
        try:
            return unapplied()
        except UNUSABLE as error:
            if not is_server:
                return []
            if time.monotonic() > until:
                raise unavailable(error) from None
        finally:
            connections.close_all()
        time.sleep(DATABASE_RETRY_S)


def _supervise(specs: Sequence[Spec], sockets: Sequence[socket.socket], *, url: str) -> int:
    arbiter = Arbiter(
        specs,
        sockets=sockets,
        run_dir=settings.MCP_RUN_DIR,
        environment=_environment(),
        announce=_announce,
        facts={"url": url},
    )
    return arbiter.run()


def _sockets(host: str, port: int, count: int, *, patience_s: float) -> list[socket.socket]:
    """One for each worker, on one address; with port 0 the kernel chooses it."""
    until = time.monotonic() + patience_s
    while (first := _listening(host, port, is_last_try=time.monotonic() >= until)) is None:
        time.sleep(0.05)
    chosen = first.getsockname()[1]
    return [first, *(listening_socket(host, chosen, sibling=True) for _ in range(count - 1))]


def _listening(host: str, port: int, *, is_last_try: bool) -> socket.socket | None:
    try:
        return listening_socket(host, port)
    except GatewayError as error:
        if error.code != "port_taken":
            raise
        if not is_last_try:
            return None
        if (pid := _listener_at(port)) is not None:
            error.message, error.facts = f"port {port} is taken (pid {pid})", {"port": port, "pid": pid}
        raise


def _listener_at(port: int) -> int | None:
    """Who listens there; None when this user may not know."""
    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    here = (each for each in found if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port)
    return next((each.pid for each in here), None)


def _gateway(number: int, sockets: Sequence[socket.socket], host: str, last_known_good: bool) -> Spec:
    descriptors = {each: listener.fileno() for each, listener in enumerate(sockets)}
    words = ("mcpgateway", "--worker", str(number), *(("--last-known-good",) if last_known_good else ()))
    return Spec(
        name=f"gateway-{number}",
        argv=(sys.executable, str(settings.BASE_DIR / "manage.py"), *words),
        # What was running goes on, whatever somebody has made of the file meanwhile.
        again=("--last-known-good",),
        sockets=(descriptors.pop(number),),
        spares=descriptors,
        number=number,
        control=settings.MCP_RUN_DIR / f"gateway-{number}.sock",
        beats=True,
        environment={"HOST": host, "PORT": str(sockets[0].getsockname()[1]), "MCP_WORKERS": str(len(sockets))},
        grace_s=_grace_s(),
    )


def _celery() -> Spec:
    module = ("-m", "mcpserver.celery_worker")
    path = os.pathsep.join(filter(None, [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]))
    return Spec(
        name="celery",
        argv=(sys.executable, *module),
        environment={"PYTHONPATH": path},
        overlap=False,
        grace_s=_grace_s(),
    )


def _announce(document: dict[str, Any]) -> None:
    if warnings := _warnings(document["children"].values()):
        document["warnings"] = warnings
    with suppress(BrokenPipeError):  # Who started us need not stay to read.
        print(json.dumps({"schema": SCHEMA, **document}), flush=True)


def _warnings(children: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    started = (child.get("started_with") or {} for child in children)
    pending = next((one for one in started if one.get("pending_error")), None)
    if pending is None:
        return []
    message = f"{settings.MCP_CONFIG.name} is not valid: revision {pending['revision']}, which ran last, is served"
    return [{"code": "config_pending", "message": message, "errors": pending["pending_error"]}]


def _environment() -> dict[str, str]:
    """The environment this process was started with: settings have since copied `.env` into os.environ, and a restarted
    child would otherwise see the old values and never the edited file."""
    try:
        pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    return {os.fsdecode(name): os.fsdecode(value) for name, found, value in (p.partition(b"=") for p in pairs) if found}


@contextmanager
def _database_held_open() -> Iterator[None]:
    """On a full disk, a WAL database whose last connection was closed cannot be opened again, not even to read.

    So this process, which outlives the others, keeps one that has read.
    """
    database = settings.DATABASES["default"]
    path = Path(database["NAME"]).absolute()
    if database["ENGINE"] != "mcpserver.lib.sqlite" or not path.exists():
        yield
        return
    try:
        ballast.make_room(path)
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=20)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.DatabaseError, OSError) as error:
        raise unavailable(error) from None
    try:
        yield
    finally:
        connection.close()


@contextmanager
def _logged() -> Iterator[None]:
    limits = settings.LIMITS
    log.start(
        "supervisor",
        settings.MCP_LOG_DIR,
        max_bytes=limits.log_max_bytes,
        files=limits.log_files,
        level=settings.LOG_LEVEL,
        target=settings.MCP_LOG_TARGET,
    )
    try:
        yield
    finally:
        log.stop()


def _detached() -> Result:
    """The same command in a session of its own; its first line is the answer."""
    if (pid := pidfile.owner(settings.MCP_RUN_DIR)) is not None:
        raise pidfile.already_running(pid)
    settings.MCP_LOG_DIR.mkdir(parents=True, exist_ok=True)
    argv = [argument for argument in sys.argv if argument != "--detach"] + ["-o", "json"]
    with (settings.MCP_LOG_DIR / "supervisor.stderr.log").open("ab") as words:
        supervisor = subprocess.Popen(
            [sys.executable, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,
            env=_environment(),
        )
    assert supervisor.stdout is not None
    try:
        line = supervisor.stdout.readline()
    except KeyboardInterrupt:
        supervisor.send_signal(signal.SIGTERM)
        raise
    finally:
        supervisor.stdout.close()
    try:
        document = json.loads(line)
    except ValueError:
        document = {
            "error": "child_failed",
            "message": "the supervisor ended without a word",
            "hint": f"see {words.name}",
        }
    if document.get("ok"):
        return dict(document)
    return Answer({"ok": False} | document, _exit(supervisor.wait()))


# Asking the one that runs.


def _asked(request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    return control.ask(settings.MCP_RUN_DIR / door.NAME, request, timeout_s=timeout_s)


def _answer(document: dict[str, Any]) -> Result:
    if document.get("ok"):
        return document
    return Answer(document, _EXITS.get(str(document.get("error")), Exit.FAILED))


def _asked_to_stop(pid: int, patience_s: float) -> dict[str, Any]:
    """Over its socket, so that it can tell how it went; by signal when its socket does not answer."""
    try:
        return _asked({"op": "stop"}, timeout_s=patience_s)
    except GatewayError:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return {}


def _owner() -> int:
    pid = pidfile.owner(settings.MCP_RUN_DIR)
    if pid is None:
        hint = "start it with: mcpserver start"
        raise GatewayError("not_running", "the gateway is not running", hint=hint, exit_code=Exit.NOT_RUNNING)
    return pid


def _grace_s() -> float:
    return plan.with_farewell(settings.LIMITS.shutdown_grace_s)


def _stops_within_s() -> float:
    """As those that run know it: their configuration file may say more than our environment."""
    with suppress(GatewayError):
        return float(_asked({"op": "status"}, timeout_s=ASK_TIMEOUT_S).get("grace_s", 0.0)) or _grace_s()
    return _grace_s()


def _exit(status: int) -> Exit:
    return Exit(status) if status in {int(code) for code in Exit} and status else Exit.FAILED


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise ArgumentTypeError(f"{text!r} is not a number of workers")
    return int(text)
