"""What the streams of a session said, kept for a while: a client that was cut off comes back with the last event it saw.

Each stream leaves a trail of numbered events. A call's trail is kept while the call runs and a minute beyond its end, that of
the session's own stream (list changes) a minute beyond its last reader. Whatever is not kept any more cannot be resumed and
is never guessed at: another stream's events are not replayed in its place.

Kept in this worker's memory alone; an event's id names the worker, so that any other can send its client here.
Source: specification 2025-11-25, basic/transports "Resumability and Redelivery".
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from gateway.sessions.outbox import Outbox
from mcpserver.protocol import sse

KEPT_S = 60.0
# How long a client waits before it comes back.
_RETRY_MS = 1000
# One stream keeps as much as one reader may have waiting; an answer is kept whatever its size.
_EVENTS_MAX, _BYTES_MAX = 256, 1024 * 1024
_TRAILS_MAX, _TOTAL_MAX_BYTES = 4096, 64 * 1024 * 1024
# One key that floods pushes out its own.
_KEY_TRAILS_MAX, _KEY_MAX_BYTES = 512, 16 * 1024 * 1024
_CALL, _SESSION = "c", "s"


class _Kept(NamedTuple):
    number: int
    event: bytes
    must_arrive: bool


class Trail:
    """One stream: its events, and whoever reads them now. Only the newest reader gets any."""

    def __init__(self, name: str, session_id: str, key_id: str, trails: "Trails", *, primed: bool) -> None:
        self.name = name
        self.session_id = session_id
        self.key_id = key_id
        self.ended = False
        self.bytes = 0
        self.on_over: Callable[[], None] = lambda: None
        self._trails = trails
        self._primed = primed
        self._prefix = name.encode() + b"."
        self._number = 0
        self._kept: deque[_Kept] = deque()
        self._reader: Outbox | None = None
        self._left_at: float | None = None
        self._is_kept = True

    @property
    def is_call(self) -> bool:
        """The stream of a call, which ends with its answer; else the session's own."""
        return self.name.startswith(_CALL)

    @property
    def opening(self) -> bytes:
        """The event that gives a client something to come back with; earlier revisions would read it as a message."""
        return sse.priming(self._prefix + b"0", _RETRY_MS) if self._primed else b""

    @property
    def is_deserted(self) -> bool:
        """Its reader left so long ago that nobody is expected back."""
        return self._left_at is not None and self._trails.now() - self._left_at > KEPT_S

    def put(self, message: bytes) -> bool:
        """Tell what may be dropped; False when it was."""
        if self.ended:
            return False
        event = self._numbered(message, must_arrive=False)
        return self._reader is None or self._reader.put(event)

    def put_answer(self, message: bytes) -> None:
        """Tell what must arrive."""
        event = self._numbered(message, must_arrive=True)
        if self._reader is not None:
            self._reader.put_answer(event)

    def end(self) -> None:
        """Nothing more comes; what came can still be read for a while."""
        self.ended = True
        if self._reader is not None:
            self._reader.end()
        self._trails.expire(self)

    # An answer ends a call's trail, and the session's own holds no promises: there is nothing to wait for.
    finish = end

    def withdraw(self) -> None:
        """End without an answer, and keep no more than that it has ended."""
        kept, self.bytes = self.bytes, 0
        self._kept.clear()
        self._trails.grew(self, -kept)
        self.end()

    def close(self) -> None:
        """End, and keep nothing."""
        self._trails.forget(self)
        self.end()

    def has_more(self, after: int) -> bool:
        """Whether anything comes, or came, after an event."""
        return not self.ended or any(kept.number > after for kept in self._kept)

    def follow(self, after: int = 0) -> Outbox:
        """Read what comes after an event, to the end; whoever was reading gets no more."""
        if self._reader is not None:
            self._reader.end()
        reader = self._reader = Outbox(is_copy=True)
        self._left_at = None
        for kept in self._kept:
            if kept.number > after:
                reader.put_answer(kept.event)
        if self.ended:
            reader.end()
        elif not self.is_call:
            self._trails.keep(self)
        return reader

    def leave(self, reader: Outbox) -> None:
        """This reader is gone."""
        if self._reader is not reader:
            return
        self._reader, self._left_at = None, self._trails.now()
        if not self._is_kept:
            self.on_over()
        elif not self.is_call:
            self._trails.expire(self)

    def forgotten(self) -> None:
        """For `Trails`: it cannot be resumed from now on; a reader reads on."""
        self._is_kept = False
        self._kept.clear()
        self.bytes = 0
        if self._reader is None:
            self.on_over()

    def _numbered(self, message: bytes, *, must_arrive: bool) -> bytes:
        self._number += 1
        event = sse.encode(message, id=self._prefix + b"%d" % self._number)
        if self._is_kept:
            before = self.bytes
            self._kept.append(_Kept(self._number, event, must_arrive))
            self.bytes += len(event)
            while len(self._kept) > _EVENTS_MAX or (self.bytes > _BYTES_MAX and len(self._kept) > 1):
                self._drop_oldest()
            self._trails.grew(self, self.bytes - before)
        return event

    def _drop_oldest(self) -> None:
        """The oldest of what may be dropped goes first, and the newest of all stays: it may be the answer."""
        droppable = (one for one in self._kept if not one.must_arrive and one.number != self._number)
        oldest = next(droppable, self._kept[0])
        self._kept.remove(oldest)
        self.bytes -= len(oldest.event)


