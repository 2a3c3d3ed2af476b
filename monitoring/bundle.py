"""What `mcp doctor --bundle` writes for a bug report: what was found, the status, the shape of the configuration, the log's end.

It leaves this machine, so nothing secret is in it: neither what looks like a secret, nor what stands where people put them
(headers, environments, arguments, addresses), nor any of those values where a log or an error quotes it.
"""

import base64
import contextlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from django.conf import settings

from mcpserver.lib import redact
from monitoring import asked, logs, status
from monitoring.doctor import Check
from remotes.config import load

LOG_LINES = 2000
# Below that length a value is as likely a word of the text as a secret.
_SECRET_MIN = 6
_WHOLLY_HIDDEN = ("env", "headers", "auth")
_REFERENCE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_FILE = re.compile(r"\$\{file:([^}]+)\}")
_FILE_MAX = 64 * 1024
_WORDS = re.compile(r"[\s,;=&]+")
_OURS = frozenset({"HOST", "PORT", "DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "LOG_LEVEL", "ALLOWED_HOSTS"})


def write(path: Path, checks: list[Check]) -> list[str]:
    """The names of its parts. Raises FileExistsError rather than write over anything."""
    gathered = asked.gather(Path(settings.MCP_RUN_DIR))
    configured = _configuration()
    parts: dict[str, Any] = {
        "checks.json": [asdict(check) for check in checks],
        "status.json": status.document(gathered),
        "settings.json": {name: bool(os.environ.get(name)) for name in sorted(os.environ) if _is_ours(name)},
        "config.json": shape(configured),
        "log.json": logs.last(Path(settings.MCP_LOG_DIR), lambda line: True, LOG_LINES),
    }
    secrets = known_secrets(configured)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, value in parts.items():
            text = json.dumps(redact.document(value), indent=1, default=str, ensure_ascii=False)
            content = without(text, secrets).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"mcp-doctor/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return list(parts)


def _is_ours(name: str) -> bool:
    return name.startswith(("MCP_", "OTEL_")) or name in _OURS


def _configuration() -> Any:
    """What was written, unexpanded: `${VAR}` stays."""
    path = Path(settings.MCP_CONFIG)
    try:
        return load.read(path.read_text(encoding="utf-8"), {}, path.parent).value
    except (OSError, UnicodeDecodeError):
        return None


def shape(value: Any, name: str = "") -> Any:
    """A configuration without what people paste secrets into; of an address, where it leads is left."""
    match value:
        case Mapping():
            hidden = name in _WHOLLY_HIDDEN
            return {key: redact.MASK if hidden else shape(one, str(key)) for key, one in value.items()}
        case list() | tuple():
            return [redact.MASK] * len(value) if name == "args" else [shape(one, name) for one in value]
        case str() if "://" in value:
            return _origin(value)
        case _:
            return value


def _origin(address: str) -> str:
    try:
        parts = urlsplit(address)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        return redact.MASK
    is_bare = parts.path in ("", "/", "/mcp", "/sse") and not (parts.query or parts.fragment)
    return f"{parts.scheme}://{host}{parts.path if is_bare else '/' + redact.MASK}"


def known_secrets(configured: Any) -> list[str]:
    """Every value that may be one, as it may be quoted: longest first, so that none is cut by a part of it."""
    found = {settings.SECRET_KEY, *settings.MCP_ENCRYPTION_KEYS, settings.DATABASES["default"].get("PASSWORD") or ""}
    found |= {unquote(urlsplit(settings.REDIS_URL).password or "")}
    found |= {value for name, value in os.environ.items() if redact.suspicious(name) or name.endswith("_HEADERS")}
    found |= set(_placed(configured))
    words = {word for value in found for word in (value, *_WORDS.split(value)) if len(word) >= _SECRET_MIN}
    spelt = {form for word in words for form in _forms(word)}
    return sorted(spelt, key=len, reverse=True)


def _placed(value: Any, name: str = "", *, hidden: bool = False) -> Iterator[str]:
    """What stands where secrets are put, and what it refers to."""
    match value:
        case Mapping():
            for key, one in value.items():
                yield from _placed(one, str(key), hidden=hidden or str(key) in _WHOLLY_HIDDEN)
        case list() | tuple():
            for one in value:
                yield from _placed(one, name, hidden=hidden)
        case str():
            yield from _referred(value)
            is_argument = name == "args" and any(character.isdigit() for character in value)
            if hidden or is_argument or redact.suspicious(f"{name}="):
                yield value
            elif "://" in value:
                yield from _in_address(value)


def _referred(value: str) -> Iterator[str]:
    for variable, default in _REFERENCE.findall(value):
        yield os.environ.get(variable, "")
        yield default
    for file in _FILE.findall(value):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            yield Path(file).expanduser().read_text(encoding="utf-8")[:_FILE_MAX].strip()


def _in_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        yield address
        return
    words = re.split(r"[/?&=#]", f"{parts.path}?{parts.query}#{parts.fragment}")
    for word in (parts.password or "", *filter(_is_odd, words)):
        yield word
        yield unquote(word)


def _is_odd(word: str) -> bool:
    """Whether a part of an address is more than a word: a token among the folders."""
    return any(character.isdigit() for character in word) or len(word) >= 20


def _forms(word: str) -> Iterator[str]:
    yield word
    yield json.dumps(word, ensure_ascii=False)[1:-1]
    yield json.dumps(word)[1:-1]
    yield quote(word, safe="")
    yield base64.b64encode(word.encode("utf-8", "replace")).decode().rstrip("=")


def without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, redact.MASK)
    return text
