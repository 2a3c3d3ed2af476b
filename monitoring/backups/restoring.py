"""Bringing a backup back: verified to the last byte and judged whole, then the state of now is saved, then it changes.

It needs the database and the configuration's file, no gateway: one that runs follows within the second. Keys come first and the
configuration last, each of them whole or not at all; whoever is stopped in between repeats it. It never opens a key that any
record here knows to be revoked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings

import mcpserver
import remotes.selectors
import remotes.services
from keys import saved
from mcpserver.lib.errors import Exit, GatewayError
from monitoring.backups import document, folder, saving
from monitoring.backups.document import Backup
from monitoring.backups.sections import SECTIONS, Bench, Config, Prepared
from remotes.config.load import digest

_YAML = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Restore:
    """A backup that could be brought back now. Nothing has changed yet."""

    source: Path
    sha256: str
    prepared: Mapping[str, Prepared]

    def plan(self) -> dict[str, Any]:
        return {name: one.plan() for name, one in self.prepared.items()}

    def run(self) -> dict[str, Any]:
        """What has changed, by section, and where the state of before lies."""
        before = saving.create("restore", note=f"before {self.source.name} was restored")
        with saving.covered():
            changed = {name: one.restore() for name, one in self.prepared.items()}
        restored = [name for name in changed if not SECTIONS[name].is_only_told]
        return {"restored": restored, "changes": changed, "backup_of_current": before["file"]}


def prepare(source: str, *, only: str | None, actor: str) -> Restore:
    """`source`: a file, or `latest`. GatewayError for what cannot or must not be restored."""
    path = settings.MCP_BACKUP_DIR / folder.LATEST if source == "latest" else Path(source)
    if path.suffix in _YAML:
        return _last_known_good(path, only, actor)
    try:
        backup = document.read(folder.content(path), product=mcpserver.__version__)
    except GatewayError as error:
        raise _with_way_out(error, path) from None
    unknown = sorted(set(backup.sections) - set(SECTIONS))
    if unknown:
        message = f"this backup holds what this version does not know: {', '.join(unknown)}"
        raise GatewayError("newer_version", message, hint=f"restore it with version {backup.product}")
    bench = Bench(settings.MCP_CONFIG, path.name, actor, _revoked())
    return Restore(path, backup.sha256, _prepared(backup, only, bench))


def verified(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Each file with what is wrong with it, if anything."""
    return [_verified(path) for path in paths]


def newest_whole() -> Path | None:
    """Not one from before a restore: that is the state which was not wanted."""
    found = (one.path for one in folder.kept(settings.MCP_BACKUP_DIR) if one.kind != "restore")
    return next((path for path in found if _verified(path)["ok"]), None)


def _prepared(backup: Backup, only: str | None, bench: Bench) -> dict[str, Prepared]:
    wanted = [name for name in SECTIONS if name in backup.sections and only in (None, name)]
    if not wanted:
        raise GatewayError("invalid_backup", f"this backup holds no {only or 'section'}")
    return {name: SECTIONS[name].prepare(backup.sections[name], bench) for name in wanted}


def _last_known_good(path: Path, only: str | None, actor: str) -> Restore:
    """A configuration that ran here: its text must be that of a revision, byte for byte."""
    if only == "keys":
        raise GatewayError("usage", f"{path.name} holds no keys", exit_code=Exit.USAGE)
    held = folder.content(path)
    try:
        text = held.decode()
    except UnicodeDecodeError:
        text = ""
    sha256 = digest(text)
    if not remotes.selectors.ever_ran(sha256):
        hint = f"look at it with: mcpconfig validate {path}; to use it all the same: cp {path} {settings.MCP_CONFIG}"
        raise GatewayError("damaged", f"{path.name} is no revision that ever ran here", hint=hint)
    remotes.services.validated(text, path=settings.MCP_CONFIG)
    bench = Bench(settings.MCP_CONFIG, path.name, actor, {})
    return Restore(path, sha256, {"config": Config(text, bench)})


def _revoked() -> dict[str, datetime]:
    """What any whole backup here knows to be revoked: the database of now may be older than that, or empty."""
    found: dict[str, datetime] = {}
    for one in folder.kept(settings.MCP_BACKUP_DIR):
        try:
            backup = document.read(folder.content(one.path), product=mcpserver.__version__)
            held = saved.read(backup.sections.get("keys", []))
        except GatewayError:
            continue
        found |= {key.key_id: key.revoked_at for key in held if key.revoked_at is not None}
    return found


def _verified(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"file": str(path)}
    try:
        backup = document.read(folder.content(path), product=mcpserver.__version__)
    except GatewayError as error:
        return told | {"ok": False, "error": error.code, "message": error.message}
    return told | {
        "ok": True,
        "sha256": backup.sha256,
        "kind": backup.kind,
        "created_at": backup.created_at,
        "version": backup.product,
        "note": backup.note,
        "contents": list(backup.sections),
    }


def _with_way_out(error: GatewayError, path: Path) -> GatewayError:
    whole = newest_whole() if error.code in ("damaged", "not_found") else None
    if whole is not None and whole != path:
        error.hint = f"the newest that is whole: mcprestore {whole}"
    return error
