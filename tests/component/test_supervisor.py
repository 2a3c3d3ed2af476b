"""The supervisor with real processes, sockets and signals; only the children are stand-ins (`stand_in.py`)."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcpserver.lib import control
from mcpserver.lib.errors import GatewayError
from mcpserver.supervisor import pidfile

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = {"name": "gateway-0", "behaviour": "serve", "socket": True}
CELERY = {"name": "celery", "behaviour": "serve", "overlap": False}


class Supervised:
    """A running supervisor and what it printed first."""

    def __init__(self, run_dir: Path, *plan: dict[str, Any], **environment: str) -> None:
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.component.supervise", str(run_dir), json.dumps(plan)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.document: dict[str, Any] = json.loads(self.process.stdout.readline())

    def ask(self, operation: str, timeout_s: float = 20.0) -> dict[str, Any]:
        return control.ask(self.run_dir / "supervisor.sock", {"op": operation}, timeout_s=timeout_s)

    def child(self, name: str = "gateway-0") -> dict[str, Any]:
        return dict(self.ask("status")["children"][name])

    def served_by(self) -> int:
        with socket.create_connection(("127.0.0.1", self.document["port"]), timeout=10) as peer:
            return int(peer.recv(64))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout_s: float = 20.0) -> int:
        return self.process.wait(timeout_s)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run"


@pytest.fixture
def supervise(run_dir: Path) -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def start(*plan: dict[str, Any], **environment: str) -> Supervised:
        started.append(Supervised(run_dir, *plan, **environment))
        return started[-1]

    yield start
    for supervised in started:
        family = psutil.Process(supervised.process.pid).children(recursive=True) if is_alive(supervised) else []
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        supervised.process.kill()
        supervised.process.wait(10)
        assert supervised.process.stdout is not None
        supervised.process.stdout.close()


def is_alive(supervised: Supervised) -> bool:
    return supervised.process.poll() is None


def until(claim: Callable[[], bool], timeout_s: float = 40.0) -> None:
    """Wait for what another process does; asked often, and it fails loudly."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Starting.


def test_one_document_says_when_every_child_is_ready(supervise):
    supervised = supervise(GATEWAY, CELERY)
    document = supervised.document
    assert document["ok"] is True
    assert set(document["pids"]) == {"supervisor", "gateway-0", "celery"}
    assert document["pids"]["supervisor"] == supervised.process.pid
    assert {name: child["state"] for name, child in document["children"].items()} == {
        "gateway-0": "ready",
        "celery": "ready",
    }
    assert supervised.served_by() == document["pids"]["gateway-0"]


def test_a_child_that_cannot_start_ends_the_start_with_its_own_words_and_exit_code(supervise, run_dir):
    supervised = supervise(GATEWAY, {"name": "celery", "behaviour": "refuse"})
    assert supervised.document == {
        "ok": False,
        "error": "invalid_config",
        "message": "line 3: no",
        "hint": "fix it",
    }
    assert supervised.exit_code() == 3
    assert pidfile.owner(run_dir) is None


def test_a_child_that_ends_without_a_word_is_named_with_how_it_ended(supervise):
    supervised = supervise({"name": "gateway-0", "behaviour": "mute"})
    assert supervised.document["error"] == "child_failed"
    assert supervised.document["message"] == "gateway-0 ended before it was ready (exit code 1)"
    assert supervised.exit_code() == 1


def test_a_child_that_is_never_ready_is_killed_and_ends_the_start(supervise):
    supervised = supervise({"name": "gateway-0", "behaviour": "slow", "boot_s": 0.5})
    assert supervised.document["message"] == "gateway-0 ended before it was ready (signal KILL)"
    assert supervised.exit_code() == 1


def test_a_second_supervisor_is_refused_and_names_the_first(supervise):
    first = supervise(GATEWAY)
    second = supervise(GATEWAY)
    assert second.exit_code() == 6
    assert second.document["error"] == "already_running"
    assert second.document["pid"] == first.process.pid
    assert first.ask("status")["ok"] is True


def test_a_pid_file_left_by_a_killed_supervisor_keeps_nobody_from_starting(supervise):
    first = supervise(GATEWAY)
    first.send(signal.SIGKILL)
    first.exit_code()
    assert supervise(GATEWAY).document["ok"] is True


# Crashing.


def test_a_crashed_child_is_started_again_on_the_same_socket_and_shown(supervise):
    supervised = supervise(GATEWAY)
    port, first = supervised.document["port"], supervised.document["pids"]["gateway-0"]
    os.kill(first, signal.SIGKILL)
    until(lambda: supervised.child().get("restarts") == 1 and supervised.child()["state"] == "ready")
    child = supervised.child()
    assert child["last_exit"] == "signal KILL"
    assert child["crashes_in_a_row"] == 1
    assert supervised.served_by() == child["pid"] != first
    assert supervised.ask("status")["port"] == port


