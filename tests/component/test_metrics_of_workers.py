"""/metrics with several workers: real control sockets and the supervisor's own ledger, and what promtool says of the page."""

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mcpserver.lib import control
from mcpserver.lib.errors import GatewayError
from mcpserver.supervisor.ledger import Ledger
from monitoring import exposition
from tests.component.real_gateway import Gateway

pytestmark = pytest.mark.edge(18)


@contextmanager
def answering(path: Path, op: str, answer: Any) -> Iterator[None]:
    """A process behind a control socket; with None one that is stuck."""
    loop = asyncio.new_event_loop()

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        assert request["op"] == op
        if answer is None:
            await asyncio.Event().wait()
        return dict(answer(request))

    server = loop.run_until_complete(control.listen(path, handle))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        path.unlink()


def counting(pid: int, calls: float) -> Any:
    families = [["mcp_test_worker", "counter", "Calls", [["mcp_test_worker_total", {"remote": "a"}, calls]]]]
    return lambda request: {"ok": True, "pid": pid, "families": families}


def supervising(ledger: Ledger) -> Any:
    return lambda request: {"ok": True, "counted": ledger.told(request["workers"])}


def shown(run_dir: Path) -> float | None:
    page = exposition.page(run_dir, [], names=True).decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return next((one.value for one in samples if one.name == "mcp_test_worker_total"), None)


def test_whoever_is_asked_answers_for_all_and_a_worker_that_dies_or_hangs_takes_nothing_away(tmp_path: Path) -> None:
    ledger = Ledger()
    with ExitStack() as stack:
        stack.enter_context(answering(tmp_path / "supervisor.sock", "counted", supervising(ledger)))
        with answering(tmp_path / "gateway-0.sock", "metrics", counting(1001, 30)):
            with answering(tmp_path / "gateway-1.sock", "metrics", counting(1002, 12)):
                assert shown(tmp_path) == 42
            with answering(tmp_path / "gateway-1.sock", "metrics", None):
                assert shown(tmp_path) == 42
            with answering(tmp_path / "gateway-1.sock", "metrics", counting(1003, 5)):
                assert shown(tmp_path) == 47


def test_without_a_supervisor_the_living_are_summed(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "gateway-0.sock", "metrics", counting(1001, 30)),
        answering(tmp_path / "gateway-1.sock", "metrics", counting(1002, 12)),
    ):
        assert shown(tmp_path) == 42


def test_a_supervisor_that_does_not_answer_makes_no_page_rather_than_a_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "SUPERVISOR_S", 0.1)
    with answering(tmp_path / "supervisor.sock", "counted", None), pytest.raises(GatewayError, match="did not answer"):
        shown(tmp_path)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not installed")
def test_promtool_finds_nothing_wrong_with_the_live_page(gateway: Gateway) -> None:
    client = gateway.client()
    client.session().call("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}})
    page = client.ask("GET", "/metrics").body
    assert b'mcp_tool_calls_total{outcome="ok",remote="demo",tool="demo__echo"}' in page
    assert b'mcp_health{status="unhealthy"} 0.0' in page
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=20, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
