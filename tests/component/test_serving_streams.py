"""Clients that do not read, and clients that leave: what `send` and `receive` tell the application."""

import socket
import struct

import pytest

from tests.component.real_gateway import until
from tests.component.serving_process import Serving, serving

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def reset(sock: socket.socket) -> None:
    """Leave with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_a_flood_that_is_read_arrives_whole(server: Serving):
    with server.connect() as wire:
        wire.send(get("/flood?500x10000"))
        assert len(wire.answer().body) == 5_000_000
        wire.post("/", b"next")
        assert wire.answer().body == b"next"


@pytest.mark.edge(10)
@pytest.mark.parametrize("query", ["5000x10000", "50x1000000"])
def test_a_client_that_reads_nothing_costs_little_memory(server: Serving, query: str):
    before = server.seen()
    with server.connect(receive_buffer=4096) as wire:
        wire.send(get(f"/flood?{query}"))
        assert wire.head()[0] == 200
        during = server.until_seen(in_flight=2)
        for _ in range(50):
            # Each question lets the flood go on if nothing holds it back.
            during = server.seen()
        assert during["in_flight"] == 2, "the application waits in send"
        assert during["rss_kb"] - before["rss_kb"] < 20_000
        reset(wire.socket)
    assert server.until_seen(gone=before["gone"] + 1)["ended"] == before["ended"]


@pytest.mark.edge(10)
def test_a_client_that_reads_nothing_and_sends_on_and_on_costs_little_memory(server: Serving):
    """What it sends ahead of its turn is left to the kernel, and served when its turn comes."""
    before = server.seen()
    with server.connect(receive_buffer=4096) as wire:
        wire.send(get("/flood?50x1000000"))
        assert wire.head()[0] == 200
        asked = wire.pour(get("/") * 1000, seconds=1)
        assert asked > 100_000
        assert server.seen()["rss_kb"] - before["rss_kb"] < 20_000
        while wire.chunk():
            continue
        assert wire.answer().status == 200
        assert server.seen()["in_flight"] == 2, "the next in turn waits for its reader"
        reset(wire.socket)
    server.until_seen(ended=before["ended"] + 1)


@pytest.mark.edge(10)
@pytest.mark.parametrize("request_", [get("/"), b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"])
def test_requests_that_come_faster_than_they_are_answered_wait_with_the_kernel(server: Serving, request_: bytes):
    before = server.seen()
    wires = [server.connect() for _ in range(10)]
    for wire in wires:
        wire.pour(request_ * 1000, seconds=0.1)
    assert server.seen()["rss_kb"] - before["rss_kb"] < 15_000
    assert [wire.answer().status for wire in wires for _ in range(100)] == [200] * 1000
    for wire in wires:
        reset(wire.socket)
    until(lambda: server.seen()["connections"] == 1, "their places are free")


@pytest.mark.edge(10)
def test_one_big_answer_waits_for_its_reader_too(server: Serving):
    before = server.seen()
    with server.connect(receive_buffer=4096) as wire:
        wire.send(get("/flood?1x20000000"))
        assert wire.head()[0] == 200
        for _ in range(20):
            during = server.seen()
        assert (during["ended"], during["in_flight"]) == (before["ended"], 2)
        received = bytearray()
        while part := wire.chunk():
            assert len(part) <= 64 * 1024
            received += part
        assert len(received) == 20_000_000
    assert server.until_seen(ended=before["ended"] + 1)


@pytest.mark.edge(2)
def test_a_client_that_stops_reading_is_cut_off_and_the_application_is_told():
    with serving(limits={"stale_s": 1}) as server, server.connect(receive_buffer=4096) as wire:
        wire.send(get("/flood?50x1000000"))
        assert wire.head()[0] == 200
        facts = server.until_seen(gone=1)
        assert (facts["connections"], facts["in_flight"]) == (1, 1)
        assert wire.ended()
        until(lambda: "read nothing for 1 s" in server.log, "the log says why")


def test_a_slow_reader_is_not_cut_off():
    with serving(limits={"stale_s": 1}) as server, server.connect(receive_buffer=65536) as wire:
        wire.send(get("/flood?1x12000000"))
        assert wire.head()[0] == 200
        total = 0
        while part := wire.chunk():
            total += len(part)
            if total % (20 * 65536) == 0:
                server.seen()
        assert total == 12_000_000


@pytest.mark.edge(2)
@pytest.mark.parametrize("leave", [socket.socket.close, reset, lambda sock: sock.shutdown(socket.SHUT_WR)])
def test_a_client_that_leaves_a_stream_is_noticed(server: Serving, leave):
    before = server.seen()
    with server.connect() as wire:
        wire.send(get("/stream"))
        wire.head()
        assert wire.chunk() == b"data: open\n\n"
        leave(wire.socket)
        after = server.until_seen(disconnects=before["disconnects"] + 1, gone=before["gone"] + 1)
        assert (after["connections"], after["in_flight"]) == (1, 1)


def test_a_client_that_leaves_before_the_answer_is_noticed(server: Serving):
    before = server.seen()
    with server.connect() as wire:
        wire.post("/wait", b"body")
        server.until_seen(in_flight=2)
        reset(wire.socket)
    server.until_seen(disconnects=before["disconnects"] + 1)


@pytest.mark.edge(2)
@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("requests", [1, 2])
def test_a_client_that_leaves_as_soon_as_it_has_asked_is_noticed(server: Serving, leave, requests: int):
    """The end may arrive together with the request, in one event of the loop."""
    before = server.seen()
    for _ in range(50):
        wire = server.connect()
        for _ in range(requests):
            wire.post("/wait")
        leave(wire.socket)
    after = server.until_seen(disconnects=before["disconnects"] + 50)
    assert (after["connections"], after["in_flight"]) == (1, 1)


def test_an_application_that_watches_nobody_runs_on_after_its_client_left(server: Serving):
    before = server.seen()
    with server.connect() as wire:
        wire.post("/slow?1.5")
        server.until_seen(in_flight=2)
        reset(wire.socket)
    after = server.until_seen(ended=before["ended"] + 1)
    assert after["cancelled"] == before["cancelled"]


@pytest.mark.edge(2)
def test_three_hundred_opened_and_left_leave_nothing(server: Serving):
    before = server.seen()
    for _ in range(300):
        with server.connect() as wire:
            wire.send(get("/stream"))
            wire.head()
    after = server.until_seen(disconnects=before["disconnects"] + 300)
    assert after["descriptors"] - before["descriptors"] <= 10
    assert after["rss_kb"] - before["rss_kb"] < 30_000
    assert after["in_flight"] == 1
