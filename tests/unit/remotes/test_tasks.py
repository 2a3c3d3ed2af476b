"""Which remotes are due for a look, and how the gateway's word for one is read."""

from datetime import UTC, datetime, timedelta

import pytest

from remotes.config.snapshot import Missing, RemoteSpec
from remotes.status import Status
from remotes.tasks import JITTER, _read_ping, is_due
from remotes.upstream.outcome import Fault

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPEC = RemoteSpec("shop", "http", url="http://127.0.0.1:1/mcp", probe_interval_s=60)
STDIO = RemoteSpec("local", "stdio", command="local")


def row(age_s, status="healthy"):
    return {"status": status, "checked_at": None if age_s is None else NOW - timedelta(seconds=age_s)}


@pytest.mark.parametrize(
    ("known", "due"),
    [
        (None, True),
        (row(None, "unknown"), True),
        (row(60 * (1 - JITTER) - 1), False),
        (row(60 * (1 + JITTER) + 1), True),
        (row(1, "unhealthy"), False),
        (row(1, "disabled"), True),
        (row(1, "misconfigured"), True),
        (row(-7200), True),
    ],
)
def test_a_remote_is_due_at_its_own_interval_and_at_once_when_nothing_is_known(known, due):
    assert is_due(SPEC, known, NOW) is due


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (RemoteSpec("off", "http", enabled=False), "disabled"),
        (RemoteSpec("needs", "http", missing=(Missing("TOKEN", "headers.Authorization"),)), "misconfigured"),
    ],
)
def test_one_that_cannot_be_called_is_written_down_once(spec, word):
    assert is_due(spec, row(1), NOW)
    assert not is_due(spec, row(10_000, word), NOW)


def test_remotes_that_were_asked_together_are_not_asked_together_for_ever():
    known = row(60)
    specs = [RemoteSpec(f"shop{n}", "http", probe_interval_s=60) for n in range(40)]
    assert {is_due(spec, known, NOW) for spec in specs} == {True, False}


def test_a_ping_that_was_answered_keeps_what_it_does_not_tell():
    report = _read_ping(STDIO, {"ok": True, "latency_ms": 3.5, "era": None, "transport": None})
    assert report is not None
    assert (report.status, report.latency_ms, report.era, report.tools) == (Status.HEALTHY, 3.5, "", None)


def test_a_ping_that_failed_says_why():
    answer = {"ok": False, "error": "timeout", "phase": "answer", "message": "no answer", "latency_ms": 10_000.0}
    report = _read_ping(STDIO, answer)
    assert report is not None
    assert (report.status, report.error, report.phase, report.message) == (
        Status.UNHEALTHY, "timeout", "answer", "no answer",
    )  # fmt: skip


@pytest.mark.parametrize("error", ["not_found", "bad_request", str(Fault.BUSY)])
def test_a_gateway_that_cannot_tell_is_no_sign_of_ill_health(error):
    assert _read_ping(STDIO, {"ok": False, "error": error, "message": ""}) is None
