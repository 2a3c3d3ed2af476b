"""What a backup holds: one section for each thing that could not be made again, each saying how it is saved and brought back.

A section that is brought back is read and judged whole before anything changes; then `restore` is one step that happens or
does not. The order is that of `SECTIONS`: what can be repeated first, the configuration, which everybody follows, last.
"""

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings

import keys.selectors
import keys.services
import remotes.selectors
import remotes.services
from keys import saved
from keys.saved import SavedKey
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import Limits
from remotes import saved_pins
from remotes.config.load import digest
from remotes.config.snapshot import Snapshot
from remotes.saved_pins import SavedPin

# What the environment says besides limits. Told and compared; never brought back: the environment is the operator's.
_SETTINGS = ("MCP_WORKERS", "ALLOWED_HOSTS", "MCP_ALLOWED_ORIGINS", "MCP_TRUSTED_PROXIES", "LOG_LEVEL")


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a restore works: `backup` is its name, `revoked` what other backups know to be revoked."""

    config: Path
    backup: str
    actor: str
    revoked: Mapping[str, datetime]


class Prepared(Protocol):
    def plan(self) -> dict[str, Any]:
        """What `restore` would change now."""

    def restore(self) -> dict[str, Any]:
        """Do it; what has changed."""


@dataclass(frozen=True, slots=True)
class Section:
    """`dump` gets the path of the configuration's file; `prepare` what `dump` gave, or raises GatewayError."""

    dump: Callable[[Path], Any]
    prepare: Callable[[Any, Bench], Prepared]
    is_only_told: bool = False


# Keys.


@dataclass(frozen=True, slots=True)
class _Keys:
    keys: list[SavedKey]
    bench: Bench

    def plan(self) -> dict[str, Any]:
        return keys.selectors.restoring(self.keys, self.bench.revoked).document()

    def restore(self) -> dict[str, Any]:
        made = keys.services.restore(
            self.keys, revoked=self.bench.revoked, actor=self.bench.actor, backup=self.bench.backup
        )
        return made.document()


def _prepare_keys(document: Any, bench: Bench) -> Prepared:
    return _Keys(saved.read(document), bench)


# Tool pins.


@dataclass(frozen=True, slots=True)
class _Pins:
    pins: list[SavedPin]
    bench: Bench

    def plan(self) -> dict[str, Any]:
        return _counted(saved_pins.lacking(self.pins))

    def restore(self) -> dict[str, Any]:
        return _counted(saved_pins.restore(self.pins, actor=self.bench.actor))


def _prepare_pins(document: Any, bench: Bench) -> Prepared:
    return _Pins(saved_pins.read(document), bench)


def _counted(pins: list[SavedPin]) -> dict[str, Any]:
    """By remote: there may be thousands."""
    return {"pinned": dict(Counter(pin.remote for pin in pins))}


# The configuration.


@dataclass(frozen=True, slots=True)
class Config:
    """A text that ran, to run again. It is laid over whatever the file holds now: the backup of now has that."""

    text: str
    bench: Bench

    def plan(self) -> dict[str, Any]:
        head = remotes.selectors.head()
        then = self._snapshot(self.text)
        now = self._snapshot(head[2]) if head is not None else None
        return {
            "revision": head[0] if head is not None else None,
            "changes": head is None or head[2] != self.text,
            "file_differs": file_text(self.bench.config) != self.text.encode(),
            "remotes": _difference(now, then),
        }

    def restore(self) -> dict[str, Any]:
        plan = self.plan()
        number = remotes.services.replace(self.text, path=self.bench.config, actor=self.bench.actor)
        return plan | {"revision": number}

    def _snapshot(self, text: str) -> Snapshot:
        return remotes.services.validated(text, path=self.bench.config)


def _dump_config(path: Path) -> dict[str, Any] | None:
    """The revision that runs; and the file, where that is something else: nobody has applied it, and nobody else keeps it."""
    held = file_text(path)
    head = remotes.selectors.head() or _before_the_first_start(held)
    if head is None:
        return None
    other = held if held is not None and held != head[2].encode() else None
    return {
        "revision": head[0],
        "sha256": head[1],
        "text": head[2],
        "file": None if other is None else base64.b64encode(other).decode(),
    }


def _before_the_first_start(held: bytes | None) -> tuple[int, str, str] | None:
    try:
        text = (held or b"").decode()
    except UnicodeDecodeError:
        return None
    return (0, digest(text), text) if text else None


def _prepare_config(document: Any, bench: Bench) -> Prepared:
    if document is None:
        return _Nothing("the backup holds no configuration: there was none yet")
    text, sha256 = (document.get(name) if isinstance(document, dict) else None for name in ("text", "sha256"))
    if not isinstance(text, str) or digest(text) != sha256:
        raise GatewayError("invalid_backup", "the configuration in this backup is not the revision that it names")
    remotes.services.validated(text, path=bench.config)
    return Config(text, bench)


@dataclass(frozen=True, slots=True)
class _Nothing:
    why: str

    def plan(self) -> dict[str, Any]:
        return {"nothing": self.why}

    def restore(self) -> dict[str, Any]:
        return self.plan()


def _difference(now: Snapshot | None, then: Snapshot) -> dict[str, list[str]]:
    before = now.remotes if now is not None else {}
    return {
        "added": [name for name in then.remotes if name not in before],
        "removed": [name for name in before if name not in then.remotes],
        "changed": [name for name, spec in then.remotes.items() if name in before and before[name] != spec],
    }


def file_text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


# Settings.


@dataclass(frozen=True, slots=True)
class _Settings:
    then: Mapping[str, Any]

    def plan(self) -> dict[str, Any]:
        now = _dump_settings(Path())
        names = sorted(name for name in self.then.keys() & now.keys() if self.then[name] != now[name])
        return {"differ": {name: {"backup": self.then[name], "now": now[name]} for name in names}}

    def restore(self) -> dict[str, Any]:
        return self.plan()


def _dump_settings(_: Path) -> dict[str, Any]:
    limits = {field.name: getattr(settings.LIMITS, field.name) for field in fields(Limits)}
    return {name: getattr(settings, name) for name in _SETTINGS} | limits


def _prepare_settings(document: Any, _: Bench) -> Prepared:
    if not isinstance(document, dict):
        raise GatewayError("invalid_backup", "the settings in this backup are none")
    return _Settings(document)


SECTIONS: Mapping[str, Section] = {
    "settings": Section(_dump_settings, _prepare_settings, is_only_told=True),
    "keys": Section(lambda _: list(keys.selectors.exported()), _prepare_keys),
    "pins": Section(lambda _: saved_pins.exported(), _prepare_pins),
    "config": Section(_dump_config, _prepare_config),
}
