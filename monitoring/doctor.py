"""What `mcp doctor` looks at: each check says how it is, and what to do where it is not well. Looks; `mend` alone changes
anything, and that only modes and missing folders.

A check that fails in a way nobody thought of is a finding too: a doctor must not die of its patient.
"""

import contextlib
import difflib
import os
import platform
import re
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Literal

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

import mcpserver
from gateway.tracing import switch as tracing
from mcpserver.lib import redact
from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import Limits, variable
from mcpserver.lib.sockets import is_loopback, listener_at, listening_socket
from mcpserver.supervisor import pidfile
from monitoring import asked, resources, status
from remotes.config import load
from remotes.tokens.vault import Vault

PROBE_S = 6.0
CONNECT_S = 2.0
_PRIVATE = 0o077
_PINNED = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^ ;]+)")
# Read by launchers, by commands, or between our own processes.
_ELSEWHERE = {"MCP_OUTPUT", "MCP_PYTHON", "MCP_DOCTOR_KEY", "MCP_CELERY_WORKER"}


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    fix: str = ""


def examine(*, url: str = "") -> list[Check]:
    """Everything, in the order in which one would look. `url`: how clients reach the gateway, through their proxy."""
    looks: list[Callable[[], Iterator[Check]]] = [
        _versions, _environment, _variables, _address, _folders, _modes, _disk, _clock, _database, _configuration, _gateway,
        _traces,
    ]  # fmt: skip
    found = [check for look in looks for check in _safely(look)]
    return found + (list(_safely(lambda: _proxy(url))) if url else [])


def mend() -> list[str]:
    """What can be set right without a question: folders that are missing, and files that others may read."""
    done = []
    for folder in _own_folders():
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700)
            done.append(f"made {folder}")
    for path in _secrets():
        if path.exists() and path.stat().st_mode & _PRIVATE:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_PRIVATE)
            done.append(f"closed {path} to others")
    return done


# Looking.


