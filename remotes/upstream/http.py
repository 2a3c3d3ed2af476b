"""Remotes that speak Streamable HTTP: one POST per request, answered by JSON or by an event stream of its own.

Both eras live here because they share the wire; what differs is in the two classes. `Stateless` (2026-07-28) mirrors each request
in headers and cancels by closing the connection. `Sessions` (2025-03-26 to 2025-11-25) keeps the session id, cancels by
notification, listens on a GET stream, and opens a new session once when the remote has forgotten the old one.
"""

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from mcpserver.protocol import codes, jsonrpc, sse
from mcpserver.protocol.versions import NAMED
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import envelope, questions
from remotes.upstream.budget import FREE_BYTES, Budget, Held
from remotes.upstream.connection import ACKNOWLEDGED, LISTEN, Greeting, Listener, as_outcome, heard, lower_level
from remotes.upstream.credential import Credential
from remotes.upstream.envelope import Exchange
from remotes.upstream.faults import classified, lacks_scope, read_excerpt, unexpected_status
from remotes.upstream.http1 import HttpError, Response
from remotes.upstream.origin import Origin, lines_of
from remotes.upstream.outcome import Failed, Failure, Fault, Outcome, Refusal

log = logging.getLogger("mcp.upstream")

_BOTH_TYPES = "application/json, text/event-stream"
_EVENT_STREAM = b"text/event-stream"
_SESSION = "Mcp-Session-Id"
_SESSION_HEADER = _SESSION.lower().encode()
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# Heads of requests that are kept ready, and the longest name in one (a resource's may be any URI that a client made up).
_HEADS_MAX = 512
_HEAD_NAME_MAX_BYTES = 256
# A GET stream that ends is opened again after this long, doubled up to the second.
_REOPEN_FIRST_S, _REOPEN_MAX_S = 1.0, 60.0
_RENEW_S = 30.0
# The specification's alphabet; what is outside it cannot be sent back in a header.
_SESSION_ID = re.compile(r"[\x21-\x7e]{1,1024}")
# A request's stream is taken up again this often before the request is given up.
_CONTINUED_MAX = 5
_ERROR_MAX_BYTES = 64 * 1024
# What we tell a remote of our own accord may take this long, and so many may be on their way at once.
_TELL_S = 5.0
_TELLING_MAX = 64
# What a server of an earlier era says to a request without a session or a handshake.
_NOT_MODERN_STATUSES = (400, 404, 405)
_NOT_MODERN_CODES = (-32000, codes.INVALID_REQUEST)

_OF_A_REQUEST = ("notifications/progress", "notifications/message", ACKNOWLEDGED)

# Whose a message is that came on no request's stream.
_NOBODY = Exchange("", {}, deadline=0)


class _Place:
    """How far a stream got: the last event's id, and how long its server wants to be left alone before it is continued."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.retry_s = 0.0

    def reached(self, event: sse.Event) -> None:
        if event.id and _SESSION_ID.fullmatch(event.id):
            self.id = event.id
        if event.retry_ms is not None:
            self.retry_s = min(event.retry_ms / 1000, _REOPEN_MAX_S)


class _Http:
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
        posted = {**spec.headers, "Content-Type": "application/json", "Accept": _BOTH_TYPES}
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
        self, exchange: Exchange, number: int, message: bytes, head: bytes, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Outcome:
        """`head` is known before the request, `headers` are its own; the credential's are read anew each time."""
        if self._credential.headers:
            headers = {**self._credential.headers, **headers}
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
        if response.media_type != _EVENT_STREAM:
            raw = await response.take()
            if response.is_taken:
                return self._read(raw, number, None)
            held = self._budget.held(self._spec.name)
            return self._read(await self._rest(response, raw, held, exchange.deadline), number, held)
        place = _Place()
        outcome = await self._streamed(response, exchange, number, place)
        response.close()
        return outcome or await self._continued(exchange, number, place)

    async def _rest(self, response: Response, first: bytes, held: Held, deadline: float) -> bytes:
        """An answer that comes in several pieces, as fast as there is memory for it; raises Failed."""
        parts = bytearray(first)
        while piece := await response.take():
            parts += piece
            if len(parts) > self._budget.read_max_bytes:
                raise Failed(self._too_large())
            if not held.covers(len(parts)):
                await held.grow(len(parts), deadline)
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

    async def _streamed(self, response: Response, exchange: Exchange, number: int, place: "_Place") -> Outcome | None:
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
        except HttpError:
            if place.id is None:
                raise
        except sse.TooLong:
            return self._too_large()
        except jsonrpc.Malformed as error:
            return self._invalid(error.message, event.data)
        return None

    async def _continued(self, exchange: Exchange, number: int, place: "_Place") -> Outcome:
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


