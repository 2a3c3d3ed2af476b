"""Results as a gateway makes or mends them: an error a model can read, and the fields one era has and the other has not.

Works on the bytes of a result and decodes only where it must (specification 2026-07-28, basic/index "ResultType";
server/tools "Error Handling").
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mcpserver.protocol import jsonrpc
from mcpserver.protocol.inbound import SERVER_INFO

_MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")
_BIDI = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
_EXCERPT_MAX_BYTES = 4096


def tool_error(text: str, meta: Mapping[str, Any] | None = None) -> bytes:
    """A tools/call result that says what went wrong, for a model to read."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True}
    if meta:
        result["_meta"] = dict(meta)
    return jsonrpc.encode(result)


def untrusted(raw: bytes) -> str:
    """At most 4 KiB of what a remote sent, safe to show: control and bidirectional characters are spelled out."""
    text = raw[:_EXCERPT_MAX_BYTES].decode("utf-8", "replace")
    return text.translate(_CONTROL | _BIDI)


def to_modern(raw: bytes, server_info: bytes, hints: bytes = b"") -> bytes:
    """A handshake remote's result for a 2026-07-28 client: complete, and signed by who relayed it.

    `hints` are the cache fields of a cacheable method, as members (`"ttlMs":0,"cacheScope":"private"`).
    """
    if not any(f'"{name}"'.encode() in raw for name in (*_MODERN_ONLY, "_meta")):
        members = b'"resultType":"complete","_meta":{"' + SERVER_INFO.encode() + b'":' + server_info + b"}"
        if hints:
            members += b"," + hints
        inner = raw.strip()[1:-1].strip()
        return b"{" + members + (b"," + inner if inner else b"") + b"}"
    return _merged(raw, server_info, hints)


def to_handshake(raw: bytes) -> bytes:
    """A 2026-07-28 remote's result for a client of an earlier revision, which knows no result types or cache hints."""
    if not any(f'"{name}"'.encode() in raw for name in _MODERN_ONLY):
        return raw
    result = jsonrpc.fields(raw, "result")
    for name in _MODERN_ONLY:
        result.pop(name, None)
    return jsonrpc.encode(result)


def result_type(raw: bytes) -> str:
    """The result's type; one without is complete."""
    if b'"resultType"' not in raw:
        return "complete"
    return jsonrpc.text(jsonrpc.fields(raw, "result").get("resultType")) or "complete"


def _merged(raw: bytes, server_info: bytes, hints: bytes) -> bytes:
    result = jsonrpc.fields(raw, "result")
    result.setdefault("resultType", msgspec.Raw(b'"complete"'))
    if hints:
        for name, value in jsonrpc.fields(b"{" + hints + b"}").items():
            result.setdefault(name, value)
    meta = _object(result.get("_meta"))
    meta.setdefault(SERVER_INFO, msgspec.Raw(server_info))
    result["_meta"] = msgspec.Raw(jsonrpc.encode(meta))
    return jsonrpc.encode(result)


def _object(raw: msgspec.Raw | None) -> jsonrpc.Fields:
    """Members, or none: serializers that write every field send `"_meta": null`."""
    try:
        return jsonrpc.fields(raw)
    except jsonrpc.Malformed:
        return {}
