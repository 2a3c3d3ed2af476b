"""Raw-socket abuse: what is malformed is refused in words, what is slow is closed, neighbours notice nothing."""

import time

import pytest

from tests.component.serving_process import Serving, Wire, serving

MALFORMED = (400, -32600, "malformed HTTP request")
FRAMING = (400, -32600, "unsupported Transfer-Encoding")
HEAD_TOO_LARGE = (431, -32600, "request line and headers are too large")
TOO_SLOW = (408, -32600, "the request did not arrive in time")


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def impatient():
    """Deadlines a tenth of the real ones or less, far apart enough to tell which of them struck."""
    with serving(deadlines={"head_s": 0.6, "body_s": 0.6, "idle_s": 0.6, "refused_s": 0.3}) as running:
        yield running


def refused(server: Serving, request: bytes) -> tuple[int, int, str]:
    with server.connect() as wire:
        wire.send(request)
        answer = wire.answer()
        assert answer.headers["connection"] == "close"
        assert wire.socket.recv(1) == b"", "nothing after the refusal"
        return answer.refusal


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding : chunked",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
        b"Content-Length: -1",
        b"Content-Length: ",
        b"Content-Length: " + b"9" * 5000,
        b"X: a\x00b",
        b"X: a\rb",
        b"X: a\nContent-Length: 5",
        b"X: a\x0bb",
        b"X\x00: a",
        b"X Y: a",
        b": a",
        b"no colon",
    ],
)
def test_what_smuggles_is_refused(server: Serving, head: bytes):
    assert refused(server, b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nhello")[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        b" Content-Length: 5",
        b"X: a\r\n b\r\nContent-Length: 5",
        b"X: a\r\n\tContent-Length: 5",
        b"Content-Length:\r\n 5",
        b"Content-Length: 1\r\n 0",
        b"Transfer-Encoding:\r\n chunked",
        b"Content-Length: 5\r\n ",
    ],
)
def test_a_folded_header_is_refused(server: Serving, head: bytes):
    assert refused(server, b"POST / HTTP/1.1\r\n" + head + b"\r\n\r\nhello") == MALFORMED


def test_the_obsolete_identity_encoding_is_refused(server: Serving):
    request = b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"
    assert refused(server, request) == FRAMING


def test_chunks_in_http_1_0_are_refused(server: Serving):
    assert refused(server, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == FRAMING


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/2.0",
        b"GET /",
        b"GET / / HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x00\x01\x02\x00\x01\x00",
    ],
)
def test_a_malformed_request_line_is_refused(server: Serving, line: bytes):
    assert refused(server, line + b"\r\n\r\n") == MALFORMED


def test_an_absolute_target_is_served_by_its_path(server: Serving):
    with server.connect() as wire:
        wire.send(b"GET HTTP://Gateway.example:3000/scope?a=http://b HTTP/1.1\r\nHost: gateway.example:3000\r\n\r\n")
        assert wire.answer().json["path"] == "/scope"
        wire.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert wire.answer().body == b"hi"


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://evil.example/scope HTTP/1.1\r\nHost: x",
        b"GET http://x/scope HTTP/1.1\r\nHost: x\r\nHost: x",
        b"GET http://x/scope HTTP/1.1\r\nX: no host",
        b"GET http://a@x/scope HTTP/1.1\r\nHost: x",
        b"GET ftp://x/scope HTTP/1.1\r\nHost: x",
        b"GET scope HTTP/1.1\r\nHost: x",
        b"GET * HTTP/1.1\r\nHost: x",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x:443",
    ],
)
def test_a_target_of_somebody_else_is_refused(server: Serving, head: bytes):
    answer = (400, -32600, "the request's target cannot be served here")
    assert refused(server, head + b"\r\n\r\n") == answer


def test_a_client_that_speaks_tls_is_told_at_once(server: Serving):
    hello = bytes.fromhex("160301008d01000089") + bytes(100)
    answer = (400, -32600, "this port speaks plain HTTP: call it with http://, or put TLS in front of it")
    assert refused(server, hello) == answer


def test_a_path_of_other_than_ascii_is_refused(server: Serving):
    assert refused(server, b"GET /\xa0 HTTP/1.1\r\n\r\n")[0] == 400


@pytest.mark.parametrize(
    "chunk",
    [
        b"xyz\r\n",
        b"-1\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b"0_5\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"\r\n",
        b"5\r\nhelloXX",
        b"f" * 2000,
        b"5;\x00\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;" + b"a" * 2000,
    ],
)
def test_a_malformed_chunk_is_refused(server: Serving, chunk: bytes):
    assert refused(server, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk) == MALFORMED


