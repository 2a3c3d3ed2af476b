"""Handshake sessions: the proof is in the id, and what must be remembered for one is bounded and can be lost without harm.

Remembered here: the log level, the requests that could be cancelled, the one stream for messages outside a request (its trail and
its reader), and which ids were ended. A session belongs to the key that opened it; with another key it does not exist.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from gateway.sessions.asking import Reply
from gateway.sessions.outbox import Outbox
from gateway.sessions.resumption import Trail
from gateway.sessions.subscriptions import Subscriber
from keys.principal import Principal
from mcpserver.protocol import session as sealed

_REMEMBERED = 10_000
_LIFE_S = 7 * 24 * 3600


class Ongoing(msgspec.Struct, eq=False):
    """A request under way. `cancelled` tells the client's cancellation from every other end of its task."""

    task: asyncio.Task[None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        self.task.cancel()


class Session(msgspec.Struct, eq=False):
    id: str
    key_id: str
    revision: str
    capabilities: str
    log_level: str | None = None
    open_calls: dict[bytes, Ongoing] = {}
    asked: dict[bytes, asyncio.Future[Reply]] = {}
    stream: Outbox | None = None
    trail: Trail | None = None
    hears: Subscriber | None = None
    # Opened by a worker that is gone: what it had asked for there is not known here yet.
    is_taken_over: bool = False

    @property
    def subscriber(self) -> Subscriber:
        """How it hears of what happens outside its requests; one that nobody told otherwise reads its own stream."""
        if self.hears is None:
            self.hears = Subscriber(self.key_id, self._tell, lambda: self.stream is not None)
        return self.hears

    def _tell(self, message: bytes) -> bool:
        return self.stream is not None and self.trail is not None and self.trail.put(message)

    def forget(self, id: bytes, call: Ongoing) -> None:
        """The call can be cancelled no more. A later one that took the same id while this one ran keeps it."""
        if self.open_calls.get(id) is call:
            del self.open_calls[id]


class Sessions:
    def __init__(self, secret: bytes, worker: str = "") -> None:
        self._worker = worker
        self._secret = hmac.new(secret, b"mcp session", hashlib.sha256).digest()
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def open(self, principal: Principal, revision: str, capabilities: bytes) -> Session:
        facts = sealed.Session(
            principal.key_id,
            revision,
            int(time.time()),
            secrets.token_urlsafe(9),
            sealed.carried(capabilities),
            self._worker,
        )
        return self._remember(sealed.seal(facts, self._secret), facts)

    def unlisted(self, principal: Principal, revision: str, capabilities: bytes) -> Session:
        """A session that lives and dies with its stream, and has no id of its own."""
        return Session("", principal.key_id, revision, sealed.carried(capabilities))

    def find(self, id: str, principal: Principal) -> Session | None:
        """The session behind an id, for the key that opened it."""
        found = self._known.get(id)
        if found is None:
            facts = sealed.unseal(id, self._secret)
            if facts is None or id in self._ended or time.time() - facts.issued > _LIFE_S:
                return None
            found = self._remember(id, facts)
            found.is_taken_over = facts.worker != self._worker
        return found if found.key_id == principal.key_id else None

    def owner(self, id: str) -> str:
        """The worker that opened a session; empty when the id is none of ours."""
        facts = sealed.unseal(id, self._secret)
        return facts.worker if facts is not None else ""

    def __contains__(self, id: object) -> bool:
        """Whether a session is known here."""
        return id in self._known

    def end(self, session: Session) -> None:
        """The id is unknown from now on; its stream and its calls end."""
        self._known.pop(session.id, None)
        self._ended[session.id] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if session.stream is not None:
            session.stream.end()
        for call in list(session.open_calls.values()):
            call.cancel()

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._known.values()))

    def _remember(self, id: str, facts: sealed.Session) -> Session:
        session = Session(id, facts.key_id, facts.revision, facts.capabilities)
        self._known[id] = session
        if len(self._known) > _REMEMBERED:
            idle = next((one for one in self._known.values() if one.stream is None and not one.open_calls), None)
            if idle is not None:
                del self._known[idle.id]
        return session
