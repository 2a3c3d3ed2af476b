"""From headers and body of a 2026-07-28 request to a `Call`, or to the one thing that is wrong with it.

The checks and their order follow specification 2026-07-28, basic/transports/streamable-http "Server Validation" and
basic/index "_meta": the first failure wins, and each has the code and status the specification names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.headers import decode_value
from mcpserver.protocol.versions import LOG_LEVELS, MODERN, MODERN_METHODS, NAMED, SUPPORTED

PREFIX = "io.modelcontextprotocol/"
PROTOCOL_VERSION = PREFIX + "protocolVersion"
CLIENT_CAPABILITIES = PREFIX + "clientCapabilities"
CLIENT_INFO = PREFIX + "clientInfo"
LOG_LEVEL = PREFIX + "logLevel"
SERVER_INFO = PREFIX + "serverInfo"
SUBSCRIPTION_ID = PREFIX + "subscriptionId"

_ENVELOPE = frozenset((PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL))
_ROUTING = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")
_EMPTY = Raw(b"{}")


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request of either era, ready to be served. `meta` holds what travels on: vendor and trace keys."""

    id: bytes
    method: str
    params: jsonrpc.Fields  # without `_meta`
    meta: jsonrpc.Fields
    revision: str
    capabilities: Raw = _EMPTY
    client_info: Raw | None = None
    log_level: str | None = None
    progress_token: Raw | None = None

    @property
    def modern(self) -> bool:
        return self.revision == MODERN


class Rejection(msgspec.Struct, frozen=True):
    """Why a request is not served; `status` is the HTTP status towards a client of this era."""

    code: int
    message: str
    id: bytes | None = None
    data: Any = UNSET

    @property
    def status(self) -> int:
        return codes.MODERN_STATUS.get(self.code, 200)

    def body(self) -> bytes:
        return jsonrpc.error(self.id, self.code, self.message, self.data)


Headers = Mapping[bytes, bytes]

# Headers that decide something: two of them could be read differently by us and by whoever stands in front of us.
_AT_THE_GATE = frozenset((b"host", b"origin", b"authorization", b"x-api-key"))
_DECIDING = frozenset((*_ROUTING, *_AT_THE_GATE, b"mcp-session-id", b"content-type"))


def single(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bytes | None]:
    """Headers by lower-case name, the last of each, and a deciding one that was given twice: one that lets in before others.

    Accept is a list, which may come in several lines (RFC 9110 5.2).
    """
    found: dict[bytes, bytes] = {}
    doubled: bytes | None = None
    for name, value in headers:
        if name in found and (name in _DECIDING or name.startswith(b"mcp-param-")):
            doubled = name if doubled is None or name in _AT_THE_GATE else doubled
        found[name] = found[name] + b", " + value if name == b"accept" and name in found else value
    return found, doubled


def read_modern(request: jsonrpc.Request, headers: Headers, doubled: bytes | None) -> Call | Rejection:
    """The ladder of checks of a stateless request."""
    id = request.id
    if doubled is not None:
        return Rejection(codes.HEADER_MISMATCH, f"header {doubled.decode()} was sent twice", id)
    try:
        params = jsonrpc.fields(request.params)
        meta = jsonrpc.fields(params.pop("_meta", None), "_meta")
    except jsonrpc.Malformed as error:
        return Rejection(error.code, error.message, id)
    version = jsonrpc.text(meta.get(PROTOCOL_VERSION))
    capabilities = meta.get(CLIENT_CAPABILITIES)
    if version is None:
        return Rejection(codes.INVALID_PARAMS, f"_meta needs {PROTOCOL_VERSION}, a string", id)
    if capabilities is None or bytes(capabilities)[:1] != b"{":
        return Rejection(codes.INVALID_PARAMS, f"_meta needs {CLIENT_CAPABILITIES}, an object", id)
    mismatch = _header_mismatch(request.method, params, headers, version)
    if mismatch:
        return Rejection(codes.HEADER_MISMATCH, mismatch, id)
    if version != MODERN:
        return unsupported_version(version, id)
    if request.method not in MODERN_METHODS:
        return Rejection(codes.METHOD_NOT_FOUND, f"unknown method {request.method}", id)
    level = meta.get(LOG_LEVEL)
    if level is not None and jsonrpc.text(level) not in LOG_LEVELS:
        return Rejection(codes.INVALID_PARAMS, f"{LOG_LEVEL} must be one of {', '.join(LOG_LEVELS)}", id)
    return Call(
        id=id,
        method=request.method,
        params=params,
        meta=travelling(meta),
        revision=MODERN,
        capabilities=capabilities,
        client_info=meta.get(CLIENT_INFO),
        log_level=jsonrpc.text(level),
        progress_token=meta.get("progressToken"),
    )


def read_handshake(request: jsonrpc.Request, revision: str, capabilities: str, log_level: str | None) -> Call:
    """A request inside a session; raises Malformed (invalid params)."""
    params = jsonrpc.fields(request.params)
    meta = jsonrpc.fields(params.pop("_meta", None), "_meta")
    return Call(
        id=request.id,
        method=request.method,
        params=params,
        meta=travelling(meta),
        revision=revision,
        capabilities=Raw(capabilities.encode()),
        log_level=log_level,
        progress_token=meta.get("progressToken"),
    )


def travelling(meta: jsonrpc.Fields) -> jsonrpc.Fields:
    """The `_meta` keys that belong to the message, not to this hop."""
    return {key: value for key, value in meta.items() if key not in _ENVELOPE and key != "progressToken"}


def unsupported_version(requested: str, id: bytes | None) -> Rejection:
    data = {"supported": list(SUPPORTED), "requested": requested}
    return Rejection(codes.UNSUPPORTED_VERSION, f"unsupported protocol version {requested}", id, data)


def _header_mismatch(method: str, params: jsonrpc.Fields, headers: Headers, version: str) -> str | None:
    if _value(headers, b"mcp-protocol-version") != version:
        return "header MCP-Protocol-Version does not match the body's protocolVersion"
    if _value(headers, b"mcp-method") != method:
        return "header Mcp-Method is missing or does not match the body's method"
    field = NAMED.get(method)
    if field is None or method not in MODERN_METHODS:  # what does not exist names nothing
        return None
    named = jsonrpc.text(params.get(field))
    header = _value(headers, b"mcp-name")
    if header is None:
        return "header Mcp-Name is missing"
    if named is not None and decode_value(header) != named:
        return f"header Mcp-Name does not match the body's {field}"
    return None


def _value(headers: Headers, name: bytes) -> str | None:
    raw = headers.get(name)
    return None if raw is None else raw.decode("latin-1").strip(" \t")
