"""Every metric that is promised, made to move: what happens is counted, as often as it happened, under its labels."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import http.server
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.component.real_gateway import Client
from tests.system import faulty, gateway, prometheus
from tests.system.gateway import Gateway, eventually
from tests.system.tools import require

pytestmark = pytest.mark.edge(18)

DASHBOARD = gateway.ROOT / "deploy" / "grafana" / "dashboard.json"
DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(gateway.ROOT)}
PATIENCE_S = 30.0


class TokenEndpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        answer = json.dumps({"access_token": "fresh", "token_type": "Bearer", "expires_in": 3600}).encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Page:
    """/metrics at one moment."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            self.text = answer.read().decode()
        self._samples = [sample for family in text_string_to_metric_families(self.text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of what has these labels; a series that is not there yet counts nothing."""
        return sum(one.value for one in self._samples if one.name == name and labels.items() <= one.labels.items())

    def has(self, name: str) -> bool:
        return any(one.name == name for one in self._samples)


@dataclass
class World:
    gateway: Gateway
    client: Client
    remotes: dict[str, faulty.Peer]

    def page(self) -> Page:
        return Page(self.gateway.url)

    def call(self, name: str, **arguments: Any) -> Any:
        return self.client.modern("tools/call", {"name": name, "arguments": arguments})

    def grows(self, before: Page, by: float, name: str, **labels: str) -> None:
        eventually(
            lambda: self.page().value(name, **labels) - before.value(name, **labels),
            lambda grown: grown == by,
            within_s=PATIENCE_S,
            what=f"{name} {labels} grows by {by:g}",
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        background = faulty.Background()
        stack.callback(background.stop)
        remotes = {name: faulty.Peer(background, "modern") for name in ("erring", "tripping", "away", "guarded")}
        for one in remotes.values():
            stack.callback(one.stop)
        tokens = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint))
        threading.Thread(target=tokens.serve_forever, daemon=True).start()
        stack.callback(tokens.shutdown)
        entries: dict[str, dict[str, Any]] = {name: dict(one.entry) for name, one in remotes.items()}
        entries["erring"]["breaker"] = {"enabled": False}
        entries["away"]["timeout"] = 2
        token_url = f"http://127.0.0.1:{tokens.server_address[1]}/token"
        entries["guarded"]["auth"] = {"token_url": token_url, "client_id": "me", "client_secret": "secret"}
        entries["demo"] = DEMO
        served = stack.enter_context(
            gateway.running(entries, worker=True, MCP_MAX_IN_FLIGHT_PER_REMOTE="2", MCP_MAX_TOOL_RESPONSE_SIZE="20000")
        )
        well = lambda found: {one["status"] for one in found.values()} == {"healthy"}  # noqa: E731
        eventually(served.remotes, well, within_s=PATIENCE_S, what="all healthy")
        yield World(served, Client(int(served.url.rpartition(":")[2]), served.key), remotes)


def test_calls_and_their_time_by_remote_tool_and_outcome(world: World) -> None:
    before = world.page()
    assert world.call("demo__echo", text="x").status == 200
    assert world.call("demo__fail").status == 200
    world.remotes["erring"].be("500")
    assert world.call("erring__echo").status == 200
    world.grows(before, 1, "mcp_requests_total", method="tools/call", outcome="ok")
    world.grows(before, 1, "mcp_requests_total", method="tools/call", outcome="tool_error")
    world.grows(before, 1, "mcp_requests_total", method="tools/call", outcome="failed")
    for remote, tool, outcome in (
        ("demo", "demo__echo", "ok"),
        ("demo", "demo__fail", "tool_error"),
        ("erring", "other", "failed"),
    ):
        world.grows(before, 1, "mcp_call_seconds_count", remote=remote, outcome=outcome)
        world.grows(before, 1, "mcp_call_seconds_bucket", remote=remote, outcome=outcome, le="+Inf")
        world.grows(before, 1, "mcp_tool_calls_total", remote=remote, tool=tool, outcome=outcome)
    after = world.page()
    assert after.value("mcp_call_seconds_sum", remote="demo") > before.value("mcp_call_seconds_sum", remote="demo")
    assert after.value("mcp_tool_seconds_total", tool="demo__echo") > 0
    assert after.value("mcp_errors_per_minute") > before.value("mcp_errors_per_minute")
    assert after.value("mcp_latency_seconds", percentile="99") > 0


def test_streams_while_they_are_open(world: World) -> None:
    before = world.page()
    with world.client.relay():
        world.grows(before, 1, "mcp_open_streams")
        world.grows(before, 1, "mcp_connections")
    world.grows(before, 0, "mcp_open_streams")


def test_a_circuit_that_opens_and_what_it_refuses(world: World) -> None:
    before = world.page()
    world.remotes["tripping"].be("500")
    for _ in range(8):
        world.call("tripping__echo")
    world.grows(before, 2, "mcp_circuit_state", remote="tripping")
    world.grows(before, 1, "mcp_circuit_opened_total", remote="tripping")
    world.grows(before, 3, "mcp_circuit_refused_total", remote="tripping")


def test_retries_of_what_never_arrived(world: World) -> None:
    before = world.page()
    world.remotes["away"].be("refuse")
    world.call("away__echo")
    world.grows(before, 1, "mcp_retries_total", remote="away")


def test_calls_that_wait_for_their_turn_and_those_that_are_too_many(world: World) -> None:
    """Two run at once and two wait; a fifth is told so."""
    before = world.page()
    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda _: world.call("demo__slow", seconds=1, steps=1), range(5)))
    world.grows(before, 1, "mcp_busy_total", remote="demo")
    world.grows(before, 2, "mcp_queue_seconds_count", remote="demo")


def test_requests_that_are_refused_before_they_are_served(world: World) -> None:
    before = world.page()
    stranger = Client(world.client.port, "mcp_nobody")
    assert stranger.modern("tools/list").status == 401
    world.grows(before, 1, "mcp_refused_total", reason="key")
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(world.client.relay())
        headers = [world.client.bearer, ("Accept", "text/event-stream")]
        refused = world.client.stream("GET", "/sse", None, headers)
        stack.callback(refused.close)
        assert refused.status == 429
    world.grows(before, 1, "mcp_refused_total", reason="streams")


def test_answers_that_are_cut(world: World) -> None:
    before = world.page()
    assert world.call("demo__big", n=30_000).status == 200
    world.grows(before, 1, "mcp_cut_answers_total", how="cut")


def test_tokens_that_are_renewed(world: World) -> None:
    """By this process, or by that of Celery, which may have been first."""
    page = world.page()
    assert (
        sum(page.value("mcp_token_renewals_total", remote="guarded", outcome=how) for how in ("renewed", "shared")) >= 1
    )


def test_the_revision_that_is_served_and_an_edit_that_waits(world: World) -> None:
    before = world.page()
    config = world.gateway.folder / "mcp-config.yaml"
    text = config.read_text()
    config.write_text(text + "# another\n")
    world.grows(before, 1, "mcp_config_revision")
    config.write_text(text.replace('"version": 1', '"version": 1, "nonsense": 1'))
    world.grows(before, 1, "mcp_config_pending_errors")
    config.write_text(text)
    world.grows(before, 0, "mcp_config_pending_errors")


def test_keys_in_memory_and_the_tasks_of_celery_and_the_process(world: World) -> None:
    page = world.page()
    assert page.value("mcp_keys_held") == 2
    assert page.value("mcp_keys_remembered") >= 1
    assert page.value("mcp_workers") == 1
    assert page.value("process_resident_memory_bytes") > 20e6
    assert page.value("process_cpu_seconds_total") > 0.1
    assert page.value("mcp_memory_used_bytes") > 20e6
    for name in ("mcp_uptime_seconds", "mcp_disk_used_ratio", "mcp_open_files", "mcp_build_info", "mcp_dependency_up"):
        assert page.value(name) > 0, name
    done = lambda page: page.value("mcp_worker_tasks_total", outcome="done") > 0  # noqa: E731
    later = eventually(world.page, done, within_s=PATIENCE_S, what="Celery has done something")
    assert later.has("mcp_worker_beat_age_seconds")
    assert later.value("mcp_dependency_up", dependency="worker") == 1


def test_promtool_finds_nothing_wrong_with_any_of_it(world: World) -> None:
    """After all this has happened: of everything that can be on the page."""
    require("promtool")
    page = world.page().text.encode()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_every_query_of_the_dashboard_has_an_answer(world: World, tmp_path: Path) -> None:
    require("prometheus")
    queries = list(dashboard_queries())
    assert len(queries) == DASHBOARD.read_text().count('"expr":') > 20
    with prometheus.running(tmp_path, [world.gateway.url.removeprefix("http://")]) as scraping:

        def unanswered() -> list[str]:
            return [query for query in queries if not scraping.query(query)]

        eventually(unanswered, lambda left: not left, within_s=PATIENCE_S, what="every query has an answer")


def dashboard_queries() -> Iterator[str]:
    """As Grafana would send them, of all gateways."""
    filled = {"$job": "mcp-server", "$instance": ".*", "$__rate_interval": "1m"}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            query: str = target["expr"]
            for variable, value in filled.items():
                query = query.replace(variable, value)
            assert "$" not in query, query
            yield query


def test_what_clients_name_at_random_makes_no_series(world: World) -> None:
    before = len(world.page().text.splitlines())
    place = world.gateway.url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(place, timeout=20)) as connection:
        for number in range(300):
            body, headers = world.client.modern_request("tools/call", {"name": f"demo__odd{number}", "arguments": {}})
            connection.request("POST", "/mcp", body, dict(headers))
            connection.getresponse().read()
    assert len(world.page().text.splitlines()) - before < 60
