"""A client that only listens, in bytes: the event stream of each era, to see what the gateway tells without being asked.

The real clients of tests/clients end after one visit; this one stays. Standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.system.gateway import Gateway

WAIT_S = 6.0
SUBSCRIPTION = "a listener"
CLIENT = {"name": "listener", "version": "1"}
MODES = ("session", "sse", "modern")

Message = dict[str, Any]


class Stream:
    """One open event stream."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        assert response.status == 200, response.read()
        self._connection = connection
        self._response = response

    def event(self) -> str:
        """The data of the next event that has any (a priming event has none); TimeoutError when none comes."""
        while line := self._response.readline():
            if line.startswith(b"data:") and (data := line[5:].strip()):
                return data.decode()
        raise EOFError("the stream ended")

    def until(self, method: str) -> Message:
        """The next message with this method."""
        while True:
            message: Message = json.loads(self.event())
            if message.get("method") == method:
                return message

    def close(self) -> None:
        self._response.close()
        self._connection.close()


@contextlib.contextmanager
def listening(gateway: Gateway, mode: str) -> Iterator[Stream]:
    """An open stream for what a mode's clients are told: a session's GET stream, /sse, or a subscription."""
    stream = {"session": _session, "sse": _sse, "modern": _subscription}[mode](gateway)
    try:
        yield stream
    finally:
        stream.close()


def _session(gateway: Gateway) -> Stream:
    connection, response = _send(gateway, "POST", "/mcp", _initialize())
    session = {"Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
    response.read()
    connection.close()
    _posted(gateway, "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
    return Stream(*_send(gateway, "GET", "/mcp", None, **session))


def _sse(gateway: Gateway) -> Stream:
    stream = Stream(*_send(gateway, "GET", "/sse", None))
    address = stream.event()
    _posted(gateway, address, _initialize())
    assert json.loads(stream.event())["id"] == 1
    _posted(gateway, address, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    return stream


def _subscription(gateway: Gateway) -> Stream:
    prefix = "io.modelcontextprotocol/"
    meta = {
        f"{prefix}protocolVersion": "2026-07-28",
        f"{prefix}clientCapabilities": {},
        f"{prefix}clientInfo": CLIENT,
    }
    params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": SUBSCRIPTION, "method": "subscriptions/listen", "params": params}
    routing = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
    stream = Stream(*_send(gateway, "POST", "/mcp", message, **routing))
    stream.until("notifications/subscriptions/acknowledged")
    return stream


def _initialize() -> Message:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def _posted(gateway: Gateway, path: str, message: Message, **headers: str) -> None:
    connection, response = _send(gateway, "POST", path, message, **headers)
    assert response.status == 202, response.read()
    connection.close()


def _send(
    gateway: Gateway, method: str, path: str, message: Message | None, **headers: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=WAIT_S)
    common = {
        "Authorization": f"Bearer {gateway.key}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }
    body = None if message is None else json.dumps(message)
    connection.request(method, path, body, common | headers)
    return connection, connection.getresponse()
