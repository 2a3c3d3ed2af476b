"""What one running process remembers about its configuration file between two looks at it.

In memory alone: after a restart the file and the head revision are compared anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from mcpserver.lib.clock import Clock
from remotes.config.files import Watched


@dataclass(slots=True)
class Following:
    watched: Watched
    # Where variables are looked up; None: the process's own environment.
    environment: Mapping[str, str] | None = None
    # The revision that this process was last told of; None: none yet.
    number: int | None = None
    # The sha256 of the file when it last was equal to the head; None: it never was.
    in_step: str | None = None
    # The head moved elsewhere and this machine's file has yet to follow.
    is_behind: bool = False
    pending: list[dict[str, Any]] | None = None
    # A look that outlasted its caller's patience may still run when the next one begins.
    busy: Lock = field(default_factory=Lock)


_followed: dict[Path, Following] = {}


def following(path: Path, clock: Clock) -> Following:
    """The one memory for `path` in this process."""
    key = path.absolute()
    if key not in _followed:
        _followed[key] = Following(Watched(path, clock))
    return _followed[key]


def forget() -> None:
    """For tests: as if the process had just begun."""
    _followed.clear()


def pending_error() -> list[dict[str, Any]] | None:
    """The problems of an edit that was not applied; None while there is none."""
    return next((state.pending for state in _followed.values() if state.pending), None)
