"""How a load client reaches a target in each dialect: open, send one request, hand its answer to `answered`.

A link has at most one request under way; it is told what to send and judges nothing but the HTTP around an answer.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from tests.bench.upstream import MODERN, SESSION_ERA
from tests.bench.wire import Events, Messages, is_event_stream, last_data, session_id

Dialect = Literal["modern", "session", "sse"]
ANSWER_TIMEOUT_S = 20.0
# Ids of one width keep the length of a request constant, so that it is composed once and only numbered afterwards.
FIRST_NUMBER = 100_000_000
NUMBER = "@NUMBER@"

_CLIENT = {"name": "bench", "version": "1"}
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class LinkError(Exception):
    """The target refused or left while a link was being opened."""


@dataclass(frozen=True)
class Target:
    """Where to send calls: `folder` precedes /mcp and /sse, `prefix` is what the gateway puts before tool names."""

    name: str
    port: int
    folder: str = ""
    key: str = ""
    prefix: str = ""


class _Wire(asyncio.Protocol):
    """One connection. Its loss is reported, unless we closed it ourselves."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.data_received = received  # type: ignore[assignment, method-assign]
        self._lost = lost
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self.write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._lost()

    def close(self) -> None:
        self._closing = True
        self._transport.close()


class Link:
    """The stateless dialect of 2026-07-28; the others say where they differ."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answered: Callable[[bytes, str], None] = _ignore  # (body, why it was refused, empty when it was not)
        self.lost: Callable[[], None] = lambda: None
        self._wires: list[_Wire] = []
        self._messages = Messages()
        self._path = target.folder + "/mcp"

    async def open(self) -> None:
        self._posts = await self._connect(self._read_responses)

    def close(self) -> None:
        for wire in self._wires:
            wire.close()

    def send(self, request: bytes) -> None:
        self._posts.write(request)

    def request(self, method: str, params: dict[str, Any], *, number: object = NUMBER) -> bytes:
        """A whole request; `@NUMBER@` in `params` and, by default, as id becomes `%(n)d` for the caller to fill in."""
        envelope = {"jsonrpc": "2.0", "method": method, "params": self._params(params)}
        body = json.dumps(envelope if number is None else {"id": number} | envelope)
        body = body.replace("%", "%%").replace(f'"{NUMBER}"', "%(n)d").replace(NUMBER, "%(n)d")
        length = len(body % {"n": FIRST_NUMBER})
        head = [
            f"POST {self._path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.target.port}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
            f"Content-Length: {length}",
            *self._credentials(),
            *self._headers(method, params.get("name", "")),
        ]
        return "\r\n".join([*head, "", body]).encode()

    async def exchange(self, request: bytes) -> bytes:
        """One request outside a caller's loop, filled in already: the body of its answer."""
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        before = self.answered, self.lost
        self.answered = lambda body, refusal: _settle(waiting, body, refusal)
        self.lost = lambda: _settle(waiting, b"", "the connection was closed")
        try:
            self.send(request)
            return await asyncio.wait_for(waiting, ANSWER_TIMEOUT_S)
        finally:
            self.answered, self.lost = before

    def _headers(self, method: str, name: str) -> list[str]:
        named = [f"Mcp-Name: {name}"] if name else []
        return [f"MCP-Protocol-Version: {MODERN}", f"Mcp-Method: {method}", *named]

    def _params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params | {"_meta": _META}

    def _credentials(self) -> list[str]:
        return [f"Authorization: Bearer {self.target.key}"] if self.target.key else []

    async def _connect(self, received: Callable[[bytes], None]) -> _Wire:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: _Wire(received, self._report), "127.0.0.1", self.target.port)
        self._wires.append(wire)
        return wire

    def _report(self) -> None:
        self.lost()  # whose it is changes while the wire lives

    def _read_responses(self, data: bytes) -> None:
        for head, body in self._messages.feed(data):
            self._response(head, body)

    def _response(self, head: bytes, body: bytes) -> None:
        self.answered(last_data(body) if is_event_stream(head) else body, _refusal(head, body))


class SessionLink(Link):
    """2025-11-25: initialize first, then the session's id on every request."""

    async def open(self) -> None:
        self._session = ""
        await super().open()
        answer = await self.exchange(_initialize(self))
        if not self._session:
            raise LinkError(f"{self.target.name} gave no session id: {answer[:200]!r}")
        await self.exchange(self.request("notifications/initialized", {}, number=None))

    @property
    def session(self) -> str:
        return self._session

    def _headers(self, method: str, name: str) -> list[str]:
        opened = [f"MCP-Protocol-Version: {SESSION_ERA}", f"Mcp-Session-Id: {self._session}"]
        return opened if self._session else []

    def _params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params

    def _response(self, head: bytes, body: bytes) -> None:
        self._session = self._session or session_id(head).decode()
        super()._response(head, body)


class SseLink(Link):
    """2024-11-05: requests go by POST, answers come down the stream; a request is over when it was accepted and answered."""

    async def open(self) -> None:
        await self.open_stream()
        self._posts = await self._connect(self._read_responses)
        await self.exchange(_initialize(self))
        self._answer, self._accepted = b"none", False  # a notification is accepted, never answered
        await self.exchange(self.request("notifications/initialized", {}, number=None))

    async def open_stream(self) -> None:
        """The stream alone, which is what an idle client holds."""
        self._answer, self._accepted = b"", False
        self._events = Events()
        stream = await self._connect(self._read_events)
        first = f"GET {self.target.folder}/sse HTTP/1.1\r\nHost: 127.0.0.1:{self.target.port}"
        head = "\r\n".join([first, "Accept: text/event-stream", *self._credentials(), "", ""])
        self._posts = stream  # until the address of the POSTs is known
        self._path = (await self.exchange(head.encode())).decode()

    def _headers(self, method: str, name: str) -> list[str]:
        return []

    def _params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params

    def _response(self, head: bytes, body: bytes) -> None:
        self._accepted = True
        self._over(_refusal(head, body))

    def _read_events(self, data: bytes) -> None:
        for event, body in self._events.feed(data):
            if event == b"endpoint":
                self.answered(body, "")
            elif event == b"message":
                self._answer = body
                self._over("")
        if self._events.head and self._events.head[9:12] != b"200":
            self.answered(b"", _refusal(self._events.head, b""))

    def _over(self, refusal: str) -> None:
        if refusal or (self._accepted and self._answer):
            answer, self._answer, self._accepted = self._answer, b"", False
            self.answered(answer, refusal)


LINKS: dict[Dialect, type[Link]] = {"modern": Link, "session": SessionLink, "sse": SseLink}


def _initialize(link: Link) -> bytes:
    params = {"protocolVersion": SESSION_ERA, "capabilities": {}, "clientInfo": _CLIENT}
    return link.request("initialize", params, number=1)


def _refusal(head: bytes, body: bytes) -> str:
    status = head[9:12]
    return "" if status in (b"200", b"202") else f"HTTP {status.decode()} {body[:160].decode(errors='replace')}".strip()


def _settle(waiting: asyncio.Future[bytes], body: bytes, refusal: str) -> None:
    if waiting.done():
        return
    if refusal:
        waiting.set_exception(LinkError(refusal))
    else:
        waiting.set_result(body)


def _ignore(body: bytes, refusal: str) -> None:
    """Nobody has asked anything yet."""
