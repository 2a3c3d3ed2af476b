"""Streamable HTTP of 2025-03-26 to 2025-11-25: requests inside a session, whose id the remote gives.

Cancels by notification, listens on a GET stream, takes up a request's stream where it broke off. A session that the remote has
forgotten is lost: who asked connects anew, once.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

from mcpserver.protocol import codes, jsonrpc, sse
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import envelope, questions
from remotes.upstream.budget import Budget
from remotes.upstream.connection import Listener, lower_level
from remotes.upstream.credential import Credential
from remotes.upstream.envelope import Exchange
from remotes.upstream.faults import read_excerpt, unexpected_status
from remotes.upstream.http import EVENT_STREAM, NOBODY, VISIBLE, Http, Place
from remotes.upstream.http1 import HttpError, Response
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Failure, Fault, Outcome, Refusal

log = logging.getLogger("mcp.upstream")

_SESSION = "Mcp-Session-Id"
_SESSION_HEADER = _SESSION.lower().encode()
# A GET stream that ends is opened again after this long, doubled up to the second.
_REOPEN_FIRST_S, _REOPEN_MAX_S = 1.0, 60.0
_RENEW_S = 30.0
# A request's stream is taken up again this often before the request is given up.
_CONTINUED_MAX = 5
# What we tell a remote of our own accord may take this long, and so many may be on their way at once.
_TELL_S = 5.0
_TELLING_MAX = 64


class Sessions(Http):
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

    async def _continued(self, exchange: Exchange, number: int, place: Place) -> Outcome:
        """2025-11-25 lets a server close a request's stream and have the client come back for the rest."""
        for _ in range(_CONTINUED_MAX):
            if place.id is None:
                break
            await asyncio.sleep(place.retry_s)  # as long as the server asked for; the request's deadline runs on
            async with self._stream({"Last-Event-ID": place.id}) as response:
                if response.status != 200 or response.media_type != EVENT_STREAM:
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
            self._told(jsonrpc.decode(raw), NOBODY)
        except jsonrpc.Malformed as error:  # the next one may well be none
            log.info("%s sent what is no message: %s", self._spec.name, error.message)

    def _without_session(self) -> Failure:
        return Failure(Fault.HTTP_STATUS, "session", f"{self._spec.name} has forgotten the session", status=404)

    def _noticed(self, response: Response) -> None:
        if self._session is None and VISIBLE.fullmatch(minted := response.header(_SESSION_HEADER)):
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
        if exchange is NOBODY:
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
                    if response.status != 200 or response.media_type != EVENT_STREAM:
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
