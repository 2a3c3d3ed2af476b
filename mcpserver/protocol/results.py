"""Results as a gateway makes or mends them: an error a model can read, and the fields one era has and the other has not.

Works on the bytes of a result and decodes only where it must (specification 2026-07-28, basic/index "ResultType";
server/tools "Error Handling").
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.inbound import SERVER_INFO
from mcpserver.protocol.versions import HANDSHAKE, MODERN

# What came with a revision, and what an earlier one must not get (the changelogs of 2025-03-26, 2025-06-18, 2026-07-28).
_STRUCTURED_SINCE = _LINKS_SINCE = "2025-06-18"
_AUDIO_SINCE = "2025-03-26"
_NO_OBJECT = re.compile(rb'"structuredContent"\s*:\s*[^{\s]')
_MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")
_BIDI = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
_EXCERPT_MAX_BYTES = 4096
# From here on reading the members of a result once costs less than searching it for a name.
LARGE_BYTES = 16 * 1024


class _Said(msgspec.Struct, rename="camel"):
    """What is asked of large results, for which nothing else in them is listed."""

    result_type: Raw = Raw(b"")
    is_error: Raw = Raw(b"")


_said = msgspec.json.Decoder(_Said)


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


def to_revision(raw: bytes, method: str, revision: str) -> bytes:
    """A result in what a client of an earlier revision knows: the very bytes that came unless something must change.

    A link becomes text with its URI, audio text with its type, structured content goes where the revision has none or wants
    an object; all that is unknown besides stays.
    """
    if method in ("tools/call", "tasks/result"):
        return _call_to_revision(raw, revision)
    if method == "prompts/get" and _unknown_blocks(raw, revision):
        return _prompt_to_revision(raw, revision)
    return raw


def tool_to_revision(raw: bytes, revision: str) -> bytes:
    """A tool's definition, without an output schema that a client of this revision could not use."""
    if b'"outputSchema"' not in raw or revision >= MODERN:
        return raw
    tool = jsonrpc.fields(raw, "a tool")
    schema = tool.get("outputSchema")
    if schema is None or (revision >= _STRUCTURED_SINCE and jsonrpc.text(_object(schema).get("type")) == "object"):
        return raw
    del tool["outputSchema"]
    return jsonrpc.encode(tool)


def tools_look(revision: str) -> str:
    """One name for all revisions that see the same tool definitions."""
    if revision >= MODERN:
        return MODERN
    return _STRUCTURED_SINCE if revision >= _STRUCTURED_SINCE else HANDSHAKE[-1]


def result_type(raw: bytes) -> str:
    """The result's type; one without is complete."""
    if len(raw) < LARGE_BYTES and (
        b'"resultType"' not in raw or (b'"resultType":"complete"' in raw and raw.count(b'"resultType"') == 1)
    ):
        return "complete"
    return jsonrpc.text(_read(raw).result_type) or "complete"


def is_error(raw: bytes) -> bool:
    """Whether a tool says that it failed."""
    if len(raw) < LARGE_BYTES:
        said = raw.count(b'"isError"')
        if not said or (said == 1 and b'"isError":false' in raw):
            return False
    return bytes(_read(raw).is_error) == b"true"


def _read(raw: bytes) -> _Said:
    try:
        return _said.decode(raw)
    except jsonrpc.UNREADABLE:
        raise jsonrpc.Malformed(codes.INVALID_PARAMS, "result must be an object") from None


def _call_to_revision(raw: bytes, revision: str) -> bytes:
    drops = b'"structuredContent"' in raw and (revision < _STRUCTURED_SINCE or _NO_OBJECT.search(raw) is not None)
    unknown = _unknown_blocks(raw, revision)
    if not drops and not unknown:
        return raw
    result = jsonrpc.fields(raw, "result")
    blocks = before = jsonrpc.items(result.get("content"))
    if unknown:
        blocks = [_block_to_revision(block, unknown) for block in before]
    structured = result.get("structuredContent")
    drops = structured is not None and (revision < _STRUCTURED_SINCE or bytes(structured)[:1] != b"{")
    if drops:
        del result["structuredContent"]
        if not blocks and structured is not None:  # it was all there is
            blocks = [_text_block(bytes(structured).decode())]
    if not drops and blocks == before:
        return raw
    return jsonrpc.encode(result | {"content": blocks})


def _prompt_to_revision(raw: bytes, revision: str) -> bytes:
    unknown = _unknown_blocks(raw, revision)
    result = jsonrpc.fields(raw, "result")
    before = jsonrpc.items(result.get("messages"))
    messages = [_message_to_revision(message, unknown) for message in before]
    return raw if messages == before else jsonrpc.encode(result | {"messages": messages})


def _message_to_revision(raw: Raw, unknown: tuple[str, ...]) -> Raw:
    message = _object(raw)
    content = message.get("content")
    if content is None or (known := _block_to_revision(content, unknown)) is content:
        return raw
    return Raw(jsonrpc.encode(message | {"content": known}))


def _unknown_blocks(raw: bytes, revision: str) -> tuple[str, ...]:
    """The types of content that a client of this revision does not know, if they may be in a result."""
    unknown: tuple[str, ...] = ()
    if revision < _LINKS_SINCE and b'"resource_link"' in raw:
        unknown += ("resource_link",)
    if revision < _AUDIO_SINCE and b'"audio"' in raw:
        unknown += ("audio",)
    return unknown


def _block_to_revision(raw: Raw, unknown: tuple[str, ...]) -> Raw:
    block = _object(raw)
    type = jsonrpc.text(block.get("type"))
    if type not in unknown:
        return raw
    words = _link_in_words(block) if type == "resource_link" else _audio_in_words(block)
    kept: jsonrpc.Fields = {name: block[name] for name in ("annotations", "_meta") if name in block}
    return _text_block(words, kept)


def _link_in_words(link: jsonrpc.Fields) -> str:
    uri = jsonrpc.text(link.get("uri")) or ""
    name = jsonrpc.text(link.get("title")) or jsonrpc.text(link.get("name"))
    described = jsonrpc.text(link.get("description"))
    return (f"{name}: {uri}" if name else uri) + (f"\n{described}" if described else "")


def _audio_in_words(audio: jsonrpc.Fields) -> str:
    return f"[audio, {jsonrpc.text(audio.get('mimeType')) or 'of no known type'}: this client's revision takes none]"


def _text_block(text: str, kept: Mapping[str, Raw] | None = None) -> Raw:
    return Raw(jsonrpc.encode({"type": "text", "text": text, **(kept or {})}))


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
