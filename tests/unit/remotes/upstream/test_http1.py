"""One connection, driven byte by byte: what makes an answer, what refuses it, and when the connection serves again."""

import asyncio
import contextlib
import gzip
import itertools
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remotes.upstream.http1 import HEAD_MAX_BYTES, Broken, Connection, HttpError, NotHttp, TooLarge, Unreachable

MOST = 1_000_000


class Line(asyncio.Transport):
    """A transport that leads nowhere; what would happen on it is called by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_over = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Kept:
    """The keeper: which connections were handed back."""

    def __init__(self) -> None:
        self.freed: list[Connection] = []
        self.ended: list[Connection] = []

    def free(self, connection: Connection) -> None:
        self.freed.append(connection)

    def gone(self, connection: Connection) -> None:
        self.ended.append(connection)


class Case:
    """A connection on which a request was sent."""

    def __init__(self) -> None:
        self.line, self.kept = Line(), Kept()
        self.connection = Connection(self.kept, socket.socket())
        self.connection.connection_made(self.line)

    async def answer(self, pieces: list[bytes], *, end: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        asked = asyncio.ensure_future(self._whole())
        await asyncio.sleep(0)
        for piece in pieces:
            if not self.line.is_over:
                self.connection.data_received(piece)
        if end or self.line.is_over:
            self.connection.connection_lost(None)
        return await asyncio.wait_for(asked, 2)

    async def _whole(self) -> tuple[int, dict[bytes, bytes], bytes]:
        response = await self.connection.exchange(b"POST / HTTP/1.1\r\n\r\n")
        return response.status, response.headers, await response.read(MOST)


def told(*pieces: bytes, end: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
    async def run() -> tuple[int, dict[bytes, bytes], bytes]:
        return await Case().answer(list(pieces), end=end)

    return asyncio.run(run())


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX-Trailer: no\r\n\r\n"


def framed(body: bytes, how: str) -> tuple[bytes, bool]:
    """An answer with this body, and whether it ends only with the connection."""
    if how == "length":
        return b"HTTP/1.1 200 OK\r\nX-Empty:\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), False
    if how == "chunks":
        return b"HTTP/1.1 200 OK\r\nX-Empty:\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body, 7), False
    if how == "gzip":
        packed = gzip.compress(body)
        head = b"HTTP/1.1 200 OK\r\nX-Empty:\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        return head + packed, False
    return b"HTTP/1.0 200 OK\r\nX-Empty:\r\n\r\n" + body, True


@pytest.mark.parametrize("how", ["length", "chunks", "gzip", "until the end"])
@given(body=st.binary(max_size=60), interim=st.booleans(), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_an_answer_is_the_same_however_its_packets_fall(how, body, interim, cuts):
    raw, end = framed(body, how)
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * interim + raw
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges) if a < b]

    async def run() -> None:
        case = Case()
        status, headers, found = await case.answer(pieces, end=end)
        assert (status, found) == (200, body)
        assert headers[b"x-empty"] == b""
        assert b"link" not in headers
        assert b"x-trailer" not in headers
        assert case.kept.freed == ([] if end else [case.connection])

    asyncio.run(run())


@pytest.mark.parametrize("how", ["length", "chunks", "gzip", "until the end"])
def test_an_answer_may_come_in_single_bytes(how):
    raw, end = framed(b"hello, hello", how)
    assert told(*(raw[at : at + 1] for at in range(len(raw))), end=end)[2] == b"hello, hello"


@given(st.binary(max_size=120), st.integers(0, 119))
def test_any_bytes_are_an_answer_or_an_error_and_never_a_wait_without_end(raw, cut):
    for data in (raw, b"HTTP/1.1 200 OK\r\n" + raw, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw):
        with contextlib.suppress(HttpError):
            told(data[:cut], data[cut:], end=True)


REFUSED = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    "chunks packed once more": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length beyond counting": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "a name with a space": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nA: " + b"a" * (2 * HEAD_MAX_BYTES),
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * HEAD_MAX_BYTES + b"\r\n",
    "an encoding nobody asked for": b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\na",
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk extension without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
    "a trailer without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 200_000,
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_malformed_is_refused_at_once(fault):
    raw = REFUSED[fault]
    with pytest.raises(NotHttp):
        told(*(raw[at : at + 5000] for at in range(0, len(raw), 5000)))


@pytest.mark.parametrize("fault", ["a head without end", "many headers"])
def test_how_a_head_that_is_too_large_is_cut_makes_no_difference(fault):
    with pytest.raises(NotHttp):
        told(REFUSED[fault])


def test_interim_answers_without_end_are_refused():
    with pytest.raises(NotHttp):
        told(*[b"HTTP/1.1 100 Continue\r\n\r\n" * 1000] * 10)


CUT_OFF = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    "half a packed body": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello")[:-4],
}


@pytest.mark.parametrize("how", CUT_OFF)
def test_an_end_before_the_end_of_the_answer_is_told_as_such(how):
    with pytest.raises(Broken):
        told(CUT_OFF[how], end=True)


NOT_AGAIN = {
    "it says so": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
    "an old server": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "something follows": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhimore",
    "another answer follows": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" * 2,
    "something follows its farewell": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhimore",
}


@pytest.mark.parametrize("why", NOT_AGAIN)
async def test_a_connection_serves_again_only_after_an_unambiguous_end(why):
    case = Case()
    assert (await case.answer([NOT_AGAIN[why]]))[2] == b"hi"
    assert case.kept.freed == []
    assert case.line.is_over


async def test_what_comes_while_nothing_was_asked_ends_the_connection_unsent():
    case = Case()
    case.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    with pytest.raises(NotHttp):
        await case.connection.exchange(b"POST")
    assert case.line.sent == b""


async def test_a_connection_that_has_ended_sends_nothing_and_says_so():
    case = Case()
    case.connection.connection_lost(None)
    with pytest.raises(Unreachable):
        await case.connection.exchange(b"POST")
    assert case.line.sent == b""


async def test_a_caller_that_leaves_ends_the_connection():
    case = Case()
    asked = asyncio.ensure_future(case.connection.exchange(b"POST"))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait({asked})
    assert case.line.is_over


async def test_a_caller_that_leaves_as_the_answer_comes_does_not_end_the_next_ones_connection():
    case = Case()
    asked = asyncio.ensure_future(case.connection.exchange(b"POST"))
    await asyncio.sleep(0)
    case.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    asked.cancel()
    await asyncio.wait({asked})
    assert not case.line.is_over
    assert case.kept.freed == [case.connection]


async def test_a_body_that_nobody_takes_stops_the_remote_and_goes_on_when_taken():
    case = Case()
    asked = asyncio.ensure_future(case.connection.exchange(b"GET"))
    await asyncio.sleep(0)
    case.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    response = await asked
    fed = 0
    while not case.line.is_paused:
        case.connection.data_received(b"a" * 50_000)
        fed += 50_000
    assert fed < 400_000
    assert len(await response.take()) == fed
    assert not case.line.is_paused


async def test_an_answer_that_nobody_has_taken_yet_does_not_stop_the_next_one_on_its_connection():
    case = Case()
    asked = asyncio.ensure_future(case.connection.exchange(b"GET"))
    await asyncio.sleep(0)
    case.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n")
    for _ in range(6):
        case.connection.data_received(b"a" * 100_000)
    assert case.kept.freed == [case.connection]
    assert not case.line.is_paused
    assert len(await (await asked).read(MOST)) == 600_000


async def test_a_body_over_the_cap_is_left_at_the_cap():
    case = Case()
    asked = asyncio.ensure_future(case.connection.exchange(b"GET"))
    await asyncio.sleep(0)
    case.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 101)
    response = await asked
    with pytest.raises(TooLarge):
        await response.read(100)
    response.close()
    assert case.line.is_over
