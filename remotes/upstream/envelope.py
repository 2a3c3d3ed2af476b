"""What a request to a remote says, in the words of the remote's era.

Pure. Payload members are copied as raw bytes; only `_meta` is written anew, because it belongs to this hop.
Source: specification 2026-07-28, basic/index "_meta"; 2025-11-25, basic/utilities/progress.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Raw

import mcpserver
from mcpserver.protocol import inbound, jsonrpc
from mcpserver.protocol.headers import encode_value
from mcpserver.protocol.versions import MODERN, NAMED
from remotes.upstream.outcome import Answer, Refusal

Notify = Callable[[str, bytes | None], None]
"""Told of each notification of a request: method and raw params; `progressToken` is already the caller's own.

Never waits: a caller that reads slowly must not hold up a channel that others share, so its own queue decides what to drop.
"""

Ask = Callable[[str, bytes | None], Awaitable[Answer | Refusal]]
"""Puts a question of the remote (method and raw params) to the caller, and waits for a person if need be."""

CLIENT_INFO = Raw(jsonrpc.encode({"name": "MCP-Server", "version": mcpserver.__version__}))
_MODERN_VERSION = Raw(jsonrpc.encode(MODERN))


class Exchange(msgspec.Struct, gc=False):
    """One request to a remote, in no era yet. `deadline` is monotonic seconds; `params` carry no `_meta`."""

    method: str
    params: jsonrpc.Fields
    deadline: float
    meta: jsonrpc.Fields = {}
    capabilities: Raw = Raw(b"{}")
    client_info: Raw | None = None
    log_level: str | None = None
    progress_token: Raw | None = None
    param_headers: dict[str, str] = {}
    trace_headers: dict[str, str] = {}
    notify: Notify | None = None
    ask: Ask | None = None
    # While questions are open the deadline stands still: `timer` runs it, `left_s` is what was left of it.
    timer: asyncio.Timeout | None = None
    asking: int = 0
    left_s: float = 0.0
    # Questions end with the request that they were asked in.
    questions: set[asyncio.Task[None]] = set()
    is_over: bool = False


def params(exchange: Exchange, number: int, *, modern: bool) -> bytes:
    """The `params` bytes; our own request number is the progress token, so that two callers' tokens never meet."""
    meta = dict(exchange.meta)
    if exchange.progress_token is not None:
        meta["progressToken"] = Raw(b"%d" % number)
    if modern:
        meta[inbound.PROTOCOL_VERSION] = _MODERN_VERSION
        meta[inbound.CLIENT_CAPABILITIES] = exchange.capabilities
        meta[inbound.CLIENT_INFO] = exchange.client_info or CLIENT_INFO
        if exchange.log_level is not None:
            meta[inbound.LOG_LEVEL] = Raw(jsonrpc.encode(exchange.log_level))
    body: jsonrpc.Fields = dict(exchange.params)
    if meta:
        body["_meta"] = Raw(jsonrpc.encode(meta))
    return jsonrpc.encode(body)


def message(exchange: Exchange, number: int, *, modern: bool) -> bytes:
    """The whole JSON-RPC request."""
    return jsonrpc.request(b"%d" % number, exchange.method, params(exchange, number, modern=modern))


def routing_headers(exchange: Exchange) -> dict[str, str]:
    """The headers that mirror a 2026-07-28 request over Streamable HTTP, but for those of its arguments."""
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": exchange.method}
    field = NAMED.get(exchange.method)
    if field is not None:
        headers["Mcp-Name"] = encode_value(jsonrpc.text(exchange.params.get(field)) or "")
    return headers


def hand_on(exchange: Exchange, method: str, raw: bytes | None) -> None:
    """Tell the caller of a notification of its own request; progress goes under the caller's token, or nowhere without one."""
    if exchange.notify is None:
        return
    if method != "notifications/progress":
        exchange.notify(method, raw)
    elif exchange.progress_token is not None:
        fields = jsonrpc.fields(raw)
        fields["progressToken"] = exchange.progress_token
        exchange.notify(method, jsonrpc.encode(fields))


def progress_number(raw: bytes | None) -> int | None:
    """Which of our requests a progress notification speaks of."""
    try:
        return _number(jsonrpc.fields(raw).get("progressToken"))
    except jsonrpc.Malformed:
        return None


def subscription_number(raw: bytes | None) -> int | None:
    """Which of our `subscriptions/listen` requests a notification belongs to."""
    try:
        return _number(jsonrpc.fields(jsonrpc.fields(raw).get("_meta"), "_meta").get(inbound.SUBSCRIPTION_ID))
    except jsonrpc.Malformed:
        return None


def _number(raw: Raw | None) -> int | None:
    try:
        return None if raw is None else msgspec.json.decode(raw, type=int)
    except jsonrpc.UNREADABLE:
        return None
