"""The numbered revisions of the configuration, of which one is the head: the text that runs.

The head moves by compare-and-set: who commits says on which number the text is based, and losing is a normal answer. What a
file's content means beside the head is decided here, from values.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from django.db import transaction

from remotes.models import HEAD, ConfigRevision, RevisionHead


@dataclass(frozen=True, slots=True)
class Revision:
    number: int
    sha256: str
    text: str


class Standing(Enum):
    """What a file's content is, beside the head."""

    IN_STEP = "in_step"
    # The head's predecessor, and this machine never saw the head in its file: the rename is still to be done.
    BEHIND = "behind"
    # An older revision: an old disk or an old image came back. Not applied, not overwritten, reported.
    STALE = "stale_file"
    HAND_EDIT = "hand_edit"


def judge(
    sha256: str, *, head: Revision | None, predecessor: str | None, is_known: bool, published: str | None
) -> Standing:
    """`published`: the sha256 of the last known good copy, which tells what this machine's file held last.

    With it, somebody who takes back the last edit while nothing runs is told from a crash between commit and rename: only
    in the second case was the head never in the file.
    """
    if head is None:
        return Standing.HAND_EDIT
    if sha256 == head.sha256:
        return Standing.IN_STEP
    if sha256 == predecessor:
        return Standing.HAND_EDIT if published == head.sha256 else Standing.BEHIND
    return Standing.STALE if is_known else Standing.HAND_EDIT


def head() -> Revision | None:
    """The revision that runs; None before the first."""
    # One statement, so that number and text belong together.
    current = RevisionHead.objects.filter(pk=HEAD).values("number")
    row = ConfigRevision.objects.filter(number__in=current).values_list("number", "sha256", "text").first()
    return Revision(*row) if row else None


def head_number() -> int:
    """What is asked each second: 0 before the first."""
    return RevisionHead.objects.filter(pk=HEAD).values_list("number", flat=True).first() or 0


def sha256_of(number: int) -> str | None:
    return ConfigRevision.objects.filter(number=number).values_list("sha256", flat=True).first()


def text_of(number: int) -> str | None:
    return ConfigRevision.objects.filter(number=number).values_list("text", flat=True).first()


def history(limit: int) -> list[dict[str, Any]]:
    """The last revisions, newest first, without their texts."""
    rows = ConfigRevision.objects.order_by("-number").values("number", "at", "actor", "sha256")
    return [dict(row) for row in rows[:limit]]


def is_known(sha256: str) -> bool:
    return ConfigRevision.objects.filter(sha256=sha256).exists()


def commit(text: str, sha256: str, *, expected: int, actor: str) -> int | None:
    """The new number, or None when the head is not `expected` any more. Nothing is written then."""
    with transaction.atomic():
        RevisionHead.objects.get_or_create(pk=HEAD)
        if not RevisionHead.objects.filter(pk=HEAD, number=expected).update(number=expected + 1):
            return None
        ConfigRevision.objects.create(number=expected + 1, sha256=sha256, text=text, actor=actor[:200])
    return expected + 1
