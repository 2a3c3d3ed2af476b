"""What is seen in the bytes of a JSON text before anybody reads it, and that looking takes time in proportion to their number."""

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol import jsonrpc, jsontext

LARGE = 4_000_000


class TestOneLine:
    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b"\n\r\n"])
    def test_raw_line_ends_between_tokens_cannot_split_a_message(self, end: bytes) -> None:
        raw = b'{"a":' + end + b"1," + end + b'"b":{"jsonrpc":"2.0"}' + end + b"}"
        line = jsontext.one_line(raw)
        assert len(line.splitlines()) == 1
        assert json.loads(line) == json.loads(raw)

    def test_escaped_ones_stay(self) -> None:
        assert jsontext.one_line(b'{"a":"\\n\\r"}') == b'{"a":"\\n\\r"}'

    @pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
    def test_those_that_json_allows_inside_strings_cannot_either(self, end: str) -> None:
        raw = json.dumps({"a": f'x{end}{{"jsonrpc":"2.0"}}'}, ensure_ascii=False).encode()
        assert jsontext.one_line(raw) == raw, "the very bytes, where nobody splits at them"
        line = jsontext.one_line_for_any_reader(raw).decode()
        assert len(line.splitlines()) == 1
        assert json.loads(line) == json.loads(raw)


@given(st.text(max_size=300), st.integers(1, 40))
def test_text_is_utf8_however_it_is_cut_into_pieces(text: str, piece: int) -> None:
    before, jsontext._UTF8_AT_ONCE_BYTES = jsontext._UTF8_AT_ONCE_BYTES, piece
    try:
        raw = text.encode()
        assert jsontext.not_utf8(raw) is None
        for at in range(0, len(raw), 7):
            bad = raw[:at] + b"\xff" + raw[at:]
            assert (jsontext.not_utf8(bad) is None) == _is_utf8(bad)
    finally:
        jsontext._UTF8_AT_ONCE_BYTES = before


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"])
def test_the_byte_that_is_no_utf8_is_named(bad: bytes) -> None:
    assert jsontext.not_utf8("é".encode() * 150_000 + bad) == "not UTF-8 at byte 300000"


json_text = st.recursive(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(alphabet='e9"\\,1+]E '),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='e"1', max_size=3), inner, max_size=3),
    max_leaves=15,
)


@given(json_text)
def test_numbers_that_python_wrote_and_text_that_looks_like_one_are_not_huge(value: object) -> None:
    raw = json.dumps(value).encode() + b"\n"
    assert jsontext.huge_number(raw) is None
    assert jsontext.huge_number(b"[" + raw + b",1e400 ]") is not None


@pytest.mark.parametrize(
    ("look", "raw"),
    [
        (jsontext.huge_number, b'["1e999,"' + b',""' * (LARGE // 3) + b"]"),
        (jsontext.huge_number, b"[" + b"1e308," * (LARGE // 6) + b"1]"),
        (jsontext.huge_number, b'["1e999,","' + b"\\\\" * (LARGE // 2) + b'"]'),
        (jsontext.without_lone_surrogates, b'"' + b"\\ud83d" * (LARGE // 6) + b'"'),
        (jsontext.without_lone_surrogates, b'"' + b"\\n" * (LARGE // 2) + b'\\ud83d"'),
        (jsontext.without_lone_surrogates, b'"' + b"\\" * LARGE + b'"'),
        (jsontext.not_utf8, "é".encode() * (LARGE // 2)),
    ],
)
def test_no_bytes_take_long_to_look_at(look, raw: bytes) -> None:
    began = time.thread_time()
    look(raw)
    assert time.thread_time() - began < 2


def object_of(members: int) -> bytes:
    return b"{" + b",".join(b'"%d":0' % number for number in range(members)) + b"}"


FEW = {
    "text with commas": b'[{"type":"text","text":"' + b"1,2," * 1_000_000 + b'"}]',
    "text with escapes": b'[{"text":"' + rb"\\\",\"]," * 500_000 + b'"}]',
    "numbers inside": b'{"structuredContent":{"v":[' + b"0.5," * 500_000 + b"1]}}",
    "lists inside": b'[{"a":[' + b"[]," * 1_000_000 + b"1]}]",
    "as many as may be": b"[" + b"[1,2]," * 99_999 + b"{}]",
}
MANY = {
    "numbers": b"[" + b"0," * 1_000_000 + b"0]",
    "objects": b" \n[ " + b'{"a":"]},"} ,' * 200_000 + b"{}]",
    "lists": b"[" + b"[]," * 1_000_000 + b"1]",
    "an object": object_of(200_000),
    "behind what is too deep to be looked at": b"[" + b"[" * 40 + b"]" * 40 + b",0" * 200_000 + b"]",
}


@pytest.mark.edge(14)
@pytest.mark.parametrize("raw", FEW.values(), ids=FEW)
def test_what_is_large_is_not_crowded(raw: bytes) -> None:
    assert not jsontext.is_crowded(raw)
    assert len(json.loads(raw)) <= 100_000


@pytest.mark.edge(14)
@pytest.mark.parametrize("raw", MANY.values(), ids=MANY)
def test_what_would_take_many_times_its_bytes_as_a_list_is_seen_before_it_is_one(raw: bytes) -> None:
    assert jsontext.is_crowded(raw)
    tracemalloc.start()
    try:
        with pytest.raises(jsonrpc.Malformed, match="too many"):
            jsonrpc.fields(raw) if raw[:1] == b"{" else jsonrpc.listed(raw, "it")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
    finally:
        tracemalloc.stop()


@given(
    st.recursive(
        st.none() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    )
)
def test_members_are_counted_as_a_reader_counts_them(value: object) -> None:
    before = jsontext._CROWDED_MIN_BYTES, jsontext._MEMBERS_MAX
    try:
        for most in range(1, 4):
            jsontext._CROWDED_MIN_BYTES, jsontext._MEMBERS_MAX = 0, most
            has_many = isinstance(value, list | dict) and len(value) > most
            assert jsontext.is_crowded(json.dumps(value).encode()) == has_many
    finally:
        jsontext._CROWDED_MIN_BYTES, jsontext._MEMBERS_MAX = before
