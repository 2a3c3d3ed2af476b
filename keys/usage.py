"""Who used their key, written down without a write per call.

`note` is on the path of every request: a dictionary entry, nothing else. `flush` is called every few seconds and writes what
came together: when a key was last used, and one audit row per key and minute. A database that is away loses nothing at first;
what no longer fits is counted, because serving never waits for a write.
"""

import logging
from datetime import UTC, datetime

import msgspec

from keys import services
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError

# Entries are per key and minute: 200 keys for 20 minutes.
PENDING_MAX = 4000

log = logging.getLogger(__name__)


class Use(msgspec.Struct):
    """One key in one minute: its last call, and where the first came from."""

    last: datetime
    source: str


Uses = dict[tuple[str, int], Use]


class Usage:
    """What was used since the last flush. `dropped` counts the uses that no row will tell."""

    def __init__(self) -> None:
        self.dropped = 0
        self._pending: Uses = {}

    def note(self, key_id: str, now: datetime, source: str = "") -> None:
        entry = (key_id, int(now.timestamp()) // 60)
        use = self._pending.get(entry)
        if use is not None:
            use.last = now
        elif len(self._pending) < PENDING_MAX:
            self._pending[entry] = Use(now, source)
        else:
            self.dropped += 1

    async def flush(self) -> None:
        """Never raises for a database that is away: what it could not take waits for the next flush."""
        taken, self._pending = self._pending, {}
        if not taken:
            return
        try:
            await in_database(services.record_use, {_by_minute(entry): _told(use) for entry, use in taken.items()})
        except GatewayError as error:
            log.warning("key use not recorded: %s", error)
            self._put_back(taken)

    def _put_back(self, taken: Uses) -> None:
        merged = taken | self._pending
        for entry in taken.keys() & self._pending.keys():
            merged[entry] = Use(self._pending[entry].last, taken[entry].source)
        self._pending = dict(list(merged.items())[:PENDING_MAX])
        self.dropped += len(merged) - len(self._pending)


def _by_minute(entry: tuple[str, int]) -> tuple[str, datetime]:
    key_id, minute = entry
    return key_id, datetime.fromtimestamp(minute * 60, UTC)


def _told(use: Use) -> tuple[datetime, str]:
    return use.last, use.source
