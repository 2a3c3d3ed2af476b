"""Plain requests on the real server: bodies, caps, keep-alive, pipelining, broken applications."""

import socket

import pytest

from tests.component.serving_process import Serving, serving

MIB = 1024 * 1024
TOO_LARGE = (413, -32600, f"request body is larger than {MIB} bytes")
FAILED = (500, -32603, "internal error")


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def test_a_body_comes_back(server: Serving):
    with server.connect() as wire:
        wire.post("/", b'{"jsonrpc":"2.0"}')
        answer = wire.answer()
    assert (answer.status, answer.body) == (200, b'{"jsonrpc":"2.0"}')
    assert answer.headers == {"content-length": "17"}


def test_requests_follow_each_other_on_one_connection(server: Serving):
    with server.connect() as wire:
        for number in range(20):
            wire.post("/", b"%d" % number)
            assert wire.answer().body == b"%d" % number


def test_pipelined_requests_are_answered_in_order(server: Serving):
    one = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n"
    with server.connect() as wire:
        wire.send(b"".join(one + b"%02d" % number for number in range(50)))
        assert [wire.answer().body for _ in range(50)] == [b"%02d" % number for number in range(50)]


def test_head_and_no_content_carry_no_body_and_keep_the_connection(server: Serving):
    with server.connect() as wire:
        wire.send(b"HEAD /flood?3x10 HTTP/1.1\r\n\r\n")
        assert wire.answer(to_head=True).status == 200
        wire.post("/204")
        assert wire.answer().status == 204
        wire.post("/", b"next")
        assert wire.answer().body == b"next"


def test_http_1_0_is_answered_and_closed(server: Serving):
    with server.connect() as wire:
        wire.send(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nold")
        assert wire.answer().body == b"old"
        assert wire.ended()


# Caps.


@pytest.mark.edge(14)
@pytest.mark.parametrize("size", [0, 1, 99_999, 100_000, MIB])
def test_a_body_up_to_the_cap_is_one_message(server: Serving, size: int):
    with server.connect() as wire:
        wire.post("/pieces", bytes(size))
        assert wire.answer().json == {"messages": 1, "bytes": size}


def test_a_chunked_body_up_to_the_cap_is_one_message_and_the_connection_goes_on(server: Serving):
    with server.connect() as wire:
        head = b"POST /pieces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head + chunked(bytes(MIB - 1), b"x"))
        assert wire.answer().json == {"messages": 1, "bytes": MIB}
        wire.post("/", b"next")
        assert wire.answer().body == b"next"


@pytest.mark.edge(14)
def test_a_declared_body_over_the_cap_is_refused_before_any_of_it_is_sent(server: Serving):
    with server.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MIB + 1))
        answer = wire.answer()
        assert answer.refusal == TOO_LARGE
        assert answer.headers["connection"] == "close"
        assert wire.ended()


@pytest.mark.edge(14)
def test_a_chunked_body_is_refused_at_one_byte_over_the_cap(server: Serving):
    with server.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (2 * MIB) + bytes(MIB + 1))
        assert wire.answer().refusal == TOO_LARGE


def test_a_refused_body_is_not_invited(server: Serving):
    with server.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MIB + 1))
        assert wire.answer().refusal == TOO_LARGE


def test_a_welcome_body_is_invited(server: Serving):
    with server.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert wire.head()[0] == 100
        wire.send(b"ok")
        assert wire.answer().body == b"ok"


@pytest.mark.edge(14)
@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (3 * MIB), b"Transfer-Encoding: chunked"])
def test_a_client_that_writes_everything_first_still_reads_the_refusal(server: Serving, framing: bytes):
    with server.connect() as wire:
        body = bytes(3 * MIB) if b"Length" in framing else chunked(bytes(3 * MIB))
        wire.send(b"POST / HTTP/1.1\r\n%s\r\n\r\n%s" % (framing, body))
        assert wire.answer().refusal == TOO_LARGE
        assert wire.socket.recv(1) == b"", "the server half-closes after its answer"


def test_what_follows_a_refusal_is_never_taken_for_a_request(server: Serving):
    before = server.seen()["ended"]
    with server.connect() as wire:
        smuggled = b"POST /slow?0 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MIB + 1) + smuggled * 10)
        assert wire.answer().refusal == TOO_LARGE
        wire.send(smuggled)
        assert wire.ended()
        assert wire.buffer == b""
    assert server.seen()["ended"] == before


