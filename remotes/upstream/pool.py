"""One `Upstream` per configured remote. A remote whose spec is unchanged keeps its connection across revisions."""

import asyncio
import logging
from collections.abc import Mapping

from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.upstream.client import Upstream

log = logging.getLogger("mcp.upstream")


class Pool:
    def __init__(self, *, max_bytes: int, max_in_flight: int) -> None:
        self._max_bytes = max_bytes
        self._max_in_flight = max_in_flight
        self._upstreams: dict[str, Upstream] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Upstream | None:
        return self._upstreams.get(name)

    def follow(self, snapshot: Snapshot, eras: Mapping[str, str]) -> tuple[list[Upstream], list[Upstream]]:
        """Take the remotes of a revision; returns those that are new and those that went, which `retire` ends.

        `eras` holds the revision each remote was last seen to speak.
        """
        wanted = {name: spec for name, spec in snapshot.remotes.items() if spec.enabled and not spec.missing}
        gone = [one for name, one in self._upstreams.items() if not _same(wanted.get(name), one.spec)]
        for one in gone:
            del self._upstreams[one.spec.name]
        for name, one in self._upstreams.items():
            one.spec = wanted[name]
        fresh = [self._new(spec, eras.get(name, "")) for name, spec in wanted.items() if name not in self._upstreams]
        self._upstreams |= {one.spec.name: one for one in fresh}
        return fresh, gone

    def retire(self, upstream: Upstream) -> None:
        """Close a remote that is no longer configured once its last call has ended, or its longest deadline passed."""
        task = asyncio.ensure_future(self._retired(upstream))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*(one.close() for one in self._upstreams.values()), *self._closing, return_exceptions=True)
        self._upstreams.clear()

    def _new(self, spec: RemoteSpec, era: str) -> Upstream:
        return Upstream(spec, max_bytes=self._max_bytes, max_in_flight=self._max_in_flight, era=era)

    async def _retired(self, upstream: Upstream) -> None:
        try:
            async with asyncio.timeout(upstream.spec.timeout_s):
                await upstream.drained()
        except TimeoutError:
            log.warning("%s still had calls open when its time was over", upstream.spec.name)
        finally:
            await upstream.close()


def _same(wanted: RemoteSpec | None, current: RemoteSpec) -> bool:
    return wanted is not None and wanted.digest == current.digest
