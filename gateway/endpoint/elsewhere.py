"""Requests that another worker has to serve: which one that is, and sending them there.

| request | goes to |
| ------- | ------- |
| in a session | the session's home (`homes`) |
| an answer to a question, the rest of a call's stream | the worker that its id names, while there is one |
| a notification, the end of a session | the home; and the worker that opened the session, if it has calls left to end |
| to `/messages`, a further round of a parked call, the rest of a cut answer | the worker that its id names |

A plain request that is at home costs a lookup here.
"""

import asyncio
import contextlib

from gateway.cluster.neighbours import Place
from gateway.endpoint.asker import whose_question
from gateway.endpoint.http import Answer, Message, Receive, Scope, Send, refused, respond
from gateway.endpoint.relay import Relay, Unreachable, is_settled
from gateway.endpoint.streamable import LAST_EVENT, NO_SESSION, SESSION
from gateway.runtime import Runtime
from gateway.sessions.resumption import whose_call
from mcpserver.protocol import codes, inbound, jsonrpc

# Each time a home turns out to be gone the next one is found; workers do not die faster than that.
_TRIES = 4
_ASK_EVERY_S = 1.0


class Elsewhere:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._relay = Relay(runtime.neighbours, lambda: runtime.limits)
        runtime.on_drain.append(self._relay.leave)
        self._asking = asyncio.Lock()
        self._ask_again_at = 0.0

    def is_here(self, message: jsonrpc.Message, headers: inbound.Headers) -> bool:
        """Whether nothing below has to be asked: a request whose session is at home here, as nearly all are."""
        return isinstance(message, jsonrpc.Request) and self._is_at_home(headers)

    async def worker(self, instance: str, scope: Scope, body: bytes | None, receive: Receive, send: Send) -> bool:
        """Let the one worker serve that can do anything with a request; False: that is this one, or there is none any more."""
        if instance and self._runtime.neighbours.is_unheard_of(instance):
            await self._ask_around(instance)
        place = self._relay.place(scope, instance) if instance else None
        if place is not None:
            with contextlib.suppress(Unreachable):
                await self._relay.forward(place, scope, body, receive, send)
                return True
        if instance and self._runtime.neighbours.cannot_tell(instance):
            await respond(send, _out_of_sight())
            return True
        return False

    async def session(
        self, scope: Scope, headers: inbound.Headers, body: bytes | None, receive: Receive, send: Send
    ) -> bool:
        """Let the session's home serve a request; False: that is this worker, or there is no such session."""
        for _ in range(_TRIES):
            home = await self._home(scope, headers)
            if home is None:
                return False
            if not home:
                await respond(send, refused(404, codes.INVALID_REQUEST, NO_SESSION))
                return True
            place = self._relay.place(scope, home)
            if place is None:
                return False
            try:
                await self._relay.forward(place, scope, body, receive, send)
            except Unreachable:
                continue  # it is forgotten now
            return True
        return False

    async def message(
        self,
        message: jsonrpc.Message,
        scope: Scope,
        headers: inbound.Headers,
        body: bytes,
        receive: Receive,
        send: Send,
    ) -> bool:
        """One message of a session, wherever it belongs."""
        if isinstance(message, jsonrpc.Response) and message.id is not None:
            if (asker := whose_question(message.id)) == self._runtime.neighbours.own:
                return False
            if await self.worker(asker, scope, body, receive, send):
                return True
        elif isinstance(message, jsonrpc.Notification):
            return await self.ending(scope, headers, body, receive, send)
        return await self.session(scope, headers, body, receive, send)

    async def batch(self, scope: Scope, headers: inbound.Headers, body: bytes, receive: Receive, send: Send) -> bool:
        """A batch goes where its first message does: it holds answers, which one worker waits for, or requests."""
        if self._is_at_home(headers):
            return False
        try:
            first = jsonrpc.decode_batch(body, len(body))[0]
        except jsonrpc.Malformed:
            return False  # said where it is served
        return await self.message(first, scope, headers, body, receive, send)

    async def get(self, scope: Scope, headers: inbound.Headers, receive: Receive, send: Send) -> bool:
        """A stream: the rest of a call's, where that call is, or the session's own."""
        named = whose_call(headers.get(LAST_EVENT, b""))
        if named == self._runtime.neighbours.own:
            return False
        return await self.worker(named, scope, None, receive, send) or await self.session(
            scope, headers, None, receive, send
        )

    async def ending(
        self, scope: Scope, headers: inbound.Headers, body: bytes | None, receive: Receive, send: Send
    ) -> bool:
        """What may end calls: a worker that is leaving, and opened the session, still has those that were begun there."""
        owner = self._owner(headers)
        if self._is_at_home(headers) or not owner or self._runtime.neighbours.serves(owner):
            return await self.session(scope, headers, body, receive, send)
        is_owner = owner == self._runtime.neighbours.own
        place = self._relay.place(scope, await self._home(scope, headers) or "" if is_owner else owner)
        if place is not None:
            await self._copied(place, scope, body)
        return not is_owner and await self.session(scope, headers, body, receive, send)

    async def _ask_around(self, instance: str) -> None:
        """A machine that has just come is known to Redis before it is to us; who makes names up has us ask once a second."""
        cluster, neighbours = self._runtime.cluster, self._runtime.neighbours
        if cluster is None:
            return
        async with self._asking:
            now = self._runtime.clock.monotonic()
            if neighbours.is_unheard_of(instance) and now >= self._ask_again_at:
                self._ask_again_at = now + _ASK_EVERY_S
                await cluster.tick()

    async def _copied(self, place: Place, scope: Scope, body: bytes | None) -> None:
        async def unread(_: object) -> None:
            pass

        async def stays() -> Message:
            stayed: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await stayed

        try:
            await self._relay.forward(place, scope, body, stays, unread)
        except Unreachable:
            return

    async def _home(self, scope: Scope, headers: inbound.Headers) -> str | None:
        """The worker that serves the session a request names: empty when it has ended, None when there is nobody to look for."""
        if self._is_at_home(headers):
            return None
        owner = self._owner(headers)
        return await self._runtime.homes.of(headers[SESSION].decode("latin-1"), owner) if owner else None

    def _is_at_home(self, headers: inbound.Headers) -> bool:
        """Whether it is so for certain: this worker has the session and stays, or somebody who knows has sent it here."""
        id = headers.get(SESSION)
        if id is None:
            return True
        is_known = id.decode("latin-1") in self._runtime.sessions and not self._runtime.draining
        return is_known or is_settled(headers)

    def _owner(self, headers: inbound.Headers) -> str:
        id = headers.get(SESSION)
        return self._runtime.sessions.owner(id.decode("latin-1")) if id is not None else ""


def _out_of_sight() -> Answer:
    """To say that a worker is gone would make its client throw away what may be there in a moment."""
    why = "this belongs to another machine, and Redis, which knows where that is, does not answer: try again"
    return refused(503, codes.INTERNAL_ERROR, why, headers=((b"retry-after", b"5"),))