def test_only_one_that_follows_a_crash_is_told_so(supervise, tmp_path):
    journal = tmp_path / "journal"
    supervised = supervise(GATEWAY, STAND_IN_JOURNAL=str(journal))
    os.kill(supervised.document["pids"]["gateway-0"], signal.SIGKILL)
    until(lambda: supervised.child().get("restarts") == 1 and supervised.child()["state"] == "ready")
    assert supervised.ask("restart")["ok"] is True
    assert journal.read_text().split() == ["anew", "again", "anew"]


def test_while_it_waits_for_the_next_start_status_says_why(supervise, run_dir, tmp_path):
    override = tmp_path / "behaviour"
    supervised = supervise(GATEWAY, STAND_IN_FILE=str(override))
    override.write_text("refuse")
    os.kill(supervised.document["pids"]["gateway-0"], signal.SIGKILL)
    until(lambda: supervised.child().get("crashes_in_a_row") == 2)
    child = supervised.child()
    assert child["state"] == "waiting"
    assert child["last_exit"] == "exit code 3"
    assert child["last_error"]["message"] == "line 3: no"
    assert 0 < child["next_start_in_s"] <= 2


def test_what_a_killed_worker_had_spawned_is_killed_too(supervise):
    supervised = supervise({"name": "gateway-0", "behaviour": "parent"})
    worker = psutil.Process(supervised.document["pids"]["gateway-0"])
    (immortal,) = worker.children()
    worker.kill()
    until(lambda: is_gone(immortal.pid))


def test_a_killed_supervisor_takes_its_children_with_it(supervise):
    supervised = supervise(GATEWAY, CELERY)
    pids = supervised.document["pids"]
    supervised.send(signal.SIGKILL)
    until(lambda: is_gone(pids["gateway-0"]) and is_gone(pids["celery"]))


# Restarting.


def test_a_restart_replaces_every_child_and_loses_no_connection(supervise):
    supervised = supervise(GATEWAY, CELERY)
    before = supervised.document["pids"]
    failures: list[Exception] = []
    is_over = threading.Event()

    def knock() -> None:
        while not is_over.is_set():
            try:
                supervised.served_by()
            except (OSError, ValueError) as error:
                failures.append(error)

    client = threading.Thread(target=knock)
    client.start()
    document = supervised.ask("restart")
    is_over.set()
    client.join()
    assert document["ok"] is True
    assert document["pids"]["supervisor"] == before["supervisor"]
    assert document["pids"]["gateway-0"] != before["gateway-0"]
    assert document["pids"]["celery"] != before["celery"]
    assert is_gone(before["gateway-0"])
    assert is_gone(before["celery"])
    assert supervised.served_by() == document["pids"]["gateway-0"]
    assert failures == []


def test_a_hangup_restarts_as_the_command_does(supervise):
    supervised = supervise(GATEWAY)
    before = supervised.document["pids"]["gateway-0"]
    supervised.send(signal.SIGHUP)
    until(lambda: is_gone(before))
    until(lambda: supervised.child()["state"] == "ready")
    assert supervised.child()["pid"] != before


def test_a_successor_that_cannot_start_leaves_the_old_child_serving(supervise, tmp_path):
    override = tmp_path / "behaviour"
    supervised = supervise(GATEWAY, STAND_IN_FILE=str(override))
    override.write_text("refuse")
    document = supervised.ask("restart")
    assert document.pop("took_s") >= 0
    assert document == {"ok": False, "error": "invalid_config", "message": "line 3: no", "hint": "fix it"}
    assert supervised.served_by() == supervised.document["pids"]["gateway-0"]


def test_a_restart_during_a_restart_is_refused(supervise):
    supervised = supervise(GATEWAY, DRAIN_S="3")
    first = threading.Thread(target=supervised.ask, args=("restart",))
    first.start()
    until(lambda: supervised.child()["pid"] != supervised.document["pids"]["gateway-0"])
    assert supervised.ask("restart")["error"] == "locked"
    first.join()


# Stopping.


@pytest.mark.edge(17)
def test_a_signal_drains_and_exits_0_and_the_port_is_free_at_once(supervise, run_dir):
    supervised = supervise(GATEWAY, CELERY, DRAIN_S="1.5")
    supervised.send(signal.SIGTERM)

    def is_refused() -> bool:
        with socket.socket() as peer:
            return peer.connect_ex(("127.0.0.1", supervised.document["port"])) != 0

    until(is_refused, timeout_s=1.0)
    assert is_alive(supervised)
    assert supervised.exit_code() == 0
    assert pidfile.owner(run_dir) is None


def test_stop_is_answered_when_everything_has_ended(supervise):
    supervised = supervise(GATEWAY, CELERY)
    answer = supervised.ask("stop")
    assert answer.pop("took_s") >= 0
    assert sorted(answer.pop("drained")) == ["celery", "gateway-0"]
    assert answer == {"ok": True, "killed": []}
    assert supervised.exit_code() == 0


