"""A result that is too large, made smaller where that keeps it valid: text is cut at a character, the last first.

Works on the bytes of a result and copies what it keeps. Images, audio, blobs and structured content are never cut: half of one
is worth nothing, and a structured result must go on fitting its schema. The result says what was done, in a block for whoever
reads it and in `_meta` for programs.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from mcpserver.protocol import jsonrpc

FACTS = "mcp-server.gateway/cut"
"""The key in `_meta`. What it holds is documented in the README."""

# Room for the notice, the facts and the link.
RESERVE_BYTES = 4096
_CALLS = ("tools/call", "tasks/result")
# Items of a resource have no type.
_WITH_TEXT = ("text", "resource", "")
_BACKSLASH = b"\\"


class Facts(msgspec.Struct, frozen=True, rename="camel"):
    """`cut_blocks` blocks of text, the first of them `from_block`, lost `cut_bytes`; sizes in bytes of JSON."""

    original_bytes: int
    limit_bytes: int
    cut_bytes: int
    cut_blocks: int
    from_block: int


class Cut(msgspec.Struct, frozen=True):
    """What is kept, without notice and facts; `rests` are the texts that are missing, as JSON strings in their order."""

    result: jsonrpc.Fields
    items: list[Raw]
    facts: Facts
    rests: list[bytes]


class _Text(msgspec.Struct):
    type: str = ""
    text: Raw = Raw(b"")
    resource: Raw = Raw(b"")


def is_cut(method: str) -> bool:
    """Prompts are not: they tell a model what to do, and half of that may be the opposite."""
    return method in _CALLS or method == "resources/read"


def cut(raw: bytes, method: str, limit: int) -> Cut | None:
    """The result of a method that `is_cut` in so many bytes, less the reserve; None when its text is not what makes it large.

    Raises Malformed.
    """
    field = "content" if method in _CALLS else "contents"
    result = jsonrpc.fields(raw, "the result")
    items = jsonrpc.items(result.get(field))
    surplus = len(raw) - (limit - RESERVE_BYTES)
    kept, rests, blocks, at = items[:], list[bytes](), 0, len(items)
    while surplus > 0 and at:
        at -= 1
        shorter = _shortened(items[at], surplus)
        if shorter is None:
            continue
        block, rest = shorter
        surplus -= len(items[at]) - (len(block) if block is not None else -1)
        kept[at : at + 1] = [block] if block is not None else []
        rests.append(rest)
        blocks, first = blocks + 1, at
    if surplus > 0 or not blocks:
        return None
    facts = Facts(len(raw), limit, sum(map(len, rests)) - 2 * len(rests), blocks, first)
    return Cut(result, kept, facts, rests[::-1])


def told(cut: Cut, method: str, blocks: Iterable[object]) -> bytes:
    """The result with its facts, and blocks about what is missing behind the others."""
    meta = _object(cut.result.get("_meta"))
    meta[FACTS] = Raw(jsonrpc.encode(cut.facts))
    field = "content" if method in _CALLS else "contents"
    return jsonrpc.encode(cut.result | {field: [*cut.items, *blocks], "_meta": meta})


def kept(token: bytes, most: int) -> int:
    """Where to cut a JSON string so that at most so many bytes of its text stay, and no character or escape is split."""
    at = max(1, min(most + 1, len(token) - 1))
    while at > 1 and token[at] & 0xC0 == 0x80:
        at -= 1
    for start in range(at - 1, max(0, at - 6), -1):
        if token[start] == _BACKSLASH[0] and _is_escape(token, start):
            if start + (6 if token[start + 1] == ord("u") else 2) > at:
                at = start
            break
    if at > 6 and _is_surrogate(token, at - 6, b"89abAB") and _is_surrogate(token, at, b"cdefCDEF"):
        at -= 6
    return at


def _shortened(block: Raw, surplus: int) -> tuple[Raw | None, bytes] | None:
    """The block by as much smaller as it takes or can be, None where nothing of its text is left; and the text it lost."""
    try:
        read = msgspec.json.decode(block, type=_Text)
        inner = msgspec.json.decode(read.resource, type=_Text) if read.type == "resource" else None
    except jsonrpc.UNREADABLE:
        return None
    token = bytes((inner or read).text)
    if read.type not in _WITH_TEXT or token[:1] != b'"' or len(token) <= 2:
        return None
    at = kept(token, len(token) - 2 - surplus)
    if at <= 1:
        return None, token
    fields = jsonrpc.fields(block)
    shorter = Raw(token[:at] + b'"')
    if inner is not None:
        fields["resource"] = Raw(jsonrpc.encode(jsonrpc.fields(fields["resource"]) | {"text": shorter}))
    else:
        fields["text"] = shorter
    return Raw(jsonrpc.encode(fields)), b'"' + token[at:]


def _is_escape(token: bytes, at: int) -> bool:
    """Whether the backslash there begins an escape, and is not the second half of one."""
    return (at + 1 - len(token[: at + 1].rstrip(_BACKSLASH))) % 2 == 1


def _is_surrogate(token: bytes, at: int, half: bytes) -> bool:
    return (
        token[at : at + 2] == b"\\u"
        and token[at + 2 : at + 3] in (b"d", b"D")
        and token[at + 3 : at + 4] in [bytes((one,)) for one in half]
        and _is_escape(token, at)
    )


def _object(raw: Raw | None) -> jsonrpc.Fields:
    try:
        return jsonrpc.fields(raw)
    except jsonrpc.Malformed:
        return {}
