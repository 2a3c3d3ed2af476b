"""Changing the configuration, and writing down how remotes are.

The head revision in the database is the truth, the file is its working copy, and every change takes one way: parse, compare-
and-set, then the file. What is invalid changes nothing. What was edited by hand and is not applied yet is never overwritten.
Each step may be the last before a crash: the temporary file is synced before the commit, the rename follows it, and a start
that finds the commit without the rename finishes it.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.db import DatabaseError, transaction
from django.utils import timezone

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.files import Staged
from remotes.config import files, load, revisions
from remotes.config.following import Following, documents, following
from remotes.config.load import Reading
from remotes.config.revisions import Revision, Standing
from remotes.config.snapshot import Problem, Snapshot
from remotes.models import RemoteHealth
from remotes.signals import config_changed, config_changing

log = logging.getLogger(__name__)

# Without `expected`, a change that lost to another machine's is tried again this often.
COMMIT_TRIES = 5
# Each second's look has little time: what is locked now is free a second later.
FOLLOW_WAIT_S = 0.5

_CLOCK = SystemClock()


def validated(text: str, *, path: Path, environment: Mapping[str, str] | None = None) -> Snapshot:
    """The text as a snapshot; GatewayError `invalid_config` with every problem in it."""
    reading = load.read(text, os.environ if environment is None else environment, path.absolute().parent)
    if reading.snapshot is None:
        raise invalid(path, reading)
    return reading.snapshot


def invalid(path: Path, reading: Reading) -> GatewayError:
    """One line for people that names file, line and cause; all problems for machines."""
    first, more = reading.errors[0], len(reading.errors) - 1
    where = f"{path.name}:{first.line}:{first.column}"
    what = f"{first.path}: {first.message}" if first.path else first.message
    return GatewayError(
        "invalid_config",
        f"{where}: {what}" + (f" (and {more} more)" if more else ""),
        hint=first.hint or "mcpconfig validate shows everything",
        exit_code=Exit.CONFIG,
        file=str(path),
        errors=documents(reading.errors),
        warnings=documents(reading.warnings),
    )


def bootstrap(
    path: Path,
    environment: Mapping[str, str] | None = None,
    actor: str = "start",
    clock: Clock = _CLOCK,
    *,
    again: bool = False,
) -> Snapshot:
    """The snapshot to start with, after bringing file and head together. Several processes may start at once.

    `again`: after a crash. Then a file that is not valid changes nothing either: the head goes on, and the edit is pending.
    """
    state = following(path, clock)
    state.environment = environment
    try:
        return _brought_together(state, path, environment, actor)
    except GatewayError as error:
        head = revisions.head() if again and "errors" in error.facts else None
        if head is None:
            raise
        log.warning("revision %s runs on: %s", head.number, error.message)
        state.number, state.in_step, state.pending = head.number, head.sha256, error.facts["errors"]
        return _snapshot(head, path, environment)


def _brought_together(state: Following, path: Path, environment: Mapping[str, str] | None, actor: str) -> Snapshot:
    with files.exclusive(path):
        state.watched.take()
        text = files.read(path)
        head = revisions.head()
        standing = _standing(path, text, head)
        warnings: tuple[Problem, ...] = ()
        if standing is Standing.HAND_EDIT or head is None:
            validated(text, path=path, environment=environment)
            _commit_and_publish(text, path=path, expected=head.number if head else 0, actor=actor)
        else:
            warnings = _out_of_step(path, standing, head)
        state.watched.take()
    head = revisions.head()
    if head is None:
        raise GatewayError("no_revision", "the configuration's revision cannot be read back")
    snapshot = _snapshot(head, path, environment)
    state.number, state.pending = head.number, None
    state.in_step = None if warnings else head.sha256
    return replace(snapshot, warnings=snapshot.warnings + warnings)


def apply(
    text: str,
    *,
    path: Path,
    expected: int | None,
    actor: str,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Make `text` the head and the file, and say its number. `expected`: the revision it is based on.

    GatewayError: `invalid_config`; `conflict` when the head is another; `unapplied_edit` when the file holds what nobody
    has applied; `read_only` and `disk_full` when the file cannot be written. Nothing has changed after any of them.
    """
    validated(text, path=path, environment=environment)
    with files.exclusive(path):
        head = revisions.head()
        number = head.number if head else 0
        if head is not None and head.sha256 == load.digest(text):
            # What is asked for is there already; at most a file that lags behind is left to do.
            _refuse_over_edit(path, head, text)
            _write_out(path, head)
            return number
        if expected is not None and expected != number:
            raise _conflict(expected, number)
        _refuse_over_edit(path, head, text)
        return _commit_and_publish(text, path=path, expected=number, actor=actor, may_retry=expected is None)


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


def record_health(name: str, **facts: Any) -> None:
    """Overwrite what is known of one remote. A `healthy` one was also last seen well now."""
    facts.setdefault("checked_at", timezone.now())
    if facts.get("status") == "healthy":
        facts.setdefault("last_ok_at", facts["checked_at"])
    RemoteHealth.objects.update_or_create(name=name, defaults=facts)


# Bringing file and head together.


def _standing(path: Path, text: str, head: Revision | None) -> Standing:
    sha256 = load.digest(text)
    return revisions.judge(
        sha256,
        head=head,
        predecessor=revisions.sha256_of(head.number - 1) if head else None,
        is_known=revisions.is_known(sha256),
        published=_published(path),
    )


def _published(path: Path) -> str | None:
    """The sha256 of what this machine's file held last, as far as that is known."""
    try:
        return load.digest(files.read(files.last_known_good(path)))
    except GatewayError:
        return None


