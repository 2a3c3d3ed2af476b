"""`mcpstatus` against real control sockets, a real database, and nothing at all."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from mcpserver.lib import control

WORKER: dict[str, Any] = {
    "ok": True,
    "version": "0.1.0",
    "started_at": "2026-11-22T12:00:00Z",
    "uptime_s": 60.0,
    "draining": False,
    "connections": {"active": 2, "max": 100, "per_key": [{"key": "main", "active": 2}]},
    "in_flight": 1,
    "mcps": {"demo": {"status": "healthy", "transport": "stdio", "era": "2026-07-28", "tools": 3, "missing_env": []}},
    "config": {"revision": 2, "sha256": "ab"},
    "errors": {"rate": 0.0},
    "latency": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run_dir(tmp_path: Path, settings: Any) -> Path:
    settings.MCP_RUN_DIR = tmp_path / "run"
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_RUN_DIR.mkdir()
    return Path(settings.MCP_RUN_DIR)


@contextmanager
def answering(path: Path, document: dict[str, Any] | None) -> Iterator[None]:
    """A process that answers its control socket, or with None one that is stuck."""
    loop = asyncio.new_event_loop()

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        assert request == {"op": "status"}
        if document is None:
            await asyncio.Event().wait()
        return document or {}

    server = loop.run_until_complete(control.listen(path, answer))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def mcpstatus(*arguments: str) -> tuple[int, dict[str, Any]]:
    out = StringIO()
    code = 0
    try:
        call_command("mcpstatus", *arguments, stdout=out)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, json.loads(out.getvalue())


def test_a_running_gateway_is_shown_as_it_says(run_dir: Path) -> None:
    import os

    with (
        answering(run_dir / "gateway-0.sock", WORKER | {"pid": os.getpid()}),
        answering(run_dir / "supervisor.sock", {"pid": 6}),
    ):
        code, document = mcpstatus()
    assert (code, document["ok"], document["schema"]) == (0, True, 1)
    server = document["server"]
    assert (server["status"], server["pid"], server["version"], server["supervised"]) == ("healthy", 6, "0.1.0", True)
    assert document["mcps"]["demo"]["status"] == "healthy"
    assert document["memory"]["rss_mb"] > 10
    assert document["fds"]["open"] > 3
    assert document["dependencies"]["db"] == "ok"


@pytest.mark.parametrize(
    ("said", "arguments", "expected"),
    [
        ({}, ["--check"], 0),
        ({}, ["--check", "--strict"], 0),
        ({"mcps": {"a": {"status": "degraded"}}}, ["--check"], 0),
        ({"mcps": {"a": {"status": "degraded"}}}, ["--check", "--strict"], 1),
        ({"draining": True}, ["--check"], 1),
        ({"draining": True}, [], 0),
    ],
)
def test_check_turns_the_word_into_an_exit_code(
    run_dir: Path, said: dict[str, Any], arguments: list[str], expected: int
) -> None:
    with answering(run_dir / "gateway-0.sock", WORKER | said):
        code, document = mcpstatus(*arguments)
    assert code == expected
    assert document["ok"] is (expected == 0)


def test_a_worker_that_hangs_is_named_within_seconds_and_is_unhealthy(run_dir: Path) -> None:
    with answering(run_dir / "gateway-0.sock", None):
        code, document = mcpstatus("--check")
    assert (code, document["error"], document["server"]["status"]) == (1, "unhealthy", "unhealthy")
    assert document["server"]["silent_workers"] == ["gateway-0"]


def test_down_it_tells_what_the_file_and_the_database_know_and_leaves_with_7(
    run_dir: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from remotes import services

    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    (run_dir / "gateway-0.sock").touch()
    settings.MCP_CONFIG.write_text(
        "version: 1\n"
        "mcpServers:\n"
        "  known: {command: known}\n"
        "  off: {command: off, enabled: false}\n"
        "  needy: {url: 'http://127.0.0.1:9/mcp', headers: {Authorization: 'Bearer ${NO_SUCH_TOKEN}'}}\n"
        "  new: {command: new}\n"
    )
    services.record_health("known", status="unhealthy", error="refused")
    code, document = mcpstatus()
    assert (code, document["ok"], document["error"], document["server"]["status"]) == (
        7,
        False,
        "not_running",
        "stopped",
    )
    assert {name: one["status"] for name, one in document["mcps"].items()} == {
        "known": "unhealthy",
        "off": "disabled",
        "needy": "misconfigured",
        "new": "unknown",
    }
    assert document["mcps"]["known"]["last_error"] == "refused"
    assert document["mcps"]["needy"]["missing_env"] == ["NO_SUCH_TOKEN"]


def test_down_a_remote_that_left_the_configuration_needs_nobodys_attention(run_dir: Path, settings: Any) -> None:
    from remotes import services

    settings.MCP_CONFIG.write_text("mcpServers: {here: {command: x}}\n")
    services.record_health("here", status="healthy")
    services.record_health("gone", status="unhealthy")
    _, document = mcpstatus()
    assert list(document["mcps"]) == ["here"]
    assert "remotes" not in [warning["code"] for warning in document["warnings"]]


def test_a_config_file_that_cannot_be_read_hides_nothing_else(run_dir: Path, settings: Any) -> None:
    settings.MCP_CONFIG.write_bytes(b"\xff\xfe: [")
    code, document = mcpstatus()
    assert (code, document["mcps"]) == (7, {})
