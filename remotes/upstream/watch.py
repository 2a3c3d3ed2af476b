"""What a remote tells of its own accord, asked for and kept asked for: changes of its lists, and of the resources we name.

`want` names the resources; a task per connection brings the remote in step with it, and a new connection begins anew. Neither
era replays what was missed, so after a gap the lists count as changed and every wanted resource as updated. A remote that does
not offer this, or refuses, is left alone. Nothing here decides who is told: that is the listener's affair.

Source: specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources "Subscriptions".
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from msgspec import Raw

from mcpserver.protocol import codes, jsonrpc
from remotes.upstream.connection import LISTEN, Connection, Greeting, Listener
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failure, Fault, Outcome, Refusal

log = logging.getLogger("mcp.upstream")

# A stream whose other end has vanished looks like a quiet one, so none is trusted longer than this.
_LIFE_S = 900.0
_ACKNOWLEDGE_S = 10.0
_REQUEST_S = 10.0
# What ends, or cannot be opened, is tried again after this long, doubled up to the second; reset by a stream that lasted.
_RETRY_FIRST_S, _RETRY_MAX_S = 1.0, 60.0
_LASTED_S = 60.0
# How long somebody who wants a resource watched waits for the remote to know.
_SETTLE_S = 3.0

_GRANTED = Refusal(b"")

_LISTS = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}


class Watch:
    def __init__(self, listener: Listener) -> None:
        self.refused: dict[str, Refusal | None] = {}
        """Which of the wanted resources the remote will not tell of, and its words, if it had any."""
        self._listener = listener
        self._wanted: frozenset[str] = frozenset()
        self._stirred = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._begun = False

    def want(self, uris: frozenset[str]) -> None:
        """Be told of changes of exactly these resources, from now on."""
        if uris != self._wanted:
            self._wanted = uris
            self._settled.clear()
            self._stirred.set()

    async def settled(self) -> None:
        """Wait until a remote that can be reached knows what is wanted, for a moment at most."""
        if self._task is None or self._task.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._settled.wait()

    def begin(self, connection: Connection) -> None:
        """Speak with the remote over this connection instead of the one before."""
        self.end()
        self.refused.clear()
        self._settled.clear()
        self._task = asyncio.create_task(self._keep(connection, missed=self._begun))
        self._begun = True

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        self.end()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, connection: Connection, *, missed: bool) -> None:
        keep = self._listen if connection.greeting.modern else self._subscribe
        try:
            await keep(connection, missed=missed)
        except Exception:  # a fault of ours must not be silent: nobody would be told of changes any more
            log.exception("watching a remote failed")
        finally:
            if self._task is asyncio.current_task():
                self._settled.set()

    def _catch_up(self, uris: Iterable[str]) -> None:
        self._listener.changed("lists")
        for uri in sorted(uris):
            self._listener.updated(uri)

    def _settle(self, wanted: frozenset[str]) -> None:
        if wanted == self._wanted:
            self._settled.set()

    # Before 2026-07-28: one request per resource. Changes of lists come unasked.

    async def _subscribe(self, connection: Connection, *, missed: bool) -> None:
        if not offers(connection.greeting, "resources", "subscribe"):
            if missed:
                self._catch_up(())
            return
        held: set[str] = set()
        retry = _RETRY_FIRST_S
        while connection.usable:
            self._stirred.clear()
            wanted = self._wanted
            in_step = await self._bring_in_step(connection, held, wanted)
            if missed and in_step:
                self._catch_up(wanted)
                missed = False
            self._settle(wanted)
            if in_step:
                retry = _RETRY_FIRST_S
                await self._stirred.wait()
            elif connection.usable:
                await asyncio.sleep(retry)
                retry = min(2 * retry, _RETRY_MAX_S)
        self._listener.changed("lost")  # the keeper connects again, and subscribes with the new connection

    async def _bring_in_step(self, connection: Connection, held: set[str], wanted: frozenset[str]) -> bool:
        """Subscribe and unsubscribe until the remote has what is wanted; False when it gave no answer to some of it."""
        in_step = True
        for uri in sorted(held - wanted):
            held.discard(uri)  # whatever the answer: a remote that tells of what nobody wants does no harm
            if self.refused.pop(uri, _GRANTED) is _GRANTED:
                outcome = await _about(connection, "resources/unsubscribe", uri)
                in_step = in_step and not isinstance(outcome, Failure)
        for uri in sorted(wanted - held):
            outcome = await _about(connection, "resources/subscribe", uri)
            if isinstance(outcome, Failure):
                in_step = False
                if not connection.usable:
                    break
                continue
            held.add(uri)
            if isinstance(outcome, Refusal):
                self.refused[uri] = outcome
        return in_step

    # 2026-07-28: one stream for everything, opened anew when what is wanted changes.

    async def _listen(self, connection: Connection, *, missed: bool) -> None:
        lists = {field: True for field, kind in _LISTS.items() if offers(connection.greeting, kind, "listChanged")}
        watches = offers(connection.greeting, "resources", "subscribe")
        current: _Stream | None = None
        retry = _RETRY_FIRST_S
        granted_once = False
        try:
            while connection.usable and (lists or watches):
                self._stirred.clear()
                asked = self._wanted
                fresh = await _opened(connection, lists, asked if watches else frozenset())
                patience = _LIFE_S
                if fresh.granted is not None:
                    if current is not None:
                        current.end()  # the new one first, so that nothing falls between
                    current, granted_once = fresh, True
                    self.refused = {uri: self.refused.get(uri) for uri in asked - fresh.granted}
                    if missed:
                        self._catch_up(fresh.granted)
                        missed = False
                elif fresh.is_refused and (current is not None or not granted_once):
                    self.refused = dict.fromkeys(asked, fresh.refusal)
                    if current is None:
                        if not (watches and lists and asked):
                            return
                        watches = False  # the lists alone, then
                        continue
                else:
                    missed, patience = True, retry
                    if fresh.is_unauthorized:
                        self._listener.changed("lists")  # the keeper asks for them, which renews the credential
                self._settle(asked)
                if current is not None and not await self._outlasts(current, patience):
                    missed, retry = True, _RETRY_FIRST_S if current.lasted else retry
                    current = None
                if current is None:
                    await asyncio.sleep(retry)
                if fresh is not current:
                    retry = min(2 * retry, _RETRY_MAX_S)
        finally:
            if current is not None:
                current.end()
        self._listener.changed("lost")

    async def _outlasts(self, stream: "_Stream", patience_s: float) -> bool:
        """Wait for a reason to open another stream; False when it is that this one has ended."""
        stirred = asyncio.ensure_future(self._stirred.wait())
        try:
            await asyncio.wait({stream.task, stirred}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stirred.cancel()
        return not stream.task.done()


class _Stream:
    """One `subscriptions/listen` request. `granted` is None until the remote has acknowledged it."""

    def __init__(self, connection: Connection, lists: dict[str, bool], uris: frozenset[str]) -> None:
        loop = asyncio.get_running_loop()
        wanted = lists | ({"resourceSubscriptions": sorted(uris)} if uris else {})
        self.granted: frozenset[str] | None = None
        self._uris = uris
        self._began = loop.time()
        self._acknowledged = asyncio.Event()
        deadline = self._began + 2 * _LIFE_S
        params = {"notifications": Raw(jsonrpc.encode(wanted))}
        exchange = Exchange(LISTEN, params, deadline=deadline, notify=self._told)
        self.task: asyncio.Task[Outcome] = asyncio.create_task(connection.request(exchange))

    @property
    def lasted(self) -> bool:
        return asyncio.get_running_loop().time() - self._began > _LASTED_S

    @property
    def refusal(self) -> Refusal | None:
        outcome = self.task.result() if self.task.done() else None
        return outcome if isinstance(outcome, Refusal) else None

    @property
    def is_refused(self) -> bool:
        """The remote said no, and would say it again: unlike one that is busy, down, or wants another credential."""
        outcome = self.task.result() if self.task.done() else None
        match outcome:
            case Refusal(error):
                return jsonrpc.error_body(error).code != codes.INTERNAL_ERROR
            case Failure(fault=Fault.HTTP_STATUS, status=status):
                return status < 500 and status not in (408, 429)
            case Answer() | Failure() | None:
                return False

    @property
    def is_unauthorized(self) -> bool:
        outcome = self.task.result() if self.task.done() else None
        return isinstance(outcome, Failure) and outcome.fault is Fault.UNAUTHORIZED

    async def acknowledged(self) -> None:
        """Wait for the acknowledgement or the end; a remote that keeps the stream open in silence has granted everything."""
        acknowledged = asyncio.ensure_future(self._acknowledged.wait())
        try:
            await asyncio.wait({self.task, acknowledged}, timeout=_ACKNOWLEDGE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            acknowledged.cancel()
        if self.granted is None and not self.task.done():
            self.granted = self._uris

    def end(self) -> None:
        self.task.cancel()

    def _told(self, method: str, raw: bytes | None) -> None:
        if self.granted is None:
            self.granted = self._uris & _granted(raw)
            self._acknowledged.set()


async def _opened(connection: Connection, lists: dict[str, bool], uris: frozenset[str]) -> _Stream:
    stream = _Stream(connection, lists, uris)
    try:
        await stream.acknowledged()
    except BaseException:
        stream.end()
        raise
    return stream


def _granted(raw: bytes | None) -> frozenset[str]:
    try:
        fields = jsonrpc.fields(jsonrpc.fields(raw).get("notifications"), "notifications")
        return frozenset(jsonrpc.strings(fields.get("resourceSubscriptions") or b"[]", "resourceSubscriptions"))
    except jsonrpc.Malformed:
        return frozenset()


async def _about(connection: Connection, method: str, uri: str) -> Outcome:
    deadline = asyncio.get_running_loop().time() + _REQUEST_S
    return await connection.request(Exchange(method, {"uri": Raw(jsonrpc.encode(uri))}, deadline=deadline))


def offers(greeting: Greeting, capability: str, feature: str) -> bool:
    """Whether a remote declares a feature of a capability, such as `subscribe` of `resources`."""
    try:
        declared = jsonrpc.fields(greeting.capabilities.get(capability), capability)
    except jsonrpc.Malformed:
        return False
    return bytes(declared.get(feature, b"")) == b"true"
