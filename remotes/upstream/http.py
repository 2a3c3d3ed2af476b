"""Remotes that speak Streamable HTTP: one POST per request, answered by JSON or by an event stream of its own.

What both eras share is here; how each makes a request, cancels it and remembers is in `stateless` (2026-07-28) and `sessions`
(2025-03-26 to 2025-11-25).
"""

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from mcpserver.protocol import jsonrpc, sse
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import envelope
from remotes.upstream.budget import FREE_BYTES, Budget, Held
from remotes.upstream.connection import ACKNOWLEDGED, Greeting, Listener, as_outcome, heard
from remotes.upstream.credential import Credential
from remotes.upstream.envelope import Exchange
from remotes.upstream.faults import classified, lacks_scope, read_excerpt, unexpected_status
from remotes.upstream.http1 import HttpError, Response
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Failed, Failure, Fault, Outcome, Refusal

log = logging.getLogger("mcp.upstream")

BOTH_TYPES = "application/json, text/event-stream"
EVENT_STREAM = b"text/event-stream"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# However long a server wants to be left alone before its stream is continued.
_PAUSE_MAX_S = 60.0
# The specification's alphabet; what is outside it cannot be sent back in a header.
VISIBLE = re.compile(r"[\x21-\x7e]{1,1024}")
_ERROR_MAX_BYTES = 64 * 1024

_OF_A_REQUEST = ("notifications/progress", "notifications/message", ACKNOWLEDGED)

# Whose a message is that came on no request's stream.
NOBODY = Exchange("", {}, deadline=0)


