"""The tool pins as this worker knows them: judged from memory, read and written off the path of any request.

The database has the last word, and is asked through its own threads: what was seen is written down with the next look, each look
reads what others wrote. While the database is away the last known pins stand, and what was seen waits.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from gateway import metrics
from mcpserver.lib.database import in_database
from remotes import pins, selectors
from remotes.config.snapshot import Pin as Mode
from remotes.config.snapshot import RemoteSpec
from remotes.pinning import Pin, Pins, Sighting, is_recorded

log = logging.getLogger("mcp.pins")

# Ten thousand tools of a remote that is met for the first time.
_WRITE_S = 20.0
# A remote whose tools never stop changing has this share of a database thread.
_REST, _REST_MAX_S = 20, 60.0
# The newest event may have been committed before an older one.
_READ_AGAIN_S = 60.0
_NONE: Pins = MappingProxyType({})


class KnownPins:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._pins: Mapping[str, Pins] = {}
        self._latest: dict[str, tuple[Mode, Sighting]] = {}
        self._unsure: set[str] = set()
        """Remotes whose latest sighting may not be written down yet."""
        self._met: dict[str, tuple[Mode, Sighting]] = {}
        """First contacts that are not written down yet: what came first is trusted, not what came last."""
        self._rests: dict[str, float] = {}
        self._newest, self._read_at = 0, 0.0

    def of(self, remote: str) -> Pins | None:
        """The pins of one remote; None for one that nobody has met."""
        if remote in self._met:
            _, sighting = self._met[remote]
            return {tool: Pin(digest, digest) for tool, digest in sighting.digests.items()}
        return self._pins.get(remote)

    def saw(self, spec: RemoteSpec, sighting: Sighting | None) -> None:
        """Take note of a remote's tools, to be written down where that is news."""
        if sighting is None:
            self._latest.pop(spec.name, None)
            self._met.pop(spec.name, None)
            return
        self._latest[spec.name] = (spec.pin, sighting)
        self._unsure.add(spec.name)
        if sighting.digests and self.of(spec.name) is None:
            self._met[spec.name] = self._latest[spec.name]

    async def start(self) -> None:
        """Raises GatewayError."""
        await self._read(await in_database(selectors.newest_tool_event))

    async def follow(self) -> bool:
        """Write down what was seen and read what is new; whether anything may be judged differently now. Raises GatewayError."""
        wrote = [await self._record(remote) for remote in list(self._unsure) if self._is_due(remote)]
        newest = await in_database(selectors.newest_tool_event)
        if newest == self._newest and not any(wrote) and self._monotonic() - self._read_at < _READ_AGAIN_S:
            return False
        await self._read(newest)
        return True

    async def _read(self, newest: int) -> None:
        self._pins = await in_database(selectors.tool_pins, timeout_s=_WRITE_S)
        self._newest, self._read_at = newest, self._monotonic()

    def _is_due(self, remote: str) -> bool:
        return self._monotonic() >= self._rests.get(remote, 0.0)

    async def _record(self, remote: str) -> bool:
        """Whether anything was written. What is seen meanwhile is looked at with the next round, by pins that are read then."""
        met, latest = self._met.get(remote), self._latest.get(remote)
        wrote = met is not None
        if met is not None:
            await self._write(remote, *met)
            self._met.pop(remote, None)
        if latest is None or latest is met or is_recorded(self._pins.get(remote, _NONE), latest[1].digests, latest[0]):
            if not wrote:
                self._unsure.discard(remote)
            return wrote
        await self._write(remote, *latest)
        return True

    async def _write(self, remote: str, mode: Mode, sighting: Sighting) -> None:
        began = self._monotonic()
        changes = await in_database(partial(pins.observe, remote, mode, sighting), timeout_s=_WRITE_S)
        ended = self._monotonic()
        self._rests[remote] = ended + min(_REST * (ended - began), _REST_MAX_S)
        for change in changes:
            metrics.TOOL_CHANGES.labels(remote, change.event.removeprefix("tool_")).inc(change.tools)
            log.log(change.level, "%s", change.told, extra={"remote": remote})
