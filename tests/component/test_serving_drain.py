"""The end of a worker: nothing accepted, nothing lost, nothing that holds it up."""

import itertools
import signal
import threading
import time

import pytest

from tests.component.serving_process import Serving, Wire, serving

STOPPING = (503, -32603, "the gateway is shutting down")


@pytest.fixture
def server():
    """Idle connections are let go a little sooner than really."""
    with serving(deadlines={"idle_draining_s": 0.8}) as running:
        yield running


@pytest.fixture
def untouched():
    with serving() as running:
        yield running


def opened(server: Serving, path: str) -> Wire:
    """A connection whose request is being answered."""
    wire = server.connect()
    wire.post(path)
    server.until_seen(in_flight=2)
    return wire


def refuses(server: Serving) -> bool:
    try:
        server.connect().socket.close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_idle_worker_ends_at_once(server: Serving):
    server.term()
    assert server.exit_code(5) == 0


@pytest.mark.edge(17)
def test_a_running_request_is_answered_and_no_new_one_taken(server: Serving):
    wire = opened(server, "/slow?2")
    server.term()
    assert server.until("drain")["in_flight"] == 1
    assert refuses(server)
    answer = wire.answer()
    assert (answer.body, answer.headers["connection"]) == (b"done", "close")
    assert wire.ended()
    assert server.until("stop")["in_flight"] == 0
    assert server.exit_code(5) == 0


@pytest.mark.edge(17)
def test_streams_are_told_and_end_by_themselves(server: Serving):
    wire = opened(server, "/stream")
    server.term()
    assert wire.answer().body == b"data: open\n\ndata: bye\n\n"
    assert wire.ended()
    assert server.exit_code(5) == 0


@pytest.mark.edge(17)
def test_keep_alive_clients_lose_nothing_while_it_drains(untouched: Serving):
    """Four clients send without a pause; each stops when told `Connection: close`. No request goes unanswered."""
    failures: list[str] = []
    sent: list[int] = []

    def client(number: int) -> None:
        with untouched.connect() as wire:
            for count in itertools.count():
                body = f"{number}.{count}".encode()
                try:
                    wire.post("/", body)
                    answer = wire.answer()
                except (OSError, AssertionError) as error:
                    failures.append(f"{number}.{count}: {error!r}")
                    return
                if answer.body != body:
                    failures.append(f"{number}.{count}: {answer.body!r}")
                if answer.headers.get("connection") == "close":
                    sent.append(count)
                    return

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for each in clients:
        each.start()
    for _ in range(20):
        untouched.seen()
    untouched.term()
    for each in clients:
        each.join(20)
    assert failures == []
    assert len(sent) == 4
    assert all(count > 10 for count in sent)
    assert untouched.exit_code(5) == 0


def test_a_client_that_comes_back_during_the_drain_is_served_once_more(server: Serving):
    with server.connect() as idle:
        idle.post("/", b"before")
        idle.answer()
        other = opened(server, "/slow?1.5")
        server.term()
        server.until("drain")
        idle.post("/", b"during")
        answer = idle.answer()
        assert (answer.body, answer.headers["connection"]) == (b"during", "close")
        assert idle.ended()
        assert other.answer().body == b"done"


def test_an_idle_connection_holds_the_drain_for_two_seconds_only(untouched: Serving):
    with untouched.connect() as idle:
        idle.post("/", b"before")
        idle.answer()
        untouched.term()
        untouched.until("drain")
        started = time.monotonic()
        assert idle.ended()
        assert idle.buffer == b""
        assert time.monotonic() - started >= 1, "a busy client gets the chance to send again"
        assert untouched.exit_code(5) == 0


def test_what_waits_in_the_backlog_is_served_not_reset(server: Serving):
    server.process.send_signal(signal.SIGSTOP)
    wires = [server.connect() for _ in range(20)]
    for wire in wires:
        wire.post("/", b"queued")
    server.term()
    server.process.send_signal(signal.SIGCONT)
    assert {wire.answer().body for wire in wires} == {b"queued"}
    assert server.exit_code(10) == 0


@pytest.mark.edge(17)
def test_after_the_grace_the_rest_is_cancelled_with_an_answer():
    with serving(limits={"shutdown_grace_s": 1}) as server:
        wire = opened(server, "/slow?60")
        server.term()
        server.until("cancelled")
        answer = wire.answer()
        assert answer.refusal == STOPPING
        assert answer.headers["retry-after"] == "5"
        assert server.exit_code(5) == 0


def test_a_request_that_outlives_its_client_is_waited_for(server: Serving):
    wire = opened(server, "/slow?2")
    wire.socket.close()
    server.term()
    server.until("worked")
    server.until("stop")
    assert server.exit_code(5) == 0


@pytest.mark.edge(17)
def test_a_second_sigterm_ends_it_at_once(server: Serving):
    wire = opened(server, "/slow?60")
    server.term()
    server.until("drain")
    server.term()
    assert wire.answer().refusal == STOPPING
    server.until("stop")
    assert server.exit_code(5) == 130


def test_a_second_sigterm_does_not_wait_for_a_hook_that_hangs():
    with serving("hang_stop", deadlines={"stop_s": 60}) as server:
        server.term()
        server.until("stop")
        server.term()
        assert server.exit_code(5) == 130


def test_a_sigterm_during_the_start_ends_it_before_anything_is_accepted():
    server = Serving("hang_start")
    server.until("starting")
    server.term()
    server.until("stop")
    assert server.exit_code(5) == 0


def test_a_shutdown_hook_that_hangs_does_not_hold_it_up():
    with serving("hang_stop", deadlines={"stop_s": 0.5}) as server:
        server.term()
        server.until("stop")
        assert server.exit_code(5) == 0
        assert "did not end within 0.5 s" in server.log


def test_sigint_is_left_to_the_supervisor(server: Serving):
    wire = opened(server, "/slow?1")
    server.process.send_signal(signal.SIGINT)
    assert wire.answer().body == b"done"
    server.seen()


def test_a_start_that_fails_is_raised_to_the_caller():
    server = Serving("fail_start")
    assert server.exit_code(10) == 1
    assert "RuntimeError: cannot start" in server.log
