"""Who used their key, written down without a write per call.

`note` is on the path of every request: a dictionary entry, nothing else. `flush` is called every few seconds and writes what
came together: when a key was last used, and one audit row per key and minute. A database that is away loses nothing at first;
what no longer fits is counted, because serving never waits for a write.
"""

import logging
from datetime import UTC, datetime

from keys import services
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError

# Entries are per key and minute: 200 keys for 20 minutes.
PENDING_MAX = 4000

log = logging.getLogger(__name__)

Uses = dict[tuple[str, int], datetime]


class Usage:
    """What was used since the last flush. `dropped` counts the uses that no row will tell."""

    def __init__(self) -> None:
        self.dropped = 0
        self._pending: Uses = {}

    def note(self, key_id: str, now: datetime) -> None:
        entry = (key_id, int(now.timestamp()) // 60)
        if entry in self._pending or len(self._pending) < PENDING_MAX:
            self._pending[entry] = now
        else:
            self.dropped += 1

    async def flush(self) -> None:
        """Never raises for a database that is away: what it could not take waits for the next flush."""
        taken, self._pending = self._pending, {}
        if not taken:
            return
        try:
            await in_database(services.record_use, {_by_minute(entry): at for entry, at in taken.items()})
        except GatewayError as error:
            log.warning("key use not recorded: %s", error)
            self._put_back(taken)

    def _put_back(self, taken: Uses) -> None:
        merged = taken | self._pending
        self._pending = dict(list(merged.items())[:PENDING_MAX])
        self.dropped += len(merged) - len(self._pending)


def _by_minute(entry: tuple[str, int]) -> tuple[str, datetime]:
    key_id, minute = entry
    return key_id, datetime.fromtimestamp(minute * 60, UTC)