class Place:
    """How far a stream got: the last event's id, and how long its server wants to be left alone before it is continued."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.retry_s = 0.0

    def reached(self, event: sse.Event) -> None:
        if event.id and VISIBLE.fullmatch(event.id):
            self.id = event.id
        if event.retry_ms is not None:
            self.retry_s = min(event.retry_ms / 1000, _PAUSE_MAX_S)


class Http:
    """One POST and its answer."""

    def __init__(
        self, spec: RemoteSpec, origin: Origin, listener: Listener, budget: Budget, credential: Credential
    ) -> None:
        self.greeting = Greeting("http", "", {})
        self._spec = spec
        self._origin = origin
        self._listener = listener
        self._budget = budget
        self._credential = credential
        self._numbers = itertools.count(1)
        self._closed = False
        posted = {**spec.headers, "Content-Type": "application/json", "Accept": BOTH_TYPES}
        self._post_head = origin.head("POST", posted)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> bool:
        return not self._closed

    @property
    def is_doubtful(self) -> bool:
        return False  # a question comes on the stream of the request that it belongs to

    async def close(self) -> None:
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _post(
        self, exchange: Exchange, number: int, message: bytes, head: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> Outcome:
        """`head` is known before the request, `headers` are its own; the credential's are read anew each time."""
        if self._credential.headers or exchange.trace_headers:
            headers = {**self._credential.headers, **exchange.trace_headers, **headers}
        try:
            response = await self._origin.send(head, headers, message)
            try:
                return await self._answered(response, exchange, number)
            finally:
                response.close()
        except HttpError as error:
            return classified(self._spec.name, error, "answer")
        except Failed as failed:
            return failed.failure

    async def _answered(self, response: Response, exchange: Exchange, number: int) -> Outcome:
        self._noticed(response)
        if response.status >= 300:
            return await self._refused(response, number)
        if response.media_type != EVENT_STREAM:
            raw = await response.take()
            if response.is_taken:
                return self._read(raw, number, None)
            held = self._budget.held(self._spec.name)
            return self._read(await self._rest(response, raw, held, exchange.deadline), number, held)
        place = Place()
        outcome = await self._streamed(response, exchange, number, place)
        response.close()
        return outcome or await self._continued(exchange, number, place)

    async def _rest(self, response: Response, first: bytes, held: Held, deadline: float) -> bytes:
        """An answer that comes in several pieces, as fast as there is memory for it; raises Failed."""
        parts = bytearray(first)
        try:
            while piece := await response.take():
                parts += piece
                if len(parts) > self._budget.read_max_bytes:
                    raise Failed(self._too_large())
                if not held.covers(len(parts)):
                    await held.grow(len(parts), deadline)
        except BaseException:
            parts.clear()  # now, and not when what is raised has been forgotten with all its frames
            held.shrink()
            raise
        return bytes(parts)

    def _noticed(self, response: Response) -> None:
        """A place to learn from the answer's headers."""

    async def _refused(self, response: Response, number: int) -> Outcome:
        """An HTTP error: MCP's own when its body is a JSON-RPC error for us, else the status speaks."""
        raw = await read_excerpt(response, _ERROR_MAX_BYTES)
        if response.status == 401 or lacks_scope(response):
            return unexpected_status(self._spec.name, response, raw)
        with contextlib.suppress(jsonrpc.Malformed):
            message = jsonrpc.decode(raw)
            if isinstance(message, jsonrpc.Response) and message.id in (None, b"%d" % number):
                outcome = as_outcome(self._spec.name, message, modern=self.greeting.modern, status=response.status)
                if isinstance(outcome, Refusal):
                    return outcome
        return unexpected_status(self._spec.name, response, raw)

    def _too_large(self) -> Failure:
        return Failure(
            Fault.TOO_LARGE, "answer", f"{self._spec.name} sent more than {self._budget.read_max_bytes} bytes"
        )

    def _read(self, raw: bytes, number: int, held: Held | None) -> Outcome:
        try:
            message = jsonrpc.decode(raw)
        except jsonrpc.Malformed as error:
            return self._invalid(error.message, raw)
        return self._matched(message, number, raw, held)

    def _matched(self, message: jsonrpc.Message, number: int, raw: bytes, held: Held | None) -> Outcome:
        if not isinstance(message, jsonrpc.Response):
            return self._invalid("a request where an answer was due", raw)
        if message.id != b"%d" % number and not (message.id is None and message.error is not None):
            return self._invalid("the answer to another request", b"")
        return as_outcome(self._spec.name, message, modern=self.greeting.modern, held=held and held.taken)

    def _invalid(self, why: str, raw: bytes) -> Failure:
        return Failure(Fault.INVALID, "answer", f"{self._spec.name} sent no valid answer: {why}", raw[:4096])

    async def _streamed(self, response: Response, exchange: Exchange, number: int, place: "Place") -> Outcome | None:
        """Follow the request's own stream to its answer; None when it ends before, at a place where it can be taken up."""
        splitter = sse.Splitter(self._budget.read_max_bytes)
        held = self._budget.held(self._spec.name)
        try:
            while piece := await response.take():
                for event in splitter.feed(piece):
                    place.reached(event)
                    if event.name != "message" or event.is_blank:
                        continue
                    message = jsonrpc.decode(event.data)
                    if isinstance(message, jsonrpc.Response):
                        return self._matched(message, number, event.data, held)
                    self._told(message, exchange)
                if splitter.pending > FREE_BYTES:
                    await held.grow(splitter.pending, exchange.deadline)
                else:
                    held.shrink()
        except (HttpError, Failed, asyncio.CancelledError) as error:
            splitter.clear()
            held.shrink()
            if place.id is None or not isinstance(error, HttpError):
                raise
        except sse.TooLong:
            return self._too_large()
        except jsonrpc.Malformed as error:
            return self._invalid(error.message, event.data)
        return None

    async def _continued(self, exchange: Exchange, number: int, place: "Place") -> Outcome:
        """Take up a stream that ended before its answer, where the era has a way."""
        return Failure(Fault.BROKEN, "answer", f"{self._spec.name} ended its stream without an answer")

    def _told(self, message: jsonrpc.Message, exchange: Exchange) -> None:
        if isinstance(message, jsonrpc.Request):
            self._asked(message, exchange)
        elif isinstance(message, jsonrpc.Response) or heard(self._listener, message):
            return
        elif message.method in _OF_A_REQUEST:
            envelope.hand_on(exchange, message.method, message.params)

    def _asked(self, message: jsonrpc.Request, exchange: Exchange) -> None:
        """A request from the remote on a stream of ours: that of `exchange`, or one that belongs to no request."""
        log.debug("%s asked %s, which is not offered here", self._spec.name, message.method)
