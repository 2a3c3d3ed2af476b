"""What clients see, kept up to date: the remotes, what each was last known to offer, and the generation they joined to.

Lists never wait: each remote has a keeper that connects, loads its lists and loads them again when the remote says so, when they
grow old, or after it was lost; what it loaded last stands until then, also what it loaded before a restart. What a new revision
brings is shown together, once its new remotes were tried, or after a moment without those that hang: it is the start of a gateway
that waits that long, not its clients.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain

import msgspec

from gateway.catalog import links
from gateway.catalog.joined import Joined, is_readable, linked, own_uri
from gateway.catalog.links import Links
from gateway.catalog.listing import CAPABILITY, REFRESH_S, Entry, Hidden, Listing, Said, Why, read, worked
from gateway.catalog.pins import KnownPins
from gateway.catalog.remembered import Remembered
from gateway.cluster.shelf import Shelf
from keys.principal import Principal
from mcpserver.protocol import jsonrpc
from mcpserver.protocol.versions import LISTS
from remotes import pinning
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.flapping import Damper, News, words
from remotes.pinning import Standing
from remotes.status import Status, of
from remotes.upstream.client import Upstream
from remotes.upstream.outcome import Failed, Failure, Fault

log = logging.getLogger("mcp.catalog")

# From one try to the next, the time that a try takes included: one that comes back is known of well within 45 s.
_RETRY_FIRST_S, _RETRY_MAX_S = 1.0, 30.0
# New remotes are shown with the others if their first load takes no longer than this.
FIRST_LOAD_PATIENCE_S = 2.0
# A remote that announces a change with every answer would otherwise be asked as fast as it answers; one with thousands of tools,
# whose reading costs up to a third of a second, less often.
_LOADS_APART_S, _TOOLS_PER_S = 1.0, 1000
# Of one result's links, so many are agreed on among workers.
_NAMED_MAX = 500


class Kept(msgspec.Struct):
    """A remote as its keeper knows it. Times are monotonic seconds."""

    upstream: Upstream
    spec: RemoteSpec
    began: float
    wake: asyncio.Event
    listing: Listing | None = None
    failure: Failure | None = None
    tried: bool = False
    latency_ms: float | None = None
    keeper: asyncio.Task[None] | None = None
    remembered_at: datetime | None = None
    """When `listing` was said, where that was before this gateway started; None: it is this gateway's own."""

    @property
    def status(self) -> Status:
        return of(self.upstream.spec, reached=self.is_reached, failure=self.failure)

    @property
    def is_reached(self) -> bool:
        """Whether it answered some time, and was asked since it was last taken up."""
        return self.tried and self.listing is not None and self.remembered_at is None


Published = Callable[[set[str]], None]


