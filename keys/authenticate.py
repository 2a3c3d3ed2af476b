"""From the headers of a request to a Principal, at a cost that tells nothing and that nobody can run up.

A key that was verified is remembered by a keyed digest for an hour: from then on it costs a dictionary lookup and a look at its
row in memory. Anything else costs exactly one argon2 run, in one thread, behind a queue of 16: an unknown id, garbage, a wrong
secret, a revoked and an expired key are compared with some hash alike and refused alike. Refusals are not remembered.

The rows live in memory and are read again when their generation moves. While the database is away the last known rows stand.
No request ever waits for the database here.
"""

import asyncio
import hashlib
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from keys import format, hashing, selectors
from keys.principal import Principal
from keys.selectors import Holding
from keys.standing import HeldKey
from keys.usage import Usage
from mcpserver.lib.clock import Clock
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError

# 16 runs of 4 ms: who waits, waits 70 ms at most.
QUEUE_MAX = 16
# A source that was refused within the minute may hold this much of the queue: it cannot shut the others out.
QUEUE_MAX_AFTER_REFUSAL = 4
REFUSAL_REMEMBERED_S = 60.0
REFUSED_SOURCES_MAX = 1024
# How long a verified key passes without argon2. Its row is looked at every time, so this bounds memory, not revocation.
REMEMBERED_S = 3600.0
REMEMBERED_MAX = 4096
# Two different keys in one request: which one was meant is not for us to guess. No key looks like this.
AMBIGUOUS = "ambiguous"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Busy(GatewayError):
    """The queue before argon2 is full: 503 for whoever comes now, with a good key or a bad one."""

    def __init__(self) -> None:
        super().__init__("busy", "too many keys are being verified", hint="try again in a second")