class Stateless(_Http):
    """Revision 2026-07-28."""

    def __init__(
        self, spec: RemoteSpec, origin: Origin, listener: Listener, budget: Budget, credential: Credential
    ) -> None:
        super().__init__(spec, origin, listener, budget, credential)
        self._doubted = False
        self._heads: dict[tuple[str, bytes], bytes] = {}

    @property
    def usable(self) -> bool:
        return not self._closed and not self._doubted

    def _head(self, exchange: Exchange) -> bytes:
        """The head of a request, made once for each thing that is asked for again and again."""
        named = bytes(exchange.params.get(NAMED.get(exchange.method, ""), b""))
        head = self._heads.get((exchange.method, named))
        if head is None:
            head = self._post_head + lines_of(envelope.routing_headers(exchange))
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            if len(named) <= _HEAD_NAME_MAX_BYTES:
                self._heads[exchange.method, named] = head
        return head

    async def request(self, exchange: Exchange) -> Outcome:
        number = next(self._numbers)
        message = envelope.message(exchange, number, modern=True)
        head = self._head(exchange)
        try:
            with self._origin.deadlines.at(exchange.deadline):
                outcome = await self._post(exchange, number, message, head, exchange.param_headers)
        except TimeoutError:  # leaving the request closes its connection, which is the cancellation
            return Failure(Fault.TIMEOUT, "answer", f"{self._spec.name} did not answer {exchange.method} in time")
        # A server may well lack subscriptions, in whatever words.
        self._doubted |= exchange.method != LISTEN and _of_an_earlier_era(outcome)
        return outcome

    async def notify(self, method: str, params: bytes | None = None) -> None:
        """No notification from a client is defined in this era over HTTP."""