def test_a_client_that_goes_on_sending_after_the_refusal_is_cut_off():
    with serving(deadlines={"refused_max_bytes": MIB, "refused_s": 60}) as server, server.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (1024 * MIB))
        assert wire.answer().refusal == TOO_LARGE
        with pytest.raises(ConnectionError):
            wire.send(bytes(64 * MIB))
        assert server.seen()["rss_kb"] < 200_000


def test_large_bodies_touch_no_file(server: Serving):
    descriptors = server.seen()["descriptors"]
    wires = [server.connect() for _ in range(5)]
    for wire in wires:
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % MIB + bytes(MIB - 1))
    assert server.until_seen(connections=6)["descriptors"] <= descriptors + len(wires)
    for wire in wires:
        wire.send(b"x")
        assert len(wire.answer().body) == MIB
        wire.socket.close()


# What the platform would let through.


def test_a_client_cannot_set_the_root_path(server: Serving):
    with server.connect() as wire:
        wire.post("/scope", b"", "Daphne-Root-Path: /evil", "DAPHNE-ROOT-PATH: /worse", "X-Kept: yes")
        scope = wire.answer().json
    assert (scope["root_path"], scope["path"]) == ("", "/scope")
    assert "daphne-root-path" not in dict(scope["headers"])
    assert dict(scope["headers"])["x-kept"] == "yes"


def test_names_with_an_underscore_do_not_pass_for_others(server: Serving):
    """Where headers become variables, `X_Forwarded_For` would be `X-Forwarded-For`."""
    with server.connect() as wire:
        wire.post("/scope", b"hello", "X_Forwarded_For: 127.0.0.1", "Content_Length: 900", "Transfer_Encoding: chunked")
        names = [name for name, _ in wire.answer().json["headers"]]
    assert names == ["host", "content-length"]


def test_an_old_keep_alive_is_closed_all_the_same(server: Serving):
    with server.connect() as wire:
        wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.ended()
        assert wire.buffer == b""


def test_a_websocket_upgrade_is_an_ordinary_request(server: Serving):
    with server.connect() as wire:
        wire.send(
            b"GET /scope HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert wire.answer().json["type"] == "http"
        wire.post("/", b"next")
        assert wire.answer().body == b"next"


def test_an_upgrade_to_http_2_is_an_ordinary_request(server: Serving):
    with server.connect() as wire:
        wire.post("/", b"1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
        assert (wire.answer().status, wire.buffer) == (200, b"")
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert wire.answer().status == 400


@pytest.mark.parametrize("path", ["/fail", "/nothing"])
def test_a_broken_application_is_answered_at_once_and_the_connection_goes_on(server: Serving, path: str):
    with server.connect() as wire:
        # Daphne's own sweep would answer after up to a second: 20 in a row would take many.
        wire.socket.settimeout(5)
        for _ in range(20):
            wire.post(path)
            assert wire.answer().refusal == FAILED
        wire.post("/", b"next")
        assert wire.answer().body == b"next"
    assert "as told" in server.log or path == "/nothing"


def test_an_answer_that_breaks_half_way_is_seen_to_be_incomplete(server: Serving):
    with server.connect() as wire:
        wire.post("/fail-late")
        assert wire.head()[0] == 200
        assert wire.chunk() == b"half"
        assert wire.socket.recv(10) == b"", "closed without the last chunk"


def test_the_loop_is_uvloop_and_nothing_is_left_behind(server: Serving):
    first = server.seen()
    for _ in range(100):
        with server.connect() as wire:
            wire.post("/", b"x", "Connection: close")
            wire.answer()
    last = server.seen()
    assert last["loop"] == "uvloop"
    assert (last["connections"], last["in_flight"], last["tasks"]) == (1, 1, first["tasks"])
    assert last["descriptors"] <= first["descriptors"]


def test_a_finished_request_is_forgotten_at_once(server: Serving):
    before = server.seen()["requests_alive"]
    with server.connect() as wire:
        for _ in range(300):
            wire.post("/", b"x")
            wire.answer()
        # No garbage collection has run: nothing may hold on to them, themselves included.
        assert server.seen()["requests_alive"] <= before + 3


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "()<>@"],
)
def test_forms_are_bodies_like_any_other(server: Serving, content_type: str):
    with server.connect() as wire:
        wire.post("/", b"a=1&b=2", f"Content-Type: {content_type}")
        assert wire.answer().body == b"a=1&b=2"


def test_hundreds_of_connections_at_once_are_all_served(server: Serving):
    wires = [server.connect() for _ in range(400)]
    for wire in wires:
        wire.post("/", b"burst")
    assert {wire.answer().body for wire in wires} == {b"burst"}
    for wire in wires:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.socket.close()
    with server.connect() as wire:
        wire.post("/", b"after")
        assert wire.answer().body == b"after"