def test_whoever_waits_for_a_start_that_is_stopped_hears_that(supervise, run_dir):
    def stop() -> None:
        until((run_dir / "supervisor.sock").exists)
        answers.append(control.ask(run_dir / "supervisor.sock", {"op": "stop"}, timeout_s=20))

    answers: list[dict[str, Any]] = []
    operator = threading.Thread(target=stop)
    operator.start()
    supervised = supervise({"name": "gateway-0", "behaviour": "slow"})
    operator.join()
    message = "stopped before all was ready"
    assert supervised.document == {"ok": False, "error": "interrupted", "message": message}
    assert supervised.exit_code() == 130
    assert answers[0]["ok"]


def test_a_child_that_does_not_end_in_its_grace_is_killed_and_named(supervise):
    supervised = supervise({"name": "gateway-0", "behaviour": "stubborn", "grace_s": 0.5})
    answer = supervised.ask("stop")
    assert answer["killed"] == ["gateway-0"]
    assert supervised.exit_code() == 1


@pytest.mark.edge(17)
def test_a_second_signal_ends_at_once(supervise):
    supervised = supervise({"name": "gateway-0", "behaviour": "stubborn", "grace_s": 60})
    supervised.send(signal.SIGTERM)
    until(lambda: supervised.child()["state"] == "draining")
    supervised.send(signal.SIGINT)
    assert supervised.exit_code(timeout_s=5) == 130
    assert is_gone(supervised.document["pids"]["gateway-0"])


@pytest.mark.edge(17)
def test_nothing_that_a_stubborn_child_spawned_outlives_the_stop(supervise):
    supervised = supervise({"name": "gateway-0", "behaviour": "parent"})
    (immortal,) = psutil.Process(supervised.document["pids"]["gateway-0"]).children()
    assert supervised.ask("stop")["ok"] is True
    supervised.exit_code()
    assert is_gone(immortal.pid)


def test_while_stopping_nothing_is_started_again(supervise):
    supervised = supervise(GATEWAY, {"name": "celery", "behaviour": "stubborn", "grace_s": 2})
    os.kill(supervised.document["pids"]["gateway-0"], signal.SIGKILL)
    until(lambda: supervised.child()["state"] == "waiting")
    answer = supervised.ask("stop")
    assert answer["killed"] == ["celery"]
    assert supervised.exit_code() == 1


# Talking.


def test_garbage_on_the_control_socket_disturbs_nothing(supervise, run_dir):
    supervised = supervise(GATEWAY)
    for garbage in (b"", b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x05{bad}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.connect(str(run_dir / "supervisor.sock"))
            peer.sendall(garbage)
    assert supervised.ask("whatever") == {"ok": False, "error": "bad_request", "message": "unknown op: whatever"}
    assert supervised.ask("status")["ok"] is True


def test_forty_silent_peers_do_not_keep_an_operator_out(supervise, run_dir):
    supervised = supervise(GATEWAY)
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(40)]
    try:
        for peer in silent:
            peer.connect(str(run_dir / "supervisor.sock"))
        assert supervised.ask("status")["ok"] is True
    finally:
        for peer in silent:
            peer.close()


def test_the_control_socket_belongs_to_its_owner_alone(supervise, run_dir):
    supervise(GATEWAY)
    assert (run_dir / "supervisor.sock").stat().st_mode & 0o777 == 0o600
    assert run_dir.stat().st_mode & 0o777 == 0o700


def test_nobody_answers_after_the_end(supervise):
    supervised = supervise(GATEWAY)
    supervised.ask("stop")
    supervised.exit_code()
    with pytest.raises(GatewayError) as refused:
        supervised.ask("status")
    assert (refused.value.code, int(refused.value.exit_code)) == ("not_running", 7)


def test_systemd_is_told_ready_alive_and_stopping(supervise, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/notify"
        systemd.bind(address)
        systemd.settimeout(10)
        supervised = supervise(GATEWAY, NOTIFY_SOCKET=address, WATCHDOG_USEC="400000")
        seen = {systemd.recv(1024).split(b"\n")[0] for _ in range(4)}
        assert seen == {b"READY=1", b"WATCHDOG=1"}
        supervised.send(signal.SIGTERM)
        until(lambda: systemd.recv(1024) == b"STOPPING=1")
        supervised.exit_code()


def test_what_systemd_tells_the_supervisor_does_not_reach_its_children(supervise, tmp_path):
    supervised = supervise(GATEWAY, NOTIFY_SOCKET="/nonexistent", WATCHDOG_USEC="60000000", KEPT="1")
    environment = psutil.Process(supervised.document["pids"]["gateway-0"]).environ()
    assert environment["KEPT"] == "1"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(environment)
