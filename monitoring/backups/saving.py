"""Making backups: by hand, once a day, before every change of the configuration, before a restore. Each prunes its folder.

What a change replaces is a revision in the database as well: a folder that is not meant to be written (an image) does not
keep a configuration from changing, and says so in the log. A full disk does: then the change fails whole.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from django.conf import settings

import mcpserver
from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import GatewayError
from monitoring.backups import document, folder
from monitoring.backups.document import Kind
from monitoring.backups.sections import SECTIONS
from remotes import services

log = logging.getLogger("mcp.backups")

_CLOCK = SystemClock()
_covered: ContextVar[bool] = ContextVar("covered", default=False)


def create(
    kind: Kind, *, where: Path | None = None, keep: int | None = None, note: str = "", clock: Clock = _CLOCK
) -> dict[str, Any]:
    """One backup, and the folder pruned. The latest is whatever is newest, but for the one that a restore takes: restoring the
    latest twice is no way back to what was wrong."""
    where = where or settings.MCP_BACKUP_DIR
    with folder.locked(where):
        return _create(kind, where, keep or services.limits().backup_keep, note, clock)


def daily(*, where: Path | None = None, clock: Clock = _CLOCK) -> dict[str, Any] | None:
    """The backup of this day (UTC), if it has none yet: to be called as often as one likes."""
    where = where or settings.MCP_BACKUP_DIR
    with folder.locked(where):
        today = clock.now().date()
        if any(one.kind == "daily" and one.at.date() == today for one in folder.kept(where)):
            return None
        return _create("daily", where, services.limits().backup_keep, "", clock)


def prune(*, keep: int | None = None, where: Path | None = None, dry_run: bool = False) -> list[str]:
    """Remove what is beyond the newest `keep` of each kind; also on a full disk, where no lock can be taken."""
    where, keep = where or settings.MCP_BACKUP_DIR, keep or services.limits().backup_keep
    try:
        with folder.locked(where):
            return _prune(where, keep, dry_run=dry_run)
    except GatewayError as error:
        if error.code != "disk_full":
            raise
        return _prune(where, keep, dry_run=dry_run)


def before_change(*, number: int, **_: object) -> None:
    """The receiver of `remotes.signals.config_changing`; what it raises stops the change."""
    if _covered.get():
        return
    try:
        create("change", note=f"before revision {number + 1}")
    except GatewayError as error:
        if error.code != "read_only":
            raise
        log.warning("no backup before revision %d: %s", number + 1, error.message)


@contextmanager
def covered() -> Iterator[None]:
    """What changes inside was backed up already."""
    token = _covered.set(True)
    try:
        yield
    finally:
        _covered.reset(token)


def _create(kind: Kind, where: Path, keep: int, note: str, clock: Clock) -> dict[str, Any]:
    sections = {name: section.dump(settings.MCP_CONFIG) for name, section in SECTIONS.items()}
    at = clock.now()
    content = document.encode(sections, kind=kind, created_at=at, product=mcpserver.__version__, note=note)
    path = folder.put(where, content, kind=kind, at=at, becomes_latest=kind != "restore")
    _prune(where, keep, dry_run=False)
    return {
        "file": str(path),
        "sha256": document.read(content, product=mcpserver.__version__).sha256,
        "size": len(content),
        "created_at": at,
        "contents": list(sections),
    }


def _prune(where: Path, keep: int, *, dry_run: bool) -> list[str]:
    found = folder.superfluous(folder.kept(where), keep)
    if not dry_run:
        folder.remove(found)
    return [str(one.path) for one in found]
