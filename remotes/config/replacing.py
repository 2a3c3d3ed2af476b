"""A text that ran before, made to run again over whatever the file holds: what a restore does, who has kept what it replaces."""

from collections.abc import Mapping
from pathlib import Path

from remotes.config import applying, committing, files, load, revisions


def replace(text: str, *, path: Path, actor: str, environment: Mapping[str, str] | None = None) -> int:
    """Make `text` the head and the file, and say its number. A file that is damaged or was edited and not applied is lost.

    GatewayError as `apply`, but for `unapplied_edit`: nothing has changed then.
    """
    applying.validated(text, path=path, environment=environment)
    with files.exclusive(path):
        head = revisions.head()
        if head is None or head.sha256 != load.digest(text):
            number = head.number if head else 0
            return committing.commit_and_publish(text, path=path, expected=number, actor=actor, may_retry=True)
        if committing.held_by(path) != text:
            files.stage(path, text).publish()
        files.keep_as_good(path, text)
        return head.number
