"""Remotes that speak Streamable HTTP: one POST per request, answered by JSON or by an event stream of its own.

Both eras live here because they share the wire; what differs is in the two classes. `Stateless` (2026-07-28) mirrors each request
in headers and cancels by closing the connection. `Sessions` (2025-03-26 to 2025-11-25) keeps the session id, cancels by
notification, listens on a GET stream, and opens a new session once when the remote has forgotten the old one.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

import aiohttp
from msgspec import Raw
from yarl import URL

from mcpserver.protocol import codes, jsonrpc, sse
from mcpserver.protocol.versions import LOG_LEVELS
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import envelope
from remotes.upstream.connection import CHANGES, Greeting, Listener
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal
from remotes.upstream.session import classified, read_excerpt, unexpected_status

log = logging.getLogger("mcp.upstream")

_BOTH_TYPES = "application/json, text/event-stream"
_SESSION = "Mcp-Session-Id"
# A GET stream that ends is opened again after this long, doubled up to the second.
_REOPEN_FIRST_S, _REOPEN_MAX_S = 1.0, 60.0


class _Http:
    """One POST and its answer."""

    def __init__(self, spec: RemoteSpec, http: aiohttp.ClientSession, listener: Listener, max_bytes: int) -> None:
        self.greeting = Greeting("http", "", {})
        self._spec = spec
        self._http = http
        self._listener = listener
        self._max_bytes = max_bytes
        self._numbers = itertools.count(1)
        self._closed = False
        self._url = URL(spec.url)  # parsed once
        self._base_headers = {**spec.headers, "Content-Type": "application/json", "Accept": _BOTH_TYPES}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> bool:
        return not self._closed

    async def close(self) -> None:
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, exchange: Exchange, number: int, message: bytes, headers: Mapping[str, str]) -> Outcome:
        try:
            async with self._http.post(
                self._url, data=message, headers={**self._base_headers, **headers}, allow_redirects=False
            ) as response:
                self._noticed(response)
                if response.status >= 300:
                    return await self._refused(response, number)
                if response.content_type == "text/event-stream":
                    return await self._streamed(response, exchange, number)
                return self._read(await self._body(response), number)
        except (aiohttp.ClientError, ConnectionError) as error:
            return classified(self._spec.name, error, "answer")
        except Failed as failed:
            return failed.failure

    def _noticed(self, response: aiohttp.ClientResponse) -> None:
        """A place to learn from the answer's headers."""

    async def _refused(self, response: aiohttp.ClientResponse, number: int) -> Outcome:
        """An HTTP error: MCP's own when its body is a JSON-RPC error for us, else the status speaks."""
        raw = await read_excerpt(response)
        with contextlib.suppress(jsonrpc.Malformed):
            message = jsonrpc.decode(raw)
            if isinstance(message, jsonrpc.Response) and message.error is not None and response.status != 401:
                return Refusal(message.error, response.status)
        return unexpected_status(self._spec.name, response, raw)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The decompressed body, up to the cap."""
        length = response.content_length
        if length is not None and length <= self._max_bytes and "Content-Encoding" not in response.headers:
            return await response.read()
        parts = bytearray()
        async for chunk in response.content.iter_any():
            parts += chunk
            if len(parts) > self._max_bytes:
                raise Failed(self._too_large())
        return bytes(parts)

    def _too_large(self) -> Failure:
        return Failure(Fault.TOO_LARGE, "answer", f"{self._spec.name} sent more than {self._max_bytes} bytes")

    def _read(self, raw: bytes, number: int) -> Outcome:
        try:
            message = jsonrpc.decode(raw)
        except jsonrpc.Malformed as error:
            return self._invalid(error.message, raw)
        return self._matched(message, number, raw)

    def _matched(self, message: jsonrpc.Message, number: int, raw: bytes) -> Outcome:
        if not isinstance(message, jsonrpc.Response):
            return self._invalid("a request where an answer was due", raw)
        if message.id != b"%d" % number and not (message.id is None and message.error is not None):
            return self._invalid("the answer to another request", b"")
        if message.error is not None:
            return Refusal(message.error)
        return Answer(message.result or b"{}", self.greeting.modern)

    def _invalid(self, why: str, raw: bytes) -> Failure:
        return Failure(Fault.INVALID, "answer", f"{self._spec.name} sent no valid answer: {why}", raw[:4096])

    async def _streamed(self, response: aiohttp.ClientResponse, exchange: Exchange, number: int) -> Outcome:
        """Follow the request's own stream to its answer."""
        splitter = sse.Splitter(self._max_bytes)
        try:
            async for chunk in response.content.iter_any():
                for event in splitter.feed(chunk):
                    if event.name != "message" or not event.data:
                        continue
                    message = jsonrpc.decode(event.data)
                    if isinstance(message, jsonrpc.Response):
                        return self._matched(message, number, event.data)
                    self._told(message, exchange)
        except sse.TooLong:
            return self._too_large()
        except jsonrpc.Malformed as error:
            return self._invalid(error.message, event.data)
        return Failure(Fault.BROKEN, "answer", f"{self._spec.name} ended its stream without an answer")

    def _told(self, message: jsonrpc.Message, exchange: Exchange) -> None:
        if isinstance(message, jsonrpc.Request):
            self._asked(message)
        elif isinstance(message, jsonrpc.Notification):
            kind = CHANGES.get(message.method)
            if kind is not None:
                self._listener.changed(kind)
            elif message.method in ("notifications/progress", "notifications/message"):
                envelope.hand_on(exchange, message.method, message.params)

    def _asked(self, message: jsonrpc.Request) -> None:
        """A request from the remote on a stream of ours."""
        log.debug("%s asked %s, which is not offered here", self._spec.name, message.method)


