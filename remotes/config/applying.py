"""Changing the configuration: from a text, or from an edit of the one that runs, to a revision, a file and news of both.

Every change takes one way: validated as `mcpconfig validate` does, committed by compare-and-set, then put in place. What is
invalid changes nothing. What was edited by hand and is not applied yet is never overwritten. Each step may be the last before
a crash: the temporary file is synced before the commit, the rename follows it, and a start that finds the commit without the
rename finishes it.
"""

import logging
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.db import transaction

from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.files import Staged
from remotes.config import editing, files, load, revisions
from remotes.config.load import Reading
from remotes.config.revisions import Revision
from remotes.config.snapshot import Problem, Snapshot, documents
from remotes.signals import config_changed, config_changing

log = logging.getLogger(__name__)

# Without `expected`, a change that lost to another machine's is tried again this often.
COMMIT_TRIES = 5


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
            write_out(path, head)
            return number
        if expected is not None and expected != number:
            raise _conflict(expected, number)
        _refuse_over_edit(path, head, text)
        return commit_and_publish(text, path=path, expected=number, actor=actor, may_retry=expected is None)


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit came to: the revision that runs now, the texts before and after, and what is to be said about the latter."""

    number: int
    before: str
    after: str
    warnings: tuple[Problem, ...] = ()


def edit(
    change: Callable[[dict[str, Any]], None],
    *,
    path: Path,
    expected: int | None,
    actor: str,
    environment: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Change:
    """Change values of the configuration that runs, leaving all else in its text as it is; read, changed and written under one
    lock, and again from the beginning when another machine was faster.

    `change` gets the values as written and changes them in place; what it raises ends the edit. GatewayError as `apply`, and
    `cannot_edit` where the text cannot be changed without touching more.
    """
    with files.exclusive(path):
        for _ in range(COMMIT_TRIES):
            head = revisions.head()
            number = head.number if head else 0
            if expected is not None and expected != number:
                raise _conflict(expected, number)
            done = _changed(change, path, head, environment)
            if head is None and not dry_run:
                # What was there before the first edit is a revision too: there is a way back to it.
                number = commit_and_publish(done.before, path=path, expected=0, actor=actor)
            if dry_run or done.after == done.before:
                return replace(done, number=number)
            try:
                made = commit_and_publish(done.after, path=path, expected=number, actor=actor)
                return replace(done, number=made)
            except GatewayError as error:
                if error.code != "conflict" or expected is not None:
                    raise
        raise _conflict(number, revisions.head_number())


def _changed(
    change: Callable[[dict[str, Any]], None], path: Path, head: Revision | None, environment: Mapping[str, str] | None
) -> Change:
    """The change worked out and validated; nothing is written. Before the first start, the file is what is edited."""
    before = head.text if head else files.read(path)
    _refuse_over_edit(path, head, before)
    value = deepcopy(dict(load.read(before, {}, path.absolute().parent).value))
    change(value)
    after = editing.rewritten(before, value)
    snapshot = validated(after, path=path, environment=environment)
    return Change(head.number if head else 0, before, after, snapshot.warnings)


def rollback(
    number: int, *, path: Path, expected: int | None, actor: str, environment: Mapping[str, str] | None = None
) -> Change:
    """Make the text of revision `number` the head again, as a revision of its own; GatewayError `not_found`, or as `apply`."""
    text = revisions.text_of(number)
    if text is None:
        hint = "see them with: mcpconfig history"
        raise GatewayError("not_found", f"there is no revision {number}", hint=hint, exit_code=Exit.NOT_FOUND)
    head = revisions.head()
    made = apply(text, path=path, expected=expected, actor=actor, environment=environment)
    return Change(made, head.text if head else "", text)


def published(path: Path) -> str | None:
    """The sha256 of what this machine's file held last, as far as that is known."""
    try:
        return load.digest(files.read(files.last_known_good(path)))
    except GatewayError:
        return None


def snapshot_of(head: Revision, path: Path, environment: Mapping[str, str] | None) -> Snapshot:
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
    if revisions.is_known(load.digest(current)) and (head is None or published(path) != head.sha256):
        return
    raise GatewayError(
        "unapplied_edit",
        f"{path} was edited and is not applied yet: it is not overwritten",
        hint="apply it first: mcpconfig apply; or look at it: mcpconfig validate, mcpconfig diff",
        exit_code=Exit.CONFLICT,
    )


def commit_and_publish(text: str, *, path: Path, expected: int, actor: str, may_retry: bool = False) -> int:
    """Under the lock. The file is written first, put in place last, and left alone where it holds the text already."""
    held = held_by(path)
    staged = None if held == text else files.stage(path, text)
    try:
        number = _commit(text, expected=expected, actor=actor, may_retry=may_retry)
    except BaseException:
        if staged is not None:
            staged.discard()
        raise
    if staged is not None and not _is_in_place(staged, path, number, held):
        return number
    if not files.keep_as_good(path, text):
        log.warning("the last known good configuration cannot be written beside %s", path.name)
    return number


def _is_in_place(staged: Staged, path: Path, number: int, held: str | None) -> bool:
    """After the commit there is no way back: a file that cannot be put in place follows later, as after a crash.

    An editor takes no lock: what it saved since the file was looked at stays, as an edit that is not applied.
    """
    if held_by(path) != held:
        staged.discard()
        log.error("revision %s runs, but %s was edited meanwhile and is left as it is", number, path.name)
        return False
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


def held_by(path: Path) -> str | None:
    """What the file holds now; None where it cannot be read."""
    try:
        return files.read(path)
    except GatewayError:
        return None


def write_out(path: Path, head: Revision) -> bool:
    """Under the lock: the head into this machine's file; False where that cannot be done."""
    try:
        if held_by(path) != head.text:
            files.stage(path, head.text).publish()
    except (GatewayError, OSError) as error:
        log.warning("revision %s cannot be written to %s: %s", head.number, path.name, error)
        return False
    if published(path) != head.sha256:
        files.keep_as_good(path, head.text)
    return True