def _safely(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    name = getattr(look, "__name__", "proxy").strip("_<>")
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  Whatever it is, it is worth telling and stops nothing else.
        words = f"this could not be looked at: {type(error).__name__}: {redact.text(str(error))}"
        yield Check(
            name, "failed", words, "look into logs/error.log; if it is no use: mcp doctor --bundle FILE, and report it"
        )


def _versions() -> Iterator[Check]:
    words = (
        f"gateway {mcpserver.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    others = _not_as_locked(Path(settings.BASE_DIR) / "requirements.txt")
    if others:
        named = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        yield Check("versions", "warning", f"{words}; not what is locked: {named}", "./start installs what is locked")
    else:
        yield Check("versions", "ok", words)


def _not_as_locked(lock: Path) -> list[str]:
    """Packages of which another version is installed than each that is locked; of an image there is no lock to compare with."""
    if not lock.exists():
        return []
    locked: dict[str, set[str]] = {}
    for name, version in _PINNED.findall(lock.read_text()):
        locked.setdefault(name, set()).add(version)
    found = []
    for name, versions in locked.items():
        with contextlib.suppress(metadata.PackageNotFoundError):  # of another system, or imported where it is missed
            installed = metadata.version(name)
            if installed not in versions:
                found.append(f"{name} {installed}")
    return found


def _environment() -> Iterator[Check]:
    if len(settings.SECRET_KEY) < 32:
        fix = "let ./start make a .env, or set SECRET_KEY to 32 random characters or more"
        yield Check("secret_key", "warning", "SECRET_KEY is short: session ids could be guessed", fix)
    else:
        yield Check("secret_key", "ok", "SECRET_KEY is long enough")
    if not settings.MCP_ENCRYPTION_KEYS:
        fix = "set MCP_ENCRYPTION_KEYS: ./start makes one in .env"
        yield Check("encryption", "warning", "no key to encrypt tokens for remotes with", fix)
    elif (wrong := _unusable(settings.MCP_ENCRYPTION_KEYS)) is not None:
        yield Check("encryption", "failed", wrong.message, wrong.hint)
    if settings.DEBUG:
        yield Check("debug", "warning", "DEBUG is on", "unset DEBUG")


def _unusable(keys: list[str]) -> GatewayError | None:
    try:
        Vault(keys).check()
    except GatewayError as error:
        return error
    return None


def _variables() -> Iterator[Check]:
    """A variable that is misspelt does nothing, silently."""
    known = {name for name in dir(settings) if name.startswith("MCP_")} | {variable(one.name) for one in fields(Limits)}
    unknown = sorted(name for name in os.environ if name.startswith("MCP_") and name not in known | _ELSEWHERE)
    for name in unknown:
        meant = difflib.get_close_matches(name, known, 1)
        yield Check(
            "variables",
            "warning",
            f"{name} is set, and nothing reads it",
            f"did you mean {meant[0]}?" if meant else "unset it",
        )
    if not unknown:
        yield Check("variables", "ok", "every variable that begins with MCP_ is known")
    if settings.MCP_WORKERS > 1 and not settings.REDIS_URL:
        yield Check(
            "variables", "failed", f"MCP_WORKERS={settings.MCP_WORKERS} needs Redis", "set REDIS_URL, or MCP_WORKERS=1"
        )


def _address() -> Iterator[Check]:
    """Where it listens: may it, and would anybody else be there?"""
    where = f"{settings.HOST}:{settings.PORT}"
    if pidfile.owner(Path(settings.MCP_RUN_DIR)) is not None:
        yield Check("address", "ok", f"the gateway has {where}")
    else:
        try:
            listening_socket(settings.HOST, settings.PORT).close()
        except GatewayError as error:
            who = listener_at(settings.PORT)
            by = f" by pid {who}" if error.code == "port_taken" and who else ""
            yield Check("address", "failed", f"{error.message}{by}", error.hint)
        else:
            yield Check("address", "ok", f"{where} is free")
    names = {"localhost", "127.0.0.1", "[::1]"}
    if not is_loopback(settings.HOST) and set(settings.ALLOWED_HOSTS) <= names:
        fix = "set ALLOWED_HOSTS to the name that clients use"
        yield Check("address", "warning", f"{settings.HOST} is open to others, who would all get 421", fix)


def _folders() -> Iterator[Check]:
    for folder in _own_folders():
        if not folder.exists():
            yield Check("folders", "warning", f"{folder} is not there", "mcp doctor --fix")
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Check("folders", "failed", f"{folder} cannot be written by this user", f"chown it to {os.getuid()}")
    yield Check("folders", "ok", "looked at data, logs, run and backups")


def _modes() -> Iterator[Check]:
    opened = [path for path in _secrets() if path.exists() and path.stat().st_mode & _PRIVATE]
    for path in opened:
        yield Check("file_modes", "warning", f"{path} can be read by others", "mcp doctor --fix")
    if not opened:
        yield Check("file_modes", "ok", "secrets are readable by this user alone")


def _disk() -> Iterator[Check]:
    disk = resources.disk(Path(settings.MCP_DATA_DIR))
    words = f"{disk.percent} % used, {disk.free_mb} MB free"
    if disk.stopped_writes:
        yield Check("disk", "failed", words, "free some: mcpbackup prune; du -sh logs backups data")
    elif (disk.percent or 0) > 90:
        yield Check("disk", "warning", words, "free some: mcpbackup prune; du -sh logs backups data")
    else:
        yield Check("disk", "ok", words)


def _clock() -> Iterator[Check]:
    synchronised = resources.clock_synchronised()
    if synchronised is False:
        fix = "run a time service: timedatectl set-ntp true"
        yield Check("clock", "warning", "the kernel says that the clock is not synchronised", fix)
    else:
        yield Check("clock", "ok", "synchronised" if synchronised else "whether it is synchronised is not known")


def _database() -> Iterator[Check]:
    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except (*UNUSABLE, DatabaseError) as error:
        words = redact.text(" ".join(str(error).split()))
        yield Check("database", "failed", f"it cannot be used: {words}", "check DATABASE_URL, the disk and the server")
        return
    if waiting:
        yield Check(
            "database", "failed", f"{len(waiting)} migrations are not applied", ".venv/bin/python manage.py migrate"
        )
    else:
        yield Check("database", "ok", f"{connection.vendor}, all migrations applied")


def _configuration() -> Iterator[Check]:
    path = Path(settings.MCP_CONFIG)
    try:
        reading = load.read(path.read_text(encoding="utf-8"), os.environ, path.parent)
    except (OSError, UnicodeDecodeError) as error:
        yield Check("config", "failed", f"{path} cannot be read: {error}", "write it, or: mcprestore latest")
        return
    for problem in reading.errors:
        yield Check("config", "failed", f"line {problem.line}: {problem.message}", problem.hint or "mcpconfig validate")
    for problem in reading.warnings:
        yield Check(
            "config", "warning", f"line {problem.line}: {problem.message}", problem.hint or "mcpconfig validate"
        )
    if not reading.errors and not reading.warnings:
        yield Check("config", "ok", f"{len(reading.snapshot.remotes) if reading.snapshot else 0} remotes")


def _gateway() -> Iterator[Check]:
    document = status.document(asked.gather(Path(settings.MCP_RUN_DIR)))
    word, words = document["server"]["status"], document["dependencies"]
    fixes = {"stopped": "mcpserver start", "unhealthy": "look into logs/error.log, then: mcpserver restart"}
    yield Check(
        "gateway",
        "ok" if word == "healthy" else "warning",
        f"it is {word}",
        fixes.get(word, "mcpstatus -o table" * (word != "healthy")),
    )
    redis = words.get("redis")
    yield Check(
        "redis", "failed" if redis == "down" else "ok", str(redis), "check REDIS_URL and the server" * (redis == "down")
    )
    worker = words.get("worker")
    late = word != "stopped" and worker not in ("ok", "unknown")
    yield Check(
        "celery", "warning" if late else "ok", str(worker), "see logs/error.log, then: mcpserver restart" * late
    )
    for name, remote in document["mcps"].items():
        if remote["status"] not in ("healthy", "disabled", "unknown"):
            why = remote.get("last_error") or ", ".join(remote.get("missing_env") or ()) or remote["status"]
            is_said = str(why).startswith(f"{name} is ")
            told = str(why) if is_said else f"{name} is {remote['status']}: {str(why).removeprefix(f'{name}: ')}"
            yield Check("remote", "warning", redact.text(told), f"mcp remote test {name} --trace")


def _traces() -> Iterator[Check]:
    """Nothing, where no traces are wanted."""
    address = tracing.endpoint(os.environ)
    if (wrong := tracing.trouble(os.environ)) is not None:
        yield Check("traces", "failed", wrong.what, wrong.fix)
    elif (place := tracing.place(address)) is not None:
        name = f"{place[0]}:{place[1]}"
        try:
            socket.create_connection(place, timeout=CONNECT_S).close()
        except OSError as error:
            fix = "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT"
            yield Check("traces", "warning", f"the collector at {name} cannot be reached: {error}", fix)
        else:
            yield Check("traces", "ok", f"a collector listens at {name}")


def _proxy(url: str) -> Iterator[Check]:
    """Through whatever stands in front: health must come, and /sse must answer at once instead of being held back."""
    base = url.rstrip("/").removesuffix("/mcp")
    if not base.startswith(("http://", "https://")):
        raise GatewayError("usage", f"{url} is no http address")
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"{base}/health/live", timeout=PROBE_S) as answer:  # noqa: S310 - checked above
            answer.read(4096)
    except urllib.error.HTTPError as error:
        yield Check("proxy", "failed", f"{base}/health/live answers {error.code}", "let the proxy pass all paths on")
        return
    except OSError as error:
        yield Check("proxy", "failed", f"{base} cannot be reached: {error}", "check the address, the proxy and TLS")
        return
    yield Check("proxy", "ok", f"{base} answers in {(time.monotonic() - began) * 1000:.0f} ms")
    yield _streaming(base)


def _streaming(base: str) -> Check:
    key = os.environ.get("MCP_DOCTOR_KEY", "")
    if not key:
        return Check("proxy_streams", "warning", "not tried: no key", "set MCP_DOCTOR_KEY to a key of this gateway")
    request = urllib.request.Request(f"{base}/sse", headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - as above
    fix = "switch response buffering off for /mcp, /sse and /messages/ (nginx: proxy_buffering off)"
    try:
        with urllib.request.urlopen(request, timeout=PROBE_S) as answer:  # noqa: S310 - as above
            first = answer.readline(1024)
    except TimeoutError:
        return Check("proxy_streams", "failed", f"no event within {PROBE_S:g} s: the proxy holds streams back", fix)
    except OSError as error:
        return Check("proxy_streams", "failed", f"no stream: {error}", fix)
    is_event = first.startswith((b"event:", b":"))
    return Check(
        "proxy_streams",
        "ok" if is_event else "failed",
        "events arrive one by one" if is_event else "no event",
        fix * (not is_event),
    )


def _own_folders() -> list[Path]:
    return [
        Path(one)
        for one in (settings.MCP_DATA_DIR, settings.MCP_LOG_DIR, settings.MCP_RUN_DIR, settings.MCP_BACKUP_DIR)
    ]


def _secrets() -> list[Path]:
    return [settings.BASE_DIR / ".env", Path(settings.MCP_DATA_DIR) / "gateway.sqlite3", Path(settings.MCP_RUN_DIR)]
