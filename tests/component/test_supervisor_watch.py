"""A supervisor that looks after workers: one that hangs, one that grows, one whose connections a sibling takes."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

import pytest

from tests.component.test_supervisor import run_dir, supervise, until

__all__ = ["run_dir", "supervise"]


def worker(number: int, behaviour: str = "beat") -> dict[str, object]:
    return {"name": f"gateway-{number}", "behaviour": behaviour, "socket": True, "beats": True}


def asked(port: int, timeout_s: float = 0.3) -> int | None:
    """Who answers a new connection; None when nobody does."""
    with suppress(TimeoutError), socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as peer:
        return int(peer.recv(64) or 0) or None
    return None


@pytest.mark.edge(23)
def test_a_worker_that_stays_over_its_memory_is_replaced_by_one_that_is_ready(supervise):
    supervised = supervise(worker(0, "grow"))
    first = supervised.document["pids"]["gateway-0"]
    until(lambda: supervised.child()["state"] == "ready" and supervised.child()["pid"] != first)
    assert "last_exit" not in supervised.child(), "it drained: nothing crashed"


@pytest.mark.edge(23)
def test_two_that_grow_at_once_are_replaced_one_after_the_other(supervise):
    supervised = supervise(worker(0, "grow"), worker(1, "grow"))
    first = supervised.document["pids"]
    until(lambda: not {child["pid"] for child in supervised.ask("status")["children"].values()} & set(first.values()))


def test_a_worker_whose_loop_hangs_is_ended_and_started_again(supervise, tmp_path):
    flag = tmp_path / "hang"
    supervised = supervise(worker(0, "hang"), STAND_IN_FLAG=str(flag))
    first = supervised.document["pids"]["gateway-0"]
    flag.touch()
    until(lambda: supervised.child().get("stalled") is True)
    flag.unlink()
    until(lambda: supervised.child().get("restarts") == 1 and supervised.child()["state"] == "ready")
    assert supervised.child()["last_exit"] == "signal KILL", "it does not even end when told to say where it hangs"
    assert supervised.child()["pid"] != first


def test_while_a_worker_hangs_or_is_gone_its_sibling_takes_its_connections(supervise, tmp_path):
    flag = tmp_path / "hang"
    supervised = supervise(worker(0), worker(1, "hang"), STAND_IN_FLAG=str(flag))
    port, pids = supervised.document["port"], supervised.document["pids"]
    until(lambda: {asked(port) for _ in range(20)} == {pids["gateway-0"], pids["gateway-1"]})
    flag.touch()
    until(lambda: supervised.child("gateway-1").get("served_by") == "gateway-0")
    until(lambda: {asked(port) for _ in range(20)} == {pids["gateway-0"]})
    flag.unlink()
    until(
        lambda: supervised.child("gateway-1")["state"] == "ready" and "served_by" not in supervised.child("gateway-1")
    )
    second = supervised.child("gateway-1")["pid"]
    until(lambda: {asked(port) for _ in range(20)} == {pids["gateway-0"], second})


def test_a_sibling_that_is_gone_too_hands_both_on(supervise):
    supervised = supervise(worker(0), worker(1), worker(2))
    port, pids = supervised.document["port"], supervised.document["pids"]
    for name in ("gateway-1", "gateway-2"):
        os.kill(pids[name], signal.SIGSTOP)
    until(lambda: {supervised.child(name).get("served_by") for name in ("gateway-1", "gateway-2")} == {"gateway-0"})
    until(lambda: {asked(port) for _ in range(20)} == {pids["gateway-0"]})
    for name in ("gateway-1", "gateway-2"):
        os.kill(pids[name], signal.SIGCONT)
    until(lambda: all("served_by" not in supervised.child(name) for name in ("gateway-1", "gateway-2")))


def test_a_worker_that_was_only_stopped_for_a_while_goes_on(supervise):
    supervised = supervise(worker(0))
    pid = supervised.document["pids"]["gateway-0"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: supervised.child().get("stalled") is True)
    os.kill(pid, signal.SIGCONT)
    until(lambda: "stalled" not in supervised.child())
    assert supervised.child()["pid"] == pid
