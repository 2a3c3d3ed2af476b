"""Changing the configuration: from a text, or from an edit of the one that runs, to a revision, a file and news of both.

Every change takes one way: validated as `mcpconfig validate` does, committed by compare-and-set, then put in place. What is
invalid changes nothing. What was edited by hand and is not applied yet is never overwritten.
"""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcpserver.lib.errors import Exit, GatewayError
from remotes.config import committing, editing, files, load, revisions
from remotes.config.load import Reading
from remotes.config.revisions import Revision
from remotes.config.snapshot import Problem, Snapshot, documents


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
            committing.refuse_over_edit(path, head, text)
            committing.write_out(path, head)
            return number
        if expected is not None and expected != number:
            raise committing.conflict(expected, number)
        committing.refuse_over_edit(path, head, text)
        return committing.commit_and_publish(text, path=path, expected=number, actor=actor, may_retry=expected is None)


def take(path: Path, *, actor: str, expected: int | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Apply what somebody wrote into the file by hand, and say the number that runs.

    A file that only lags behind (it is as this machine last left it, and the head moved elsewhere) is brought up to date instead.
    """
    text = files.read(path)
    with files.exclusive(path):
        head = revisions.head()
        sha256 = load.digest(text)
        is_behind = head is not None and sha256 != head.sha256 and committing.published(path) == sha256
        if head is not None and is_behind and revisions.is_known(sha256) and committing.write_out(path, head):
            return head.number
    return apply(text, path=path, expected=expected, actor=actor, environment=environment)


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
        for _ in range(committing.TRIES):
            head = revisions.head()
            number = head.number if head else 0
            if expected is not None and expected != number:
                raise committing.conflict(expected, number)
            done = _changed(change, path, head, environment)
            if head is None and not dry_run:
                # What was there before the first edit is a revision too: there is a way back to it.
                number = committing.commit_and_publish(done.before, path=path, expected=0, actor=actor)
            if dry_run or done.after == done.before:
                return replace(done, number=number)
            try:
                made = committing.commit_and_publish(done.after, path=path, expected=number, actor=actor)
                return replace(done, number=made)
            except GatewayError as error:
                if error.code != "conflict" or expected is not None:
                    raise
        raise committing.conflict(number, revisions.head_number())


def _changed(
    change: Callable[[dict[str, Any]], None], path: Path, head: Revision | None, environment: Mapping[str, str] | None
) -> Change:
    """The change worked out and validated; nothing is written. Before the first start, the file is what is edited."""
    before = head.text if head else files.read(path)
    committing.refuse_over_edit(path, head, before)
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


def snapshot_of(head: Revision, path: Path, environment: Mapping[str, str] | None) -> Snapshot:
    return replace(validated(head.text, path=path, environment=environment), revision=head.number)
