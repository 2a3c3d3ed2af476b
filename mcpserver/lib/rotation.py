"""`combined.log`, `combined.1.log` …: files that several processes write and rotate together, over concurrent-log-handler.

What it adds: sizes that are kept exactly, and lines that are written whole or not at all.
"""

import logging
import os
import sys
from pathlib import Path

# Its portalocker would load the whole Redis client, if there is one, for a lock that nobody here takes: 8 MB of every process.
_hides_redis = sys.modules.setdefault("portalocker.redis", None) is None  # type: ignore[arg-type]  # "not there", to an import

from concurrent_log_handler import ConcurrentRotatingFileHandler  # noqa: E402

if _hides_redis:
    del sys.modules["portalocker.redis"]

from mcpserver.lib.log import Remembers, write_whole  # noqa: E402


class Rotating(Remembers, ConcurrentRotatingFileHandler):
    """`files` counts the current one. A lock file beside the log keeps writers apart; it dies with its holder."""

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        backups = max(files - 1, 1)
        super().__init__(str(path), maxBytes=max_bytes, backupCount=backups, encoding="utf-8", chmod=0o640)
        self.namer = rotated_name

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        try:
            size = os.path.getsize(self.baseFilename)
        except OSError:
            return False
        return size > 0 and size + len(record.getMessage()) + 1 > self.maxBytes

    def do_write(self, msg: str) -> None:
        """The lock is held."""
        if self.stream is None or self.stream.closed:
            self.stream = self.do_open()
        write_whole(self.stream.fileno(), f"{msg}\n".encode())


def rotated_name(default: str) -> str:
    """`combined.log.1` → `combined.1.log`: an editor and a glob for *.log find them all."""
    base, _, number = default.rpartition(".")
    stem = base.removesuffix(".log")
    return f"{stem}.{number}.log" if stem != base else default