def test_extensions_and_trailers_of_chunks_are_read_over(server: Serving):
    with server.connect() as wire:
        head = b"POST /scope HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head + b'5;a=b;c="d"\r\nhello\r\n0;x\r\nContent-Length: 9\r\nX: y\r\n\r\n')
        assert wire.answer().json["headers"] == [["transfer-encoding", "chunked"]]
        wire.post("/", b"next")
        assert wire.answer().body == b"next"


def test_a_body_in_too_many_pieces_is_refused(server: Serving):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (400, -32600, "the request body comes in more than 8192 pieces")
    assert refused(server, head + b"1\r\nx\r\n" * 100_000) == pieces
    with server.connect() as wire:
        wire.send(head + b"1\r\nx\r\n" * 8192 + b"0\r\n\r\n")
        assert wire.answer().body == b"x" * 8192


def test_trailers_without_end_are_refused(server: Serving):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert refused(server, head + b"X: y\r\n" * 20_000) == MALFORMED


@pytest.mark.parametrize(
    "head",
    [
        b"X: y\r\n" * 501,
        b"X: %s\r\n" % (b"y" * 16_000) + b"Z: %s\r\n" % (b"y" * 500),
        b"X: %s\r\n" % (b"y" * 17_000),
        b"X: y\r\n" * 100_000,
        b"X: " + b"y" * 4_000_000,
    ],
)
def test_a_head_that_is_too_large_is_refused_in_words(server: Serving, head: bytes):
    assert refused(server, b"GET / HTTP/1.1\r\n" + head + b"\r\n") == HEAD_TOO_LARGE


def test_a_request_line_that_is_too_long_is_refused_in_words(server: Serving):
    assert refused(server, b"GET /" + b"a" * 20_000) == HEAD_TOO_LARGE


def test_garbage_after_a_good_request_spoils_only_what_follows(server: Serving):
    with server.connect() as wire:
        wire.post("/", b"good")
        wire.send(b"\x00garbage\r\n\r\n" * 1000)
        assert wire.answer().body == b"good"
        assert wire.answer().refusal == MALFORMED
        assert wire.ended()


# Total deadlines. A drip is sent until the server has had enough: the loop ends by itself only if it never has.


def drip(wire: Wire, piece: bytes) -> float:
    """Send `piece` twenty times a second until something comes back; how long that took."""
    started = time.monotonic()
    while wire.is_quiet():
        assert time.monotonic() - started < 10, "dripped for 10 s and was never stopped"
        wire.send(piece)
        time.sleep(0.05)
    return time.monotonic() - started


def test_a_head_that_drips_is_closed_at_its_deadline(impatient: Serving):
    with impatient.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\n")
        assert drip(wire, b"X: y\r\n") >= 0.5
        assert wire.answer().refusal == TOO_SLOW
        assert wire.ended()


def test_a_body_that_drips_is_closed_at_its_deadline(impatient: Serving):
    with impatient.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
        assert drip(wire, b"x") >= 0.5
        assert wire.answer().refusal == TOO_SLOW
        assert wire.ended()


def test_a_chunked_body_that_drips_is_closed_at_its_deadline(impatient: Serving):
    with impatient.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert drip(wire, b"1\r\nx\r\n") >= 0.5
        assert wire.answer().refusal == TOO_SLOW


def test_half_a_request_that_stays_silent_is_closed(impatient: Serving):
    with impatient.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nContent-Le")
        assert wire.answer().refusal == TOO_SLOW


def send_until_thrown_out(wire: Wire) -> None:
    for _ in range(400):
        wire.send(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize("first", [b"", b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"])
def test_an_idle_connection_is_closed_without_a_word(impatient: Serving, first: bytes):
    with impatient.connect() as wire:
        if first:
            wire.send(first)
            assert wire.answer().body == b"x"
        assert wire.ended()
        assert wire.buffer == b""


def test_the_deadlines_spare_a_request_that_is_being_answered(impatient: Serving):
    with impatient.connect() as wire:
        wire.post("/slow?2")
        assert wire.answer().body == b"done"


def test_a_second_request_has_its_own_deadline(impatient: Serving):
    with impatient.connect() as wire:
        for _ in range(10):
            wire.send(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
            time.sleep(0.1)
            wire.send(b"x")
            assert wire.answer().body == b"x"


def test_a_refused_client_that_stays_is_thrown_out(impatient: Serving):
    with impatient.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n")
        assert wire.answer().status == 413
        assert wire.socket.recv(1) == b"", "half-closed"
        with pytest.raises(ConnectionError):
            send_until_thrown_out(wire)


def test_a_crowd_of_slow_clients_does_not_hurt_a_neighbour(server: Serving):
    crowd = [server.connect() for _ in range(200)]
    for wire in crowd:
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nx")
    with server.connect() as wire:
        wire.socket.settimeout(2)
        wire.post("/", b"neighbour")
        assert wire.answer().body == b"neighbour"
    for wire in crowd:
        wire.socket.close()