def _out_of_step(path: Path, standing: Standing, head: Revision) -> tuple[Problem, ...]:
    """Finish what a crash interrupted; report what must not be guessed."""
    if standing is not Standing.STALE and (_write_out(path, head) or standing is Standing.IN_STEP):
        return ()
    code = "file_behind" if standing is Standing.BEHIND else "stale_file"
    message = f"the file is not revision {head.number}, which runs"
    hint = "save the file with a change to apply it"
    return (Problem("", 1, 1, code, message, hint),)


def _snapshot(head: Revision, path: Path, environment: Mapping[str, str] | None) -> Snapshot:
    return replace(validated(head.text, path=path, environment=environment), revision=head.number)


def _refuse_over_edit(path: Path, head: Revision | None, text: str) -> None:
    """Nothing is written over a file whose content is neither the head nor what is being applied, unless nothing is lost."""
    try:
        current = files.read(path)
    except GatewayError as error:
        if error.facts["errors"][0]["code"] == "file_missing":
            return
        raise
    if current == text or (head is not None and current == head.text):
        return
    if revisions.is_known(load.digest(current)) and (head is None or _published(path) != head.sha256):
        return
    raise GatewayError(
        "unapplied_edit",
        f"{path} was edited and is not applied yet: it is not overwritten",
        hint="look at it with: mcpconfig validate",
        exit_code=Exit.CONFLICT,
    )


def _commit_and_publish(text: str, *, path: Path, expected: int, actor: str, may_retry: bool = False) -> int:
    """Under the lock. The file is written first, put in place last, and left alone where it holds the text already."""
    staged = None if _holds(path, text) else files.stage(path, text)
    try:
        number = _commit(text, expected=expected, actor=actor, may_retry=may_retry)
    except BaseException:
        if staged is not None:
            staged.discard()
        raise
    if staged is not None and not _is_published(staged, path, number):
        return number
    if not files.keep_as_good(path, text):
        log.warning("the last known good configuration cannot be written beside %s", path.name)
    return number


def _is_published(staged: Staged, path: Path, number: int) -> bool:
    """After the commit there is no way back: a file that cannot be put in place follows later, as after a crash."""
    try:
        staged.publish()
    except OSError as error:
        staged.discard()
        log.error("revision %s runs, but %s does not hold it yet: %s", number, path.name, error)
        return False
    return True


def _commit(text: str, *, expected: int, actor: str, may_retry: bool) -> int:
    sha256 = load.digest(text)
    for _ in range(COMMIT_TRIES if may_retry else 1):
        before = revisions.head()
        if before is not None and before.number == expected:
            config_changing.send(sender=None, number=before.number, text=before.text)
        number = revisions.commit(text, sha256, expected=expected, actor=actor)
        if number is not None:
            _announce(number)
            return number
        now = revisions.head()
        if now is not None and now.sha256 == sha256:
            return now.number  # Another machine noticed the same edit first.
        lost_to = now.number if now else 0
        if not may_retry:
            break
        expected = lost_to
    raise _conflict(expected, lost_to)


def _announce(number: int) -> None:
    """The change is made: a receiver that fails to spread the news cannot unmake it, and everybody polls anyway."""

    def send() -> None:
        for receiver, answer in config_changed.send_robust(sender=None, number=number):
            if isinstance(answer, Exception):
                log.error("news of revision %s failed in %s", number, receiver, exc_info=answer)

    transaction.on_commit(send)


def _conflict(expected: int, number: int) -> GatewayError:
    return GatewayError(
        "conflict",
        f"revision {expected} was expected, revision {number} runs",
        hint="read the configuration again and repeat the change",
        exit_code=Exit.CONFLICT,
        expected=expected,
        revision=number,
    )


def _edit_conflict(path: Path, number: int) -> GatewayError:
    return GatewayError(
        "conflict",
        f"{path.name} was edited while revision {number} came from elsewhere",
        hint=f"compare it with revision {number}, which runs, and save the file once more: then it counts",
        exit_code=Exit.CONFLICT,
        revision=number,
    )


def _holds(path: Path, text: str) -> bool:
    try:
        return files.read(path) == text
    except GatewayError:
        return False


def _write_out(path: Path, head: Revision) -> bool:
    """Under the lock: the head into this machine's file; False where that cannot be done."""
    try:
        if not _holds(path, head.text):
            files.stage(path, head.text).publish()
    except (GatewayError, OSError) as error:
        log.warning("revision %s cannot be written to %s: %s", head.number, path.name, error)
        return False
    if _published(path) != head.sha256:
        files.keep_as_good(path, head.text)
    return True


# Following.


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
        validated(text, path=path, environment=environment)
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
    if head is not None and state.in_step not in (None, head.sha256) and _published(path) != head.sha256:
        # Who edits the file after this was told is somebody who knows.
        state.in_step = head.sha256
        raise _edit_conflict(path, number)
    with files.exclusive(path, wait_s=FOLLOW_WAIT_S):
        if not _holds(path, text):
            state.watched.look_again()
            return
        _commit_and_publish(text, path=path, expected=number, actor=actor)
        state.watched.take()
    state.in_step, state.pending = load.digest(text), None


def _follow_head(state: Following, path: Path, environment: Mapping[str, str] | None) -> Snapshot | None:
    head = revisions.head()
    if head is None:
        return None
    state.number = head.number
    try:
        snapshot = _snapshot(head, path, environment)
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
            if head is not None and (sha256 == head.sha256 or (sha256 == state.in_step and _write_out(path, head))):
                state.in_step, state.pending = head.sha256, None
                state.watched.take()
            state.is_behind = False
    except GatewayError as error:
        # Somebody is writing it: next second again. A file that cannot be read is reported by whoever looks at it.
        state.is_behind = error.code == "locked"
