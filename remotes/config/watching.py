"""Looking at the configuration each second: an edit of the file that has come to rest is applied, a head that moved is followed.

An edit that does not validate changes nothing and stays pending until it is mended. This machine's file follows a change made
elsewhere, unless somebody has touched it since.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from django.db import DatabaseError

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import Exit, GatewayError
from remotes.config import applying, committing, files, load, revisions
from remotes.config.following import Following, following
from remotes.config.revisions import Revision
from remotes.config.snapshot import Snapshot

log = logging.getLogger(__name__)

# Each second's look has little time: what is locked now is free a second later.
FOLLOW_WAIT_S = 0.5

_CLOCK = SystemClock()


def follow_file(
    path: Path, *, environment: Mapping[str, str] | None = None, clock: Clock = _CLOCK, actor: str = "file"
) -> Snapshot | None:
    """What a running process calls each second: take an edit that has come to rest; the new snapshot if the head moved."""
    state = following(path, clock)
    if not state.busy.acquire(blocking=False):
        return None
    environment = state.environment if environment is None else environment
    try:
        if state.watched.has_settled():
            _take_edit(state, path, environment, actor)
        snapshot = None
        if revisions.head_number() != (state.number or 0):
            snapshot = _follow_head(state, path, environment)
        if state.is_behind:
            _bring_file_along(state, path)
        return snapshot
    except DatabaseError:
        # Away, or full: the edit is still to be taken when it is back.
        state.watched.look_again()
        raise
    finally:
        state.busy.release()


def reload(path: Path, *, environment: Mapping[str, str] | None = None, clock: Clock = _CLOCK) -> Snapshot | None:
    """The head read anew, with what `${file:…}` holds now, whether or not it moved; None where it cannot be used here."""
    state = following(path, clock)
    with state.busy:
        snapshot = _follow_head(state, path, state.environment if environment is None else environment)
        if snapshot is not None and load.digest(committing.held_by(path) or "") == snapshot.sha256:
            # Whatever was wrong with an earlier edit, the file is in step now.
            state.in_step, state.pending, state.is_behind = snapshot.sha256, None, False
            state.watched.take()
        return snapshot


def _take_edit(state: Following, path: Path, environment: Mapping[str, str] | None, actor: str) -> None:
    try:
        text = files.read(path)
        head = revisions.head()
        sha256 = load.digest(text)
        if head is not None and sha256 == head.sha256:
            state.in_step, state.pending = sha256, None
            return
        if sha256 == state.in_step:
            # Touched, or changed back: what moved is the head, and the file is to follow it.
            state.is_behind, state.pending = True, None
            return
        if state.in_step is None and revisions.is_known(sha256):
            return  # Still a stale file.
        applying.validated(text, path=path, environment=environment)
        _apply_edit(state, path, text, head, actor)
    except GatewayError as error:
        if error.code == "locked":
            state.watched.look_again()
            return
        state.pending = error.facts.get("errors") or [
            {"path": "", "line": 1, "column": 1, "code": error.code, "message": error.message, "hint": error.hint}
        ]
        log.warning("an edit of %s is not applied: %s", path.name, error.message)


def _apply_edit(state: Following, path: Path, text: str, head: Revision | None, actor: str) -> None:
    """Refused once where the head moved elsewhere and never was in this machine's file: the edit is based on what was before."""
    number = head.number if head else 0
    if head is not None and state.in_step not in (None, head.sha256) and committing.published(path) != head.sha256:
        # Who edits the file after this was told is somebody who knows.
        state.in_step = head.sha256
        raise _edit_conflict(path, number)
    with files.exclusive(path, wait_s=FOLLOW_WAIT_S):
        if committing.held_by(path) != text:
            state.watched.look_again()
            return
        committing.commit_and_publish(text, path=path, expected=number, actor=actor)
        state.watched.take()
    state.in_step, state.pending = load.digest(text), None


def _follow_head(state: Following, path: Path, environment: Mapping[str, str] | None) -> Snapshot | None:
    head = revisions.head()
    if head is None:
        return None
    state.number = head.number
    try:
        snapshot = applying.snapshot_of(head, path, environment)
    except GatewayError as error:
        # Another machine runs a newer version than this one: keep what works here, and say so.
        state.pending = error.facts["errors"]
        log.error("revision %s cannot be used here: %s", head.number, error.message)
        return None
    state.is_behind = True
    return snapshot


def _bring_file_along(state: Following, path: Path) -> None:
    """The configuration was changed elsewhere: this machine's file follows, if nobody has touched it since."""
    try:
        with files.exclusive(path, wait_s=FOLLOW_WAIT_S):
            head = revisions.head()
            sha256 = load.digest(files.read(path))
            if head is not None and (
                sha256 == head.sha256 or (sha256 == state.in_step and committing.write_out(path, head))
            ):
                state.in_step, state.pending = head.sha256, None
                state.watched.take()
            state.is_behind = False
    except GatewayError as error:
        # Somebody is writing it: next second again. A file that cannot be read is reported by whoever looks at it.
        state.is_behind = error.code == "locked"


def _edit_conflict(path: Path, number: int) -> GatewayError:
    return GatewayError(
        "conflict",
        f"{path.name} was edited while revision {number} came from elsewhere",
        hint=f"compare it with revision {number}, which runs, and save the file once more: then it counts",
        exit_code=Exit.CONFLICT,
        revision=number,
    )
