"""Compressed bodies: the same bytes come out however they are cut, in pieces of a bounded size."""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remotes.upstream.inflating import PIECE_BYTES, Inflating, NotInflatable


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzip.compress),
    "zlib": (b"deflate", zlib.compress),
    "bare deflate": (b"deflate", bare),
}


def opened(encoding: bytes, pieces: list[bytes]) -> tuple[bytes, Inflating]:
    inflating, out = Inflating(encoding), b""
    for piece in pieces:
        part = inflating.take(piece)
        while part:
            assert len(part) <= PIECE_BYTES
            out += part
            part = inflating.take(b"")
    return out, inflating


@pytest.mark.parametrize("kind", PACKED)
@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2100), max_size=8))
def test_what_was_packed_comes_out_however_it_is_cut(kind, data, cuts):
    encoding, pack = PACKED[kind]
    packed = pack(data)
    edges = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    out, inflating = opened(encoding, [packed[a:b] for a, b in itertools.pairwise(edges)])
    assert out == data
    assert inflating.is_whole


@pytest.mark.parametrize("kind", PACKED)
def test_a_bomb_comes_out_in_small_pieces_and_can_be_left_at_any(kind):
    encoding, pack = PACKED[kind]
    inflating = Inflating(encoding)
    first = inflating.take(pack(bytes(64 * 1024 * 1024)))
    assert len(first) == PIECE_BYTES


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_what_zlib_holds_back_at_a_full_piece_is_not_lost(size):
    out, inflating = opened(b"gzip", [gzip.compress(b"a" * size)])
    assert len(out) == size
    assert inflating.is_whole


@pytest.mark.parametrize("kind", PACKED)
def test_a_body_that_is_cut_off_is_not_whole(kind):
    encoding, pack = PACKED[kind]
    _, inflating = opened(encoding, [pack(b"hello, hello, hello")[:-3]])
    assert not inflating.is_whole


def test_a_body_of_no_bytes_is_whole():
    assert Inflating(b"gzip").take(b"") == b""
    assert Inflating(b"gzip").is_whole


@pytest.mark.parametrize(
    "data", [b"no gzip at all", gzip.compress(b"x") + b"more", gzip.compress(b"x") * 2], ids=["no gzip", "more", "two"]
)
def test_what_is_no_gzip_or_has_something_behind_it_is_refused(data):
    with pytest.raises(NotInflatable):
        opened(b"gzip", [data])


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"compress", b"gzip, gzip"])
def test_an_encoding_that_nobody_asked_for_is_refused(encoding):
    with pytest.raises(NotInflatable, match="not asked for"):
        Inflating(encoding)


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate"]))
def test_any_bytes_are_opened_or_refused(data, encoding):
    with contextlib.suppress(NotInflatable):
        opened(encoding, [data])