class Sessions(_Http):
    """Revisions 2025-03-26, 2025-06-18 and 2025-11-25."""

    def __init__(
        self, spec: RemoteSpec, origin: Origin, listener: Listener, budget: Budget, credential: Credential
    ) -> None:
        super().__init__(spec, origin, listener, budget, credential)
        self._session: str | None = None
        self._open: list[Exchange] = []
        self._lost = False
        self._log_level = ""

    @property
    def usable(self) -> bool:
        return not self._closed and not self._lost

    async def request(self, exchange: Exchange) -> Outcome:
        try:
            async with asyncio.timeout_at(exchange.deadline) as exchange.timer:
                if exchange.log_level:
                    await self._lower_log_level(exchange)
                return await self._ask(exchange)
        except TimeoutError:
            return Failure(Fault.TIMEOUT, "answer", f"{self._spec.name} did not answer {exchange.method} in time")

    async def notify(self, method: str, params: bytes | None = None) -> None:
        """Send a notification; its failure shows in the next request."""
        await self._send(jsonrpc.notification(method, params))

    async def close(self) -> None:
        await super().close()
        if self._session is None:
            return
        with contextlib.suppress(HttpError, TimeoutError):
            async with asyncio.timeout(2):
                head = self._origin.head("DELETE", self._spec.headers)
                (await self._origin.send(head, self._own_headers())).close()

    def listen(self) -> None:
        """Follow the session's GET stream for list changes; a remote without one answers 405 and that is that."""
        self._spawn(self._follow())

    async def _ask(self, exchange: Exchange) -> Outcome:
        number = next(self._numbers)
        message = envelope.message(exchange, number, modern=False)
        self._open.append(exchange)
        exchange.is_over = False
        try:
            outcome = await self._post(exchange, number, message, self._post_head, self._era_headers())
        except (TimeoutError, asyncio.CancelledError):
            if exchange.method != "initialize":
                params = jsonrpc.encode({"requestId": number, "reason": "cancelled by the caller"})
                self._tell(jsonrpc.notification("notifications/cancelled", params))
            raise
        finally:
            self._open = [one for one in self._open if one is not exchange]
            if exchange.questions:
                await questions.withdraw(exchange)
            exchange.is_over = True
        if self._session is not None and _forgotten(outcome):
            self._lost = True
            return self._without_session()
        if isinstance(outcome, Refusal) and jsonrpc.error_body(outcome.error).code == codes.UNSUPPORTED_VERSION:
            self._lost = True  # it speaks another era now: the next request finds out which
        return outcome

    async def _continued(self, exchange: Exchange, number: int, place: "_Place") -> Outcome:
        """2025-11-25 lets a server close a request's stream and have the client come back for the rest."""
        for _ in range(_CONTINUED_MAX):
            if place.id is None:
                break
            await asyncio.sleep(place.retry_s)  # as long as the server asked for; the request's deadline runs on
            async with self._stream({"Last-Event-ID": place.id}) as response:
                if response.status != 200 or response.media_type != _EVENT_STREAM:
                    break
                outcome = await self._streamed(response, exchange, number, place)
            if outcome is not None:
                return outcome
        return await super()._continued(exchange, number, place)

    @contextlib.asynccontextmanager
    async def _stream(self, headers: Mapping[str, str]) -> AsyncIterator[Response]:
        """The answer to a GET that asks for an event stream."""
        head = self._origin.head("GET", {**self._spec.headers, "Accept": "text/event-stream"})
        response = await self._origin.send(head, {**self._own_headers(), **headers})
        try:
            yield response
        finally:
            response.close()

    def _told_nobody(self, raw: bytes) -> None:
        try:
            self._told(jsonrpc.decode(raw), _NOBODY)
        except jsonrpc.Malformed as error:  # the next one may well be none
            log.info("%s sent what is no message: %s", self._spec.name, error.message)

    def _without_session(self) -> Failure:
        return Failure(Fault.HTTP_STATUS, "session", f"{self._spec.name} has forgotten the session", status=404)

    def _noticed(self, response: Response) -> None:
        if self._session is None and _SESSION_ID.fullmatch(minted := response.header(_SESSION_HEADER)):
            self._session = minted

    def _era_headers(self) -> dict[str, str]:
        headers = {}
        if self._session is not None:
            headers[_SESSION] = self._session
        if self.greeting.revision not in ("", "2025-03-26"):
            headers["MCP-Protocol-Version"] = self.greeting.revision
        return headers

    def _own_headers(self) -> dict[str, str]:
        return {**self._credential.headers, **self._era_headers()}

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(_TELL_S):
                response = await self._origin.send(self._post_head, self._own_headers(), message)
                await read_excerpt(response)  # a connection serves again only after a whole answer
            response.close()
            if response.status >= 300:
                log.debug("%s answered a notification with HTTP %d", self._spec.name, response.status)
        except (HttpError, TimeoutError) as error:
            log.debug("cannot notify %s: %s", self._spec.name, type(error).__name__)

    def _asked(self, message: jsonrpc.Request, exchange: Exchange) -> None:
        if exchange is _NOBODY:
            found = questions.whose(message, self._open)
        else:
            found = exchange if message.method in questions.ASKABLE and exchange.ask is not None else None
        if found is None:
            self._tell(questions.declined(message))
        elif len(self._tasks) < _TELLING_MAX:
            questions.begin(found, self._spawn(self._put(found, message)))

    async def _put(self, exchange: Exchange, message: jsonrpc.Request) -> None:
        await self._send(await questions.put(exchange, message))

    def _tell(self, message: bytes) -> None:
        if not self._closed and len(self._tasks) < _TELLING_MAX:
            self._spawn(self._send(message))

    async def _lower_log_level(self, exchange: Exchange) -> None:
        request = lower_level(self.greeting, self._log_level, exchange)
        if request is not None:
            self._log_level = exchange.log_level or ""
            await self._ask(request)

    async def _follow(self) -> None:
        wait, was_open = _REOPEN_FIRST_S, False
        while self.usable:
            try:
                used = self._credential.serial
                async with self._stream({}) as response:
                    if was_open and response.status in (400, 404):
                        self._lost = True
                        self._listener.lost(self._without_session())
                        return
                    if response.status == 401 and not await self._is_final(used, response):
                        continue
                    if response.status != 200 or response.media_type != _EVENT_STREAM:
                        return
                    wait, was_open = _REOPEN_FIRST_S, True
                    splitter = sse.Splitter(self._budget.read_max_bytes)
                    while piece := await response.take():
                        for event in splitter.feed(piece):
                            if not event.is_blank:
                                self._told_nobody(event.data)
            except (HttpError, sse.TooLong) as error:
                log.debug("the GET stream of %s ended: %s", self._spec.name, type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _REOPEN_MAX_S)

    async def _is_final(self, used: int, response: Response) -> bool:
        """Whether a 401 to the GET stream stands; a credential that cannot be renewed now is tried again later."""
        failure = unexpected_status(self._spec.name, response, b"")
        refused = await self._credential.renew(used, failure, asyncio.get_running_loop().time() + _RENEW_S)
        if refused is not None and refused.fault is not Fault.UNAUTHORIZED:
            await asyncio.sleep(_REOPEN_MAX_S)
        return refused is not None and refused.fault is Fault.UNAUTHORIZED


def _of_an_earlier_era(outcome: Outcome) -> bool:
    """Whether no server of 2026-07-28 would answer so: then what listens there has changed, and is found out anew."""
    match outcome:
        case Failure(fault=Fault.HTTP_STATUS, status=status):
            return status in _NOT_MODERN_STATUSES
        case Refusal(error, 400):
            return jsonrpc.error_body(error).code in _NOT_MODERN_CODES
        case _:
            return False


def _forgotten(outcome: Outcome) -> bool:
    """404 says that a session has ended (2025-11-25, basic/transports); real servers say so with 400 as well, in words."""
    match outcome:
        case Failure(status=404):
            return True
        case Refusal(error, 404):
            return jsonrpc.error_body(error).code != codes.METHOD_NOT_FOUND
        case Failure(status=400, excerpt=said) | Refusal(said, 400):
            return b"session" in said.lower()
        case _:
            return False
