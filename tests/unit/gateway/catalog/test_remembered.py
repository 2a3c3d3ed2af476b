"""What is kept of a remote's lists: the same comes back, and nothing that was touched, cut or is about another connection."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.catalog.listing import Said
from gateway.catalog.remembered import memory, packed, unpacked
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.connection import Greeting

SPEC = RemoteSpec("r", "http", url="https://r.example/mcp")
TOOL = '{"name": "größer \\u202e", "inputSchema": {"type": "object"}, "new": 1e3}'.encode()
SAID = Said(
    Greeting("http", "2025-11-25", {"tools": Raw(b'{"listChanged":true}')}, b'{"name":"x"}', "use it – \u202e well"),
    {"tools/list": [Raw(TOOL), Raw(b'{"name":"b"}')], "prompts/list": []},
    1000,
    False,
)
KEPT = packed(memory(SPEC, SAID))


def test_the_same_comes_back_byte_for_byte() -> None:
    found = unpacked(KEPT, SPEC.digest)
    assert found is not None
    assert found.said == SAID
    assert bytes(found.said.lists["tools/list"][0]) == TOOL


def test_another_connection_finds_nothing() -> None:
    moved = RemoteSpec("r", "http", url="https://s.example/mcp")
    assert unpacked(KEPT, moved.digest) is None


@given(st.integers(0, len(KEPT) * 8 - 1))
def test_every_flipped_bit_is_found(at: int) -> None:
    damaged = bytearray(KEPT)
    damaged[at // 8] ^= 1 << at % 8
    if at // 8 != 64:  # the line's end between checksum and document
        assert unpacked(bytes(damaged), SPEC.digest) is None


@given(st.binary(max_size=200) | st.integers(0, len(KEPT) - 1).map(lambda end: KEPT[:end]))
def test_other_bytes_and_parts_are_nothing(content: bytes) -> None:
    assert unpacked(content, SPEC.digest) is None


def test_another_format_is_nothing() -> None:
    assert unpacked(packed(msgspec.structs.replace(memory(SPEC, SAID), format=2)), SPEC.digest) is None


@pytest.mark.parametrize("document", [b"[]", b"{}", b"null", b"[" * 10_000])
def test_a_right_checksum_over_another_document_is_nothing(document: bytes) -> None:
    import hashlib

    assert unpacked(hashlib.sha256(document).hexdigest().encode() + b"\n" + document, SPEC.digest) is None