class _Share:
    """What is kept of one key's streams, the oldest first."""

    def __init__(self) -> None:
        self.names: OrderedDict[str, None] = OrderedDict()
        self.bytes = 0


class Trails:
    """Every trail of this worker, bounded in number and bytes, per key and in all: what ended first is forgotten first."""

    def __init__(self, now: Callable[[], float], worker: str = "") -> None:
        self.now = now
        self._worker = worker
        self._by_name: OrderedDict[str, Trail] = OrderedDict()
        self._expiring: OrderedDict[str, float] = OrderedDict()
        self._shares: dict[str, _Share] = {}
        self.bytes = 0
        self.on_growth: Callable[[], None] = lambda: None

    def of_call(self, session_id: str, key_id: str, *, primed: bool) -> Trail:
        return self._open(_CALL, session_id, key_id, primed=primed)

    def of_session(self, session_id: str, key_id: str, *, primed: bool) -> Trail:
        return self._open(_SESSION, session_id, key_id, primed=primed)

    def find(self, session_id: str, event_id: bytes) -> tuple[Trail, int] | None:
        """The trail that an event of this session belongs to, and the event's number in it."""
        name, _, number = event_id.decode("latin-1").rpartition(".")
        trail = self._by_name.get(name)
        if trail is None or trail.session_id != session_id or not (number.isascii() and number.isdigit()):
            return None
        return (trail, int(number)) if len(number) < 20 else None

    def end_of(self, session_id: str) -> None:
        """A session ended: its streams do, and nothing of them is kept."""
        for trail in [one for one in self._by_name.values() if one.session_id == session_id]:
            trail.close()

    def sweep(self) -> None:
        """Forget what was kept long enough; cheap, and called each second."""
        now = self.now()
        while self._expiring:
            name, at = next(iter(self._expiring.items()))
            if at > now:
                return
            self.forget(self._by_name[name])

    def expire(self, trail: Trail) -> None:
        """For `Trail`: from now on it is kept for a while only."""
        if trail.name in self._by_name and trail.name not in self._expiring:
            self._expiring[trail.name] = self.now() + KEPT_S

    def keep(self, trail: Trail) -> None:
        """For `Trail`: it is read again."""
        self._expiring.pop(trail.name, None)

    def grew(self, trail: Trail, by: int) -> None:
        """For `Trail`: so many bytes more are kept of it."""
        if trail.name in self._by_name:
            self.bytes += by
            self._shares[trail.key_id].bytes += by
            self._shed(trail.key_id)
            self.on_growth()

    def give_way(self, need_bytes: int) -> None:
        """Forget streams that have ended, the first before the others, until so many bytes are free; readers read on."""
        enough = self.bytes - need_bytes
        for name in list(self._expiring):
            if self.bytes <= enough:
                return
            self.forget(self._by_name[name])

    def forget(self, trail: Trail) -> None:
        """Keep nothing of it."""
        if self._by_name.pop(trail.name, None) is None:
            return
        self._expiring.pop(trail.name, None)
        self.bytes -= trail.bytes
        share = self._shares[trail.key_id]
        share.bytes -= trail.bytes
        del share.names[trail.name]
        if not share.names:
            del self._shares[trail.key_id]
        trail.forgotten()

    def _open(self, kind: str, session_id: str, key_id: str, *, primed: bool) -> Trail:
        # Random, because a session outlives this worker: a name of its predecessor must not mean another stream.
        trail = Trail(f"{kind}.{self._worker}.{secrets.token_urlsafe(6)}", session_id, key_id, self, primed=primed)
        self._by_name[trail.name] = trail
        self._shares.setdefault(key_id, _Share()).names[trail.name] = None
        self._shed(key_id)
        return trail

    def _shed(self, key_id: str) -> None:
        """Forget until the bounds are kept; the last one of a key, or of all, is never too much."""
        share = self._shares[key_id]
        while len(share.names) > 1 and (len(share.names) > _KEY_TRAILS_MAX or share.bytes > _KEY_MAX_BYTES):
            oldest = next((name for name in share.names if name in self._expiring), next(iter(share.names)))
            self.forget(self._by_name[oldest])
        while len(self._by_name) > 1 and (self.bytes > _TOTAL_MAX_BYTES or len(self._by_name) > _TRAILS_MAX):
            self.forget(self._by_name[next(iter(self._expiring or self._by_name))])


def whose_call(event_id: bytes) -> str:
    """The worker that has the stream of a call, by one of its events; empty for any other stream."""
    parts = event_id.decode("latin-1").split(".")
    return parts[1] if len(parts) == 4 and parts[0] == _CALL else ""


def is_of_session(event_id: bytes) -> bool:
    """Whether an event was on a session's own stream: its place can be taken by a fresh one, a call's cannot."""
    return event_id.startswith(_SESSION.encode() + b".")
