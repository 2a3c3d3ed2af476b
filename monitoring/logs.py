"""The log files read back: the last lines that match, and those that come, across rotations. Reads, never locks.

Lines are JSON objects of our own making; what is none (half a line of a crash, an editor's trace) is skipped.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

Line = dict[str, Any]

CURRENT = "combined.log"
# As we name them, and as logrotate does.
_ROTATED = re.compile(r"combined\.(\d+)\.log|combined\.log\.(\d+)")
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_PART_BYTES = 1024 * 1024
# Of names that move on; then it is looked again with the next question.
_LOOKS = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is left empty is not asked. `keys`: ids; a request's id is looked for in every line, access line or not."""

    remote: str = ""
    keys: frozenset[str] = field(default_factory=frozenset)
    request: str = ""
    level: str = ""
    since: datetime | None = None

    def __call__(self, line: Mapping[str, Any]) -> bool:
        if self.remote and self.remote not in (line.get("remote"), line.get("mcp")):
            return False
        if self.keys and line.get("key") not in self.keys:
            return False
        if self.request and line.get("request") != self.request:
            return False
        if self.level and _LEVELS.get(str(line.get("level")), 0) < _LEVELS[self.level.upper()]:
            return False
        return self.since is None or _at(line) >= self.since.timestamp()


def last(folder: Path, wanted: Callable[[Line], bool], count: int) -> list[Line]:
    """The newest `count` that are wanted, oldest first."""
    found: list[Line] = []
    for path in reversed(files(folder)):
        try:
            content = path.read_bytes()
        except OSError:  # Rotated away in this moment.
            continue
        for raw in reversed(content.splitlines()):
            line = _line(raw)
            if line is not None and wanted(line):
                found.append(line)
                if len(found) == count:
                    return found[::-1]
    return found[::-1]


def files(folder: Path) -> list[Path]:
    """Oldest first."""
    numbered = [
        (int(match[1] or match[2]), path)
        for path in folder.glob("combined.*")
        if (match := _ROTATED.fullmatch(path.name))
    ]
    current = folder / CURRENT
    return [path for _, path in sorted(numbered, reverse=True)] + ([current] if current.exists() else [])


class Tail:
    """What is written from now on. A file that was renamed is read to its end before the next one is begun."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open(folder / CURRENT, at_end=True)

    def news(self) -> Iterator[Line]:
        """What came since it was asked last."""
        yield from self._read()
        while (fresh := self._next()) is not None:
            yield from self._read()  # what was written before the name was taken away
            self._go_on_with(fresh)
            yield from self._read()

    def _read(self) -> Iterator[Line]:
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # emptied in place, as `: > file` does
            self._file.seek(0)
            self._rest = b""
        while part := self._file.read(_PART_BYTES):
            *whole, self._rest = (self._rest + part).split(b"\n")
            yield from filter(None, map(_line, whole))

    def _next(self) -> BinaryIO | None:
        """The file that was begun after the one that is open, opened; None while that is the current one.

        Names move on while they are looked at, and one may be passed over: what is seen counts if it is seen twice.
        """
        for _ in range(_LOOKS):
            found = _seen(self._folder)
            following = self._following(found)
            if following is None:
                return None
            if _named(found) != _named(_seen(self._folder)):
                continue
            path, inode = following
            with suppress(OSError):
                file = path.open("rb")
                if os.fstat(file.fileno()).st_ino == inode:
                    return file
                file.close()
        return None

    def _following(self, found: list[tuple[Path, int, int]]) -> tuple[Path, int] | None:
        if self._file is None:
            return found[-1][:2] if found else None
        own = os.fstat(self._file.fileno())
        inodes = [inode for _, inode, _ in found]
        if own.st_ino in inodes:
            later = found[inodes.index(own.st_ino) + 1 :]
        else:  # Deleted meanwhile, or under a name of somebody else's: what was written to since is younger.
            later = [one for one in found if one[2] > own.st_mtime_ns]
        return later[0][:2] if later else None

    def _open(self, path: Path, *, at_end: bool) -> None:
        try:
            fresh = path.open("rb")
        except OSError:
            return
        self._go_on_with(fresh)
        if at_end:
            fresh.seek(0, os.SEEK_END)

    def _go_on_with(self, fresh: BinaryIO) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = fresh, b""


def _seen(folder: Path) -> list[tuple[Path, int, int]]:
    """The files, oldest first, each with its inode and when it was written to last."""
    found = []
    for path in files(folder):
        with suppress(OSError):
            facts = path.stat()
            found.append((path, facts.st_ino, facts.st_mtime_ns))
    return found


def _named(found: list[tuple[Path, int, int]]) -> list[tuple[Path, int]]:
    return [(path, inode) for path, inode, _ in found]


def _line(raw: bytes) -> Line | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _at(line: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(line.get("time"))).timestamp()
    except ValueError:
        return 0.0
