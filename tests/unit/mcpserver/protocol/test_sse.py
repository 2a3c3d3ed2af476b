"""Server-sent events: written as others read them, read however the bytes fall."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol.sse import HEARTBEAT, Event, Splitter, TooLong, encode, priming

CAP = 1_000_000


def read(*chunks: bytes, cap: int = CAP) -> list[Event]:
    splitter = Splitter(cap)
    return [event for chunk in chunks for event in splitter.feed(chunk)]


def by_byte(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


class TestWriting:
    def test_one_event_holds_one_message(self) -> None:
        assert encode(b'{"a":1}') == b'event: message\ndata: {"a":1}\n\n'
        assert encode(b"/x", name=b"endpoint", id=b"7") == b"event: endpoint\nid: 7\ndata: /x\n\n"

    def test_raw_line_ends_open_no_second_event(self) -> None:
        smuggled = b'{"a":\n\ndata: {"jsonrpc":"2.0"}\r\n\r\nevent: x\r1}'
        assert len(read(encode(smuggled))) == 1

    def test_the_priming_event_has_an_id_and_no_data(self) -> None:
        (event,) = Splitter(1000).feed(priming(b"c.x.0", 1500))
        assert event == Event("message", b"", "c.x.0", 1500)

    def test_what_we_write_we_read(self) -> None:
        assert read(encode(b"{}", id=b"1"), HEARTBEAT, encode(b"[]")) == [
            Event("message", b"{}", "1"),
            Event("message", b"[]", "1"),
        ]


class TestReading:
    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
    def test_every_line_end(self, end: bytes) -> None:
        stream = b"event: endpoint\ndata: a\ndata: b\n\n: comment\n\ndata:c\nid: 5\nretry: 10\n\n".replace(b"\n", end)
        expected = [Event("endpoint", b"a\nb"), Event("message", b"c", "5", 10)]
        assert read(stream) == expected
        assert read(*by_byte(stream)) == expected

    def test_an_event_ended_by_bare_cr_is_not_held_back_for_what_may_follow(self) -> None:
        assert read(b"data: a\r\r") == [Event("message", b"a")]
        assert read(b"data: a\r\n\r") == [Event("message", b"a")]
        assert read(b"data: a\r\n\r", b"\ndata: b\n\n") == [Event("message", b"a"), Event("message", b"b")]

    def test_a_byte_order_mark_only_at_the_beginning(self) -> None:
        assert read(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [Event("message", b"a")]
        assert read(*by_byte(b"\xef\xbb\xbfdata: a\n\n")) == [Event("message", b"a")]

    @pytest.mark.parametrize(
        ("stream", "events"),
        [
            (b"\n\n\n", []),
            (b"event: x\n\n", []),
            (b"data\n\n", [Event("message", b"")]),
            (b"data:  two spaces\n\n", [Event("message", b" two spaces")]),
            (b"DATA: a\n\n", []),
            (b"data : a\n\n", []),
            (b"unknown: a\ndata: b\n\n", [Event("message", b"b")]),
            (b"data: unfinished\n", []),
            (b"id: a\0b\ndata: x\n\n", [Event("message", b"x")]),
            (b"retry: -1\nretry: 1.5\nretry: x\ndata: x\n\n", [Event("message", b"x")]),
            (b"retry: " + b"9" * 5000 + b"\ndata: x\n\n", [Event("message", b"x")]),
            (b"event: a\ndata: x\n\ndata: y\n\n", [Event("a", b"x"), Event("message", b"y")]),
            (b"data: \xff\xfe\n\n", [Event("message", b"\xff\xfe")]),
            (b"data: a\xe2\x80\xa8b\xc2\x85c\x0bd\n\n", [Event("message", b"a\xe2\x80\xa8b\xc2\x85c\x0bd")]),
        ],
    )
    def test_the_letter_of_the_standard(self, stream: bytes, events: list[Event]) -> None:
        assert read(stream) == events
        assert read(*by_byte(stream)) == events


class TestCap:
    @pytest.mark.edge(14)
    @pytest.mark.parametrize("line", [b"data: ", b"", b": ", b"event: ", b"id: "])
    def test_an_endless_line_is_too_long(self, line: bytes) -> None:
        with pytest.raises(TooLong):
            read(line, *[b"x" * 100] * 20, cap=1000)

    @pytest.mark.edge(14)
    def test_so_is_an_endless_event_of_short_lines(self) -> None:
        with pytest.raises(TooLong):
            read(*[b"data: xxxxxxxx\n"] * 1000, cap=1000)
        with pytest.raises(TooLong):
            read(*[b"data\n"] * 2000, cap=1000)

    def test_many_events_together_may_be_larger_than_one(self) -> None:
        events = read(*[b"data: " + b"x" * 500 + b"\n\n"] * 10, cap=1000)
        assert len(events) == 10

    def test_what_was_complete_is_handed_over_before_the_end(self) -> None:
        events = Splitter(100).feed(b"data: a\n\ndata: " + b"x" * 200)
        assert next(events) == Event("message", b"a")
        with pytest.raises(TooLong):
            next(events)

    @pytest.mark.edge(14)
    def test_a_long_line_in_small_pieces_is_scanned_once(self) -> None:
        """Ten megabytes in 1 KiB pieces: quadratic scanning would take minutes."""
        events = read(b"data: ", *[b"x" * 1024] * 10_240, b"\n\n", cap=20_000_000)
        assert len(events[0].data) == 10_240 * 1024


lines = st.lists(
    st.sampled_from(
        [
            b"data: x",
            b"data:",
            b"data: {}",
            b"event: e",
            b"id: 1",
            b": c",
            b"",
            b"",
            b"retry: 5",
            b"\xef\xbb\xbfdata: y",
            b"nonsense",
        ]
    ),
    max_size=20,
)
ends = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=20, max_size=20)


@given(lines=lines, ends=ends, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_how_the_bytes_are_cut_never_matters(lines: list[bytes], ends: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    at_once = read(stream)
    places = [0, *sorted(cuts), len(stream)]
    assert read(*(stream[a:b] for a, b in itertools.pairwise(places))) == at_once
    assert read(*by_byte(stream)) == at_once


@given(st.binary(max_size=400), st.integers(1, 60), st.booleans())
def test_no_bytes_raise_anything_but_too_long_and_no_more_than_the_cap_is_held(
    raw: bytes, step: int, over: bool
) -> None:
    splitter = Splitter(50, passes_over=over)
    for at in range(0, len(raw), step):
        try:
            list(splitter.feed(raw[at : at + step]))
        except TooLong:
            assert not over
            return
        assert splitter.pending <= 50 + 257


def test_an_event_over_the_cap_is_passed_over_and_its_two_ends_are_told() -> None:
    head, tail = b'{"jsonrpc":"2.0","id":7,"result":{"x":"', b'"}}'
    raw = b"data: " + head + b"x" * 5000 + tail + b"\n\ndata: next\n\n"
    for step in (1, 7, 1000, len(raw)):
        splitter = Splitter(1000, passes_over=True)
        found = [event for at in range(0, len(raw), step) for event in splitter.feed(raw[at : at + step])]
        assert [event.name for event in found] in (["oversized", "message"], ["message", "message"])
        assert found[0].data.startswith(head)
        assert found[0].data.endswith(tail)
        assert found[1].data == b"next"