def presented(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key in `Authorization: Bearer` or `X-API-Key` (names in lower case, as ASGI has them); None without one."""
    keys = {key for name, value in headers if (key := _key_in(name, value))}
    if len(keys) > 1:
        return AMBIGUOUS
    return keys.pop().decode("latin-1") if keys else None


@dataclass(frozen=True, slots=True)
class _Verified:
    key_id: str
    hash: str
    until: float


class Authenticator:
    """One per worker, on its event loop.

    `on_revoked` is told the id of every key that has stopped to open; `on_changed` who may use other things than before.
    """

    def __init__(self, clock: Clock) -> None:
        self.on_revoked: list[Callable[[str], None]] = []
        self.on_changed: list[Callable[[Principal], None]] = []
        self.usage = Usage()
        self._clock = clock
        self._generation: int | None = None
        self._held: dict[str, HeldKey] = {}
        self._open: frozenset[str] = frozenset()
        self._stale = False
        # Random per process: a digest seen in a core dump is worth nothing elsewhere.
        self._digest_key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._queue = _Queue(clock)

    async def start(self) -> None:
        """Read the rows; GatewayError when the database cannot be reached: without them nobody could come in."""
        await asyncio.to_thread(hashing.dummy_hash)
        await self._read_rows()

    async def close(self) -> None:
        self._queue.close()
        await self.usage.flush()

    def known(self, key: str, source: str = "") -> Principal | None:
        """The hot path: no argon2, no database, no await. None only means that `verify` must be asked."""
        verified = self._verified.get(self._digest(key))
        if verified is None:
            return None
        now = self._clock.now()
        held = self._held.get(verified.key_id)
        if (
            held is None
            or held.hash != verified.hash
            or not held.opens(now)
            or self._clock.monotonic() >= verified.until
        ):
            return None
        self.usage.note(verified.key_id, now, source)
        return held.principal

    def named(self, name: str) -> Principal | None:
        """The youngest key of a name that opens, or the one with an id: to see what it sees."""
        now = self._clock.now()
        found = [held.principal for held in self._held.values() if held.opens(now)]
        return next((one for one in reversed(found) if name in (one.name, one.key_id)), None)

    def name_of(self, key_id: str) -> str | None:
        """What people call a key; None for one that is not held any more."""
        held = self._held.get(key_id)
        return None if held is None else held.principal.name

    async def verify(self, key: str, source: str) -> Principal | None:
        """One argon2 run whatever was sent; None for every refusal. `source` is who sent it, such as an address."""
        digest = self._digest(key)
        key_id = format.parse(key).key_id
        held = self._held.get(key_id)
        key_hash = held.hash if held is not None else hashing.dummy_hash()
        correct = await self._queue.matches(digest, key_hash, key, source)
        now = self._clock.now()
        held = self._held.get(key_id)  # Again: it may have been revoked while we waited.
        if not correct or held is None or held.hash != key_hash or not held.opens(now):
            self._queue.refused(source)
            return None
        self._remember(digest, _Verified(key_id, key_hash, self._clock.monotonic() + REMEMBERED_S))
        self.usage.note(key_id, now, source)
        return held.principal

    async def refresh(self) -> None:
        """Follow the database; call it each second. While it is away the last known rows stand."""
        try:
            await self._read_rows()
        except GatewayError as error:
            if not self._stale:
                log.warning("keys cannot be read, the last known ones stand: %s", error)
            self._stale = True
            self._tell_ended()
            return
        if self._stale:
            log.info("keys can be read again")
        self._stale = False

    def facts(self) -> dict[str, Any]:
        """For status: the rows in memory, how many keys need no hashing, and the uses that no row will tell."""
        return {
            "held": len(self._held),
            "remembered": len(self._verified),
            "stale": self._stale,
            "uses_dropped": self.usage.dropped,
        }

    @property
    def stale(self) -> bool:
        """Whether the rows in memory could not be checked at the last refresh."""
        return self._stale

    async def _read_rows(self) -> None:
        holding: Holding | None = await in_database(selectors.holding_unless, self._generation, self._clock.now())
        if holding is not None:
            before, self._held = self._held, holding.keys
            self._generation = holding.generation
            self._tell_changed(before)
        self._tell_ended()

    def _tell_ended(self) -> None:
        """By revocation or by date alike: whoever still streams with such a key is to be told."""
        now = self._clock.now()
        still_open = frozenset(key_id for key_id, held in self._held.items() if held.opens(now))
        ended, self._open = self._open - still_open, still_open
        if not ended:
            return
        for digest in [digest for digest, verified in self._verified.items() if verified.key_id in ended]:
            del self._verified[digest]
        for key_id in sorted(ended):
            _tell(self.on_revoked, key_id)

    def _tell_changed(self, before: Mapping[str, HeldKey]) -> None:
        for key_id, held in self._held.items():
            known = before.get(key_id)
            if known is not None and known.principal != held.principal:
                _tell(self.on_changed, held.principal)

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=self._digest_key, digest_size=32).digest()

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        if len(self._verified) > REMEMBERED_MAX:
            self._verified.popitem(last=False)


def _tell(listeners: Iterable[Callable[[T], None]], what: T) -> None:
    for listener in listeners:
        try:
            listener(what)
        except Exception:  # The others still have streams of that key to look after.
            log.exception("a listener failed at the news of key %s", what)


class _Queue:
    """argon2 in one thread, with a bound on who may wait. Equal keys at the same moment share one run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="argon2")
        self._under_way: dict[tuple[bytes, str], asyncio.Future[bool]] = {}
        self._waiting_of: Counter[str] = Counter()
        self._refused_at: OrderedDict[str, float] = OrderedDict()

    async def matches(self, digest: bytes, key_hash: str, key: str, source: str) -> bool:
        """Busy instead of a wait when too many wait already."""
        run = (digest, key_hash)
        future = self._under_way.get(run)
        if future is None:
            if len(self._under_way) >= QUEUE_MAX or self._waiting_of[source] >= self._share(source):
                raise Busy
            future = asyncio.get_running_loop().run_in_executor(self._thread, hashing.matches, key_hash, key)
            self._under_way[run] = future
            self._waiting_of[source] += 1
            future.add_done_callback(lambda _: self._done(run, source))
        # Shielded: one of those who share it may leave.
        return await asyncio.shield(future)

    def refused(self, source: str) -> None:
        self._refused_at[source] = self._clock.monotonic()
        self._refused_at.move_to_end(source)
        if len(self._refused_at) > REFUSED_SOURCES_MAX:
            self._refused_at.popitem(last=False)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _share(self, source: str) -> int:
        refused_at = self._refused_at.get(source)
        recently = refused_at is not None and self._clock.monotonic() - refused_at < REFUSAL_REMEMBERED_S
        return QUEUE_MAX_AFTER_REFUSAL if recently else QUEUE_MAX

    def _done(self, run: tuple[bytes, str], source: str) -> None:
        del self._under_way[run]
        self._waiting_of[source] -= 1
        if not self._waiting_of[source]:
            del self._waiting_of[source]


def _key_in(name: bytes, value: bytes) -> bytes:
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization":
        scheme, _, credentials = value.strip().partition(b" ")
        # Another scheme is meant for somebody else, a proxy in front perhaps.
        return credentials.strip() if scheme.lower() == b"bearer" else b""
    return b""
