"""Lines out of a stream of bytes: however it is cut, and whatever is over the cap."""

from hypothesis import given
from hypothesis import strategies as st

from remotes.upstream.lines import ENDS_BYTES, Lines, Oversized


@given(
    st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" "))), st.integers(1, 30), st.integers(1, 40)
)
def test_lines_are_the_same_however_the_stream_is_cut(lines, step, cap):
    raw = b"".join(line + b"\n" for line in lines)
    splitter = Lines(cap)
    found = [one for at in range(0, len(raw), step) for one in splitter.feed(raw[at : at + step])]
    assert [one if isinstance(one, bytes) else Oversized for one in found] == [
        line if len(line) <= cap else Oversized for line in lines
    ]


def test_of_a_line_over_the_cap_the_two_ends_are_kept_and_no_more():
    splitter = Lines(1000)
    line = b"a" * 500 + b"x" * 1_000_000 + b"z" * 500
    for at in range(0, len(line), 4096):
        assert splitter.feed(line[at : at + 4096]) == []
        assert len(splitter._buffer) <= 1000
    assert splitter.passed_over > 900_000
    assert splitter.feed(b"\nnext\n") == [Oversized(b"a" * ENDS_BYTES, b"z" * ENDS_BYTES), b"next"]
    assert splitter.passed_over == 0


def test_an_oversized_answer_says_whose_it_is_where_one_end_is_an_envelopes():
    def number(head: bytes, tail: bytes = b"") -> int | None:
        return Oversized(head, tail).number

    assert number(b'{"jsonrpc": "2.0", "id": 7, "result": {"id": 8') == 7
    assert number(b'{"result":{"a', b'"}},"jsonrpc":"2.0","id":12}') == 12
    assert number(b'{"result":{"a', b'"jsonrpc":"2.0","id":12}}') is None, "that is inside the result"
    assert number(b'{"jsonrpc":"2.0","id":7,"method":"ping"', b"}") is None, "that is a question"
    assert number(b"garbage", b"garbage") is None