class Stateless(_Http):
    """Revision 2026-07-28."""

    async def request(self, exchange: Exchange) -> Outcome:
        number = next(self._numbers)
        message = envelope.message(exchange, number, modern=True)
        try:
            async with asyncio.timeout_at(exchange.deadline):
                return await self._post(exchange, number, message, envelope.routing_headers(exchange))
        except TimeoutError:  # leaving the request closes its connection, which is the cancellation
            return Failure(Fault.TIMEOUT, "answer", f"{self._spec.name} did not answer {exchange.method} in time")


class Sessions(_Http):
    """Revisions 2025-03-26, 2025-06-18 and 2025-11-25."""

    def __init__(self, spec: RemoteSpec, http: aiohttp.ClientSession, listener: Listener, max_bytes: int) -> None:
        super().__init__(spec, http, listener, max_bytes)
        self._session: str | None = None
        self._lost = False
        self._log_level = ""

    @property
    def usable(self) -> bool:
        return not self._closed and not self._lost

    async def request(self, exchange: Exchange) -> Outcome:
        try:
            async with asyncio.timeout_at(exchange.deadline):
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
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            async with asyncio.timeout(2), self._http.delete(self._spec.url, headers=self._era_headers()):
                pass

    def listen(self) -> None:
        """Follow the session's GET stream for list changes; a remote without one answers 405 and that is that."""
        self._spawn(self._follow())

    async def _ask(self, exchange: Exchange) -> Outcome:
        number = next(self._numbers)
        message = envelope.message(exchange, number, modern=False)
        try:
            outcome = await self._post(exchange, number, message, self._era_headers())
        except (TimeoutError, asyncio.CancelledError):
            if exchange.method != "initialize":
                params = jsonrpc.encode({"requestId": number, "reason": "cancelled by the caller"})
                self._spawn(self.notify("notifications/cancelled", params))
            raise
        if isinstance(outcome, Failure) and outcome.status == 404 and self._session is not None:
            self._lost = True
        elif isinstance(outcome, Refusal) and self._forgotten(outcome):
            self._lost = True
            return Failure(Fault.HTTP_STATUS, "session", f"{self._spec.name} has forgotten the session", status=404)
        return outcome

    def _forgotten(self, refusal: Refusal) -> bool:
        """Some servers dress the 404 of a lost session as a JSON-RPC error."""
        if refusal.status != 404 or self._session is None:
            return False
        return jsonrpc.error_body(refusal.error).code != codes.METHOD_NOT_FOUND

    def _noticed(self, response: aiohttp.ClientResponse) -> None:
        minted = response.headers.get(_SESSION)
        if minted is not None and self._session is None:
            self._session = minted

    def _era_headers(self) -> dict[str, str]:
        headers = {}
        if self._session is not None:
            headers[_SESSION] = self._session
        if self.greeting.revision not in ("", "2025-03-26"):
            headers["MCP-Protocol-Version"] = self.greeting.revision
        return headers

    async def _send(self, message: bytes) -> None:
        try:
            async with self._http.post(
                self._url, data=message, headers={**self._base_headers, **self._era_headers()}, allow_redirects=False
            ) as response:
                if response.status >= 400:
                    log.debug("%s answered a notification with HTTP %d", self._spec.name, response.status)
        except (aiohttp.ClientError, ConnectionError) as error:
            log.debug("cannot notify %s: %s", self._spec.name, type(error).__name__)

    def _asked(self, message: jsonrpc.Request) -> None:
        if message.method == "ping":
            self._spawn(self._send(jsonrpc.result(message.id, b"{}")))
        else:
            why = f"{message.method} is not offered here"
            self._spawn(self._send(jsonrpc.error(message.id, codes.METHOD_NOT_FOUND, why)))

    async def _lower_log_level(self, exchange: Exchange) -> None:
        """A shared session has one level: it goes down to the most talkative caller's and stays there."""
        wanted = exchange.log_level or ""
        if "logging" not in self.greeting.capabilities:
            return
        if self._log_level and LOG_LEVELS.index(wanted) >= LOG_LEVELS.index(self._log_level):
            return
        self._log_level = wanted
        level: dict[str, Any] = {"level": Raw(jsonrpc.encode(wanted))}
        await self._ask(Exchange("logging/setLevel", level, deadline=exchange.deadline))

    async def _follow(self) -> None:
        wait = _REOPEN_FIRST_S
        nobody = Exchange("", {}, deadline=0)
        while self.usable:
            try:
                headers = {**self._spec.headers, **self._era_headers(), "Accept": "text/event-stream"}
                async with self._http.get(self._spec.url, headers=headers, allow_redirects=False) as response:
                    if response.status != 200 or response.content_type != "text/event-stream":
                        return
                    wait = _REOPEN_FIRST_S
                    splitter = sse.Splitter(self._max_bytes)
                    async for chunk in response.content.iter_any():
                        for event in splitter.feed(chunk):
                            if event.data:
                                self._told(jsonrpc.decode(event.data), nobody)
            except (aiohttp.ClientError, ConnectionError, jsonrpc.Malformed, sse.TooLong) as error:
                log.debug("the GET stream of %s ended: %s", self._spec.name, type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _REOPEN_MAX_S)