class Catalog:
    """The keepers of all remotes and the generation they last agreed on."""

    def __init__(
        self,
        on_published: Published,
        on_contact: Callable[[Kept], None],
        pins: KnownPins,
        remembered: Remembered | None = None,
    ) -> None:
        self._remembered = Remembered(None) if remembered is None else remembered
        self.joined = Joined(0, ())
        self._pins = pins
        self._links = Links()
        self.shelf: Shelf | None = None
        """Where workers agree on URIs that are not listed."""
        self._kept: dict[str, Kept] = {}
        self._order: list[str] = []
        self._longest = 55
        self._on_published = on_published
        self._on_contact = on_contact
        self._settled = asyncio.Event()
        self._held: asyncio.TimerHandle | None = None
        self._damper = Damper()

    def follow(self, snapshot: Snapshot, upstreams: Mapping[str, Upstream]) -> None:
        """Keep the remotes of a revision, in its order."""
        self._order = list(snapshot.remotes)
        self._longest = snapshot.gateway.max_tool_name
        for name in [name for name, kept in self._kept.items() if upstreams.get(name) is not kept.upstream]:
            self._drop(name)
        for name, upstream in upstreams.items():
            kept = self._kept.get(name)
            if kept is None:
                self._keep(name, upstream)
            elif kept.spec != upstream.spec:
                kept.spec = upstream.spec
                kept.wake.set()
        self._remembered.keep(self._order)
        self._publish()

    def kept(self, name: str) -> Kept | None:
        return self._kept.get(name)

    def standing(self, name: str) -> dict[str, Standing]:
        """The tools of a remote that are not as they were approved."""
        kept = self._kept.get(name)
        listing = kept.listing if kept is not None else None
        if kept is None or listing is None or listing.sighting is None or kept.spec.pin == "off":
            return {}
        return pinning.compare(self._pins.of(name), listing.sighting.digests)

    def withheld(self, name: str) -> dict[str, Standing]:
        """The tools of a remote that clients do not get because nobody has approved them as they are."""
        kept = self._kept.get(name)
        return pinning.withheld(kept.spec.pin, self.standing(name)) if kept is not None else {}

    def judge_again(self) -> None:
        """Pins have changed: what is withheld may be another matter now."""
        self._publish()

    def readable(self, uri: str, principal: Principal) -> Entry | None:
        """Whose resource a URI is for this key, listed or named in a result: what it may not read hides nothing that it may."""
        link = linked(self._links, uri)
        leads = chain(self.joined.leads(uri), () if link is None else (link,))
        return next((entry for entry in leads if is_readable(principal, entry, uri)), None)

    def located(self, uri: str, principal: Principal) -> tuple[str, str] | None:
        """The remote and the own URI behind an exposed one; None when it does not exist for this key."""
        entry = self.readable(uri, principal)
        return None if entry is None else (entry.remote, own_uri(entry, uri))

    async def agree(self, method: str, entry: Entry, raw: bytes) -> None:
        """Before `readdressed`, among several workers: a URI that two remotes name leads to the same one everywhere."""
        if self.shelf is None or method == "resources/read" or not links.names_resources(raw):
            return
        with contextlib.suppress(jsonrpc.Malformed):
            names = [one for uri in links.named(raw) for one in self._links.names(entry.remote, uri, self.joined.owner)]
            standing = await self.shelf.put(entry.remote, names[:_NAMED_MAX]) if names else None
            for (exposed, _), (remote, own) in zip(names, standing or (), strict=False):
                self._links.learn(remote, exposed, own)

    async def recall(self, uris: Iterable[str]) -> None:
        """Before a URI is looked up, among several workers: what another one learnt of it."""
        unknown = [uri for uri in uris if self.joined.owner(uri) is None and self._links.find(uri) is None]
        if self.shelf is None or not unknown:
            return
        for uri, found in zip(unknown, await self.shelf.get(unknown), strict=True):
            if found is not None:
                self._links.learn(found.owner, uri, found.value)

    def readdressed(self, method: str, entry: Entry, raw: bytes) -> bytes:
        """A result whose URIs lead back to the remote that it came from: the same bytes, but where two remotes collide."""

        def exposed(uri: str) -> str:
            return self._links.exposed(entry.remote, uri, self.joined.owner)

        try:
            if method == "resources/read":
                return raw if entry.exposed == entry.own else links.contents(raw, exposed)
            return links.result(raw, exposed) if links.names_resources(raw) else raw
        except jsonrpc.Malformed:
            return raw  # whoever makes the answer says what is wrong with it

    async def ready(self) -> Joined:
        """The current generation, once no remote is in the first moments of its first load. Lists take it as it is instead."""
        while (patience := self._patience()) > 0:
            self._settled.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._settled.wait()
            except TimeoutError:
                break
        if self._held is not None:
            self._publish()
        return self.joined

    def leave(self, name: str) -> None:
        """Ask a remote nothing and hold nothing against it, until `take_up`; what it listed last stands."""
        kept = self._kept.get(name)
        if kept is not None and kept.keeper is not None:
            kept.keeper.cancel()
            kept.failure, kept.tried = None, False

    def take_up(self, name: str) -> None:
        """Keep it again, as if it had never failed."""
        self.leave(name)
        if (kept := self._kept.get(name)) is not None:
            kept.keeper = asyncio.create_task(self._tend(kept), name=f"keeper of {name}")

    async def tried(self, name: str) -> None:
        """Wait until it is known how a remote is."""
        while (kept := self._kept.get(name)) is not None and not kept.tried:
            self._settled.clear()
            await self._settled.wait()

    def look_at(self, name: str) -> None:
        """Have a remote's keeper load its lists now."""
        kept = self._kept.get(name)
        if kept is not None:
            kept.wake.set()

    async def refresh(self, name: str) -> None:
        """Load one remote's lists again, now."""
        kept = self._kept.get(name)
        if kept is not None:
            await self._load(kept)

    async def close(self) -> None:
        keepers = [kept.keeper for kept in self._kept.values() if kept.keeper is not None]
        for name in list(self._kept):
            self._drop(name)
        if self._held is not None:
            self._held.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    def _patience(self) -> float:
        now = asyncio.get_running_loop().time()
        loading = (kept.began + FIRST_LOAD_PATIENCE_S - now for kept in self._kept.values() if not kept.tried)
        return max(loading, default=0.0)

    def _keep(self, name: str, upstream: Upstream) -> None:
        kept = Kept(upstream, upstream.spec, asyncio.get_running_loop().time(), asyncio.Event())
        upstream.on_change = lambda kind: kept.wake.set()
        kept.keeper = asyncio.create_task(self._tend(kept), name=f"keeper of {name}")
        self._kept[name] = kept

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        if kept.keeper is not None:
            kept.keeper.cancel()

    async def _tend(self, kept: Kept) -> None:
        retry = _RETRY_FIRST_S
        if kept.listing is None:
            await self._recall(kept)
        while True:
            kept.wake.clear()
            loaded_at = asyncio.get_running_loop().time()
            await self._load(kept)
            if kept.failure is None:
                retry, wait = _RETRY_FIRST_S, REFRESH_S
            else:
                told_s = kept.failure.retry_after_s
                retry, wait = min(2 * retry, _RETRY_MAX_S), retry if told_s is None else min(told_s, _RETRY_MAX_S)
                took_s = asyncio.get_running_loop().time() - loaded_at
                wait = max(min(wait, _RETRY_MAX_S - took_s), _RETRY_FIRST_S)
            wait *= random.uniform(0.8, 1.2)  # noqa: S311 - spreading load, not guarding a secret
            try:
                async with asyncio.timeout(wait):
                    await kept.wake.wait()
            except TimeoutError:
                continue
            if kept.upstream.last_failure is not None:
                await asyncio.sleep(retry)  # lost: what just died is not started again at once
            await asyncio.sleep(loaded_at + _apart_s(kept.listing) - asyncio.get_running_loop().time())

    async def _recall(self, kept: Kept) -> None:
        """Show what the remote listed before the gateway started, until it is reached."""
        spec = kept.spec
        if spec.pin == "hold" and self._pins.of(spec.name) is None:
            return  # nobody has approved anything, and what is trusted is a first contact, not a memory
        try:
            found = await self._remembered.of(spec)
            if found is not None:
                said, at = found
                kept.listing, kept.remembered_at = await self._worked(said, spec), at
                self._publish()
        except Exception:
            log.exception("what %s listed before the start cannot be used", spec.name)

    async def _worked(self, said: Said, spec: RemoteSpec) -> Listing:
        return await worked(said, spec, self._longest, self._pins.of(spec.name) or {})

    async def _load(self, kept: Kept) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        before = kept.status
        try:
            said = await read(kept.upstream)
            listing = await self._worked(said, kept.spec)
        except Failed as failed:
            kept.failure = failed.failure
        except Exception:  # a keeper that dies leaves its remote without one until the next change of configuration
            log.exception("reading the lists of %s failed", kept.upstream.spec.name)
            kept.failure = Failure(Fault.INVALID, "list", "its lists cannot be read; the gateway's log says more")
        else:
            kept.failure, kept.latency_ms = None, round((loop.time() - started) * 1000, 1)
            kept.remembered_at = None
            self._pins.saw(kept.spec, listing.sighting)
            self._remembered.heard(kept.spec, said)
            if listing != kept.listing:
                kept.listing = listing
                self._publish()
        kept.tried = True
        if self._held is not None:
            self._publish()
        self._settled.set()
        news = self._damper.heard(kept.upstream.spec.name, before, kept.status, loop.time())
        if news is not News.NOTHING:
            self._report(kept, news)
        self._on_contact(kept)

    def _report(self, kept: Kept, news: News) -> None:
        name, failure = kept.upstream.spec.name, kept.failure
        said = words(name, str(kept.status), news, failure.told if failure is not None else "")
        log.log(logging.INFO if failure is None else logging.WARNING, "%s", said, extra={"remote": name})

    def _publish(self) -> None:
        """Show what is known now, or a moment later together with what is just being loaded for the first time."""
        if self._held is not None:
            self._held.cancel()
            self._held = None
        patience = self._patience()
        if patience > 0:
            self._held = asyncio.get_running_loop().call_later(patience, self._publish)
        else:
            self._join()

    def _join(self) -> None:
        listings = [
            (name, self._offered(kept, listing))
            for name in self._order
            if (kept := self._kept.get(name)) is not None and (listing := kept.listing) is not None
        ]
        before = self.joined
        self.joined = Joined(before.generation + 1, listings)
        changed = {
            CAPABILITY[method]
            for method in LISTS
            if [entry.raw for entry in before.entries(method)] != [entry.raw for entry in self.joined.entries(method)]
        }
        for problem in set(self.joined.problems) - set(before.problems):
            log.warning("catalogue: %s", problem)
        if changed:
            self._on_published(changed)

    def _offered(self, kept: Kept, listing: Listing) -> Listing:
        """What a remote lists, without the tools that are held back."""
        name = kept.spec.name
        withheld = self.withheld(name)
        if not withheld:
            return listing
        tools = listing.entries.get("tools/list", ())
        held = tuple(
            Hidden(name, tool.own, tool.exposed, Why.WITHHELD, withheld[tool.own])
            for tool in tools
            if tool.own in withheld
        )
        offered = {**listing.entries, "tools/list": tuple(tool for tool in tools if tool.own not in withheld)}
        return msgspec.structs.replace(listing, entries=offered, hidden=(*listing.hidden, *held))


def _apart_s(listing: Listing | None) -> float:
    """How long after the beginning of a load the next one may begin."""
    entries = sum(map(len, listing.entries.values())) if listing is not None else 0
    return max(_LOADS_APART_S, entries / _TOOLS_PER_S)
