"""From a valid text to a revision and a file that holds it: what every change ends with.

In this order: the temporary file is written and synced, the revision committed by compare-and-set, the file renamed into place,
its folder synced, the last known good written. Whatever is interrupted, the next start finds the old or the new. What somebody
edited by hand and nobody applied is never written over. It does not judge the text: who calls has validated it.
"""

import logging
from pathlib import Path

from django.db import transaction

from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.files import Staged
from remotes.config import files, load, revisions
from remotes.config.revisions import Revision
from remotes.signals import config_changed, config_changing

log = logging.getLogger(__name__)

# Without `expected`, a change that lost to another machine's is tried again this often.
TRIES = 5


def published(path: Path) -> str | None:
    """The sha256 of what this machine's file held last, as far as that is known."""
    try:
        return load.digest(files.read(files.last_known_good(path)))
    except GatewayError:
        return None


def refuse_over_edit(path: Path, head: Revision | None, text: str) -> None:
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
    for _ in range(TRIES if may_retry else 1):
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
    raise conflict(expected, lost_to)


def _announce(number: int) -> None:
    """The change is made: a receiver that fails to spread the news cannot unmake it, and everybody polls anyway."""

    def send() -> None:
        for receiver, answer in config_changed.send_robust(sender=None, number=number):
            if isinstance(answer, Exception):
                log.error("news of revision %s failed in %s", number, receiver, exc_info=answer)

    transaction.on_commit(send)


def conflict(expected: int, number: int) -> GatewayError:
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
