"""What `mcp doctor` looks at: each check says how it is, and what to do where it is not well. Looks; `mend` alone changes
anything, and that only modes and missing folders.

A check that fails in a way nobody thought of is a finding too: a doctor must not die of its patient.
"""

import io
import json
import os
import platform
import socket
import stat
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

import mcpserver
from gateway import tracing
from mcpserver.lib import redact
from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import GatewayError
from monitoring import asked, logs, resources, status
from remotes.config import load

BUNDLE_LOG_LINES = 2000
PROBE_S = 6.0
CONNECT_S = 2.0
_PRIVATE = 0o077


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    fix: str = ""


def examine(*, url: str = "") -> list[Check]:
    """Everything, in the order in which one would look. `url`: how clients reach the gateway, through their proxy."""
    looks: list[Callable[[], Iterator[Check]]] = [
        _versions, _environment, _folders, _modes, _disk, _clock, _database, _configuration, _gateway,
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


def bundle(path: Path, checks: list[Check]) -> list[str]:
    """A redacted archive for bug reports: what was found, the status, names of settings, the end of the log."""
    gathered = asked.gather(Path(settings.MCP_RUN_DIR))
    parts: dict[str, Any] = {
        "checks.json": [asdict(check) for check in checks],
        "status.json": status.document(gathered),
        "settings.json": {name: bool(os.environ.get(name)) for name in sorted(os.environ) if _is_ours(name)},
        "config.json": _configuration_redacted(),
        "log.json": logs.last(Path(settings.MCP_LOG_DIR), lambda line: True, BUNDLE_LOG_LINES),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, value in parts.items():
            content = _without_secrets(json.dumps(redact.document(value), indent=1, default=str)).encode()
            entry = tarfile.TarInfo(f"mcp-doctor/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return list(parts)


# Looking.


def _safely(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    name = getattr(look, "__name__", "proxy").strip("_<>")
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  Whatever it is, it is worth telling and stops nothing else.
        yield Check(name, "failed", f"this could not be looked at: {type(error).__name__}: {redact.text(str(error))}")


def _versions() -> Iterator[Check]:
    words = (
        f"gateway {mcpserver.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    yield Check("versions", "ok", words)


def _environment() -> Iterator[Check]:
    if len(settings.SECRET_KEY) < 32:
        fix = "let ./start make a .env, or set SECRET_KEY to 32 random characters or more"
        yield Check("secret_key", "warning", "SECRET_KEY is short: session ids could be guessed", fix)
    else:
        yield Check("secret_key", "ok", "SECRET_KEY is long enough")
    if not settings.MCP_ENCRYPTION_KEYS:
        yield Check("encryption", "warning", "no key to encrypt tokens for remotes with", "set MCP_ENCRYPTION_KEYS")
    if settings.DEBUG:
        yield Check("debug", "warning", "DEBUG is on", "unset DEBUG")


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
    except UNUSABLE as error:
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


# Redacting.


def _is_ours(name: str) -> bool:
    return name.startswith("MCP_") or name in {
        "HOST",
        "PORT",
        "DATABASE_URL",
        "REDIS_URL",
        "SECRET_KEY",
        "DEBUG",
        "LOG_LEVEL",
        "ALLOWED_HOSTS",
    }


def _configuration_redacted() -> Any:
    """What was written, unexpanded: `${VAR}` stays; values of env, headers and args, where people paste secrets, do not."""
    path = Path(settings.MCP_CONFIG)
    try:
        value = load.read(path.read_text(encoding="utf-8"), {}, path.parent).value
    except (OSError, UnicodeDecodeError):
        return None
    return _hidden(value)


def _hidden(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {
            key: redact.MASK if name in ("env", "headers", "auth") else _hidden(one, str(key))
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [redact.MASK] * len(value) if name == "args" else [_hidden(one) for one in value]
    return value


def _without_secrets(text: str) -> str:
    """The values of this process's own secrets, wherever they stand."""
    known = [settings.SECRET_KEY, *settings.MCP_ENCRYPTION_KEYS, os.environ.get("MCP_DOCTOR_KEY", "")]
    known += [value for name, value in os.environ.items() if redact.suspicious(name) and len(value) >= 8]
    known += [settings.DATABASES["default"].get("PASSWORD") or ""]
    for secret in known:
        if len(secret) >= 6:
            text = text.replace(json.dumps(secret)[1:-1], redact.MASK)
    return text
