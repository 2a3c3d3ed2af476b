"""The configuration to start with: file and head are brought together, what a crash interrupted is finished first."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import GatewayError
from remotes.config import applying, committing, files, load, revisions
from remotes.config.following import Following, following
from remotes.config.revisions import Revision, Standing
from remotes.config.snapshot import Problem, Snapshot

log = logging.getLogger(__name__)

_CLOCK = SystemClock()


def bootstrap(
    path: Path,
    environment: Mapping[str, str] | None = None,
    actor: str = "start",
    clock: Clock = _CLOCK,
    *,
    last_known_good: bool = False,
) -> Snapshot:
    """The snapshot to start with, after bringing file and head together. Several processes may start at once.

    `last_known_good` (after a crash, or because the operator says so): a file that is not valid changes nothing, the head goes
    on, and the edit is pending. Nobody takes it in silence.
    """
    state = following(path, clock)
    state.environment = environment
    try:
        return _brought_together(state, path, environment, actor)
    except GatewayError as error:
        head = revisions.head() if "errors" in error.facts else None
        if head is None:
            raise
        if not last_known_good:
            way_out = f"to start with revision {head.number} meanwhile: mcpserver start --last-known-good"
            error.hint = "; ".join(filter(None, (error.hint, way_out)))
            raise
        log.warning("revision %s, which ran last, runs on: %s", head.number, error.message)
        state.number, state.in_step, state.pending = head.number, head.sha256, error.facts["errors"]
        return applying.snapshot_of(head, path, environment)


def _brought_together(state: Following, path: Path, environment: Mapping[str, str] | None, actor: str) -> Snapshot:
    with files.exclusive(path):
        state.watched.take()
        text = files.read(path)
        head = revisions.head()
        standing = _standing(path, text, head)
        warnings: tuple[Problem, ...] = ()
        if standing is Standing.HAND_EDIT or head is None:
            applying.validated(text, path=path, environment=environment)
            committing.commit_and_publish(text, path=path, expected=head.number if head else 0, actor=actor)
        else:
            warnings = _out_of_step(path, standing, head)
        state.watched.take()
    head = revisions.head()
    if head is None:
        raise GatewayError("no_revision", "the configuration's revision cannot be read back")
    snapshot = applying.snapshot_of(head, path, environment)
    state.number, state.pending = head.number, None
    state.in_step = None if warnings else head.sha256
    return replace(snapshot, warnings=snapshot.warnings + warnings)


def _standing(path: Path, text: str, head: Revision | None) -> Standing:
    sha256 = load.digest(text)
    return revisions.judge(
        sha256,
        head=head,
        predecessor=revisions.sha256_of(head.number - 1) if head else None,
        is_known=revisions.is_known(sha256),
        published=committing.published(path),
    )


def _out_of_step(path: Path, standing: Standing, head: Revision) -> tuple[Problem, ...]:
    """Finish what a crash interrupted; report what must not be guessed."""
    if standing is not Standing.STALE and (committing.write_out(path, head) or standing is Standing.IN_STEP):
        return ()
    code = "file_behind" if standing is Standing.BEHIND else "stale_file"
    message = f"the file is not revision {head.number}, which runs"
    hint = "to apply the file as it is: mcpconfig apply"
    return (Problem("", 1, 1, code, message, hint),)
