"""The real clients and the real servers understand each other without a gateway: whatever fails only with it is its."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.system.tools import CLIENTS_AND_MODES, arguments, require, visit

KEY = "mcp_only_for_this_test"
WITHOUT_PROGRESS = {"inspector"}
INTERACTIVE = [pair for pair in CLIENTS_AND_MODES if pair[0] != "inspector" and pair[1] != "auto"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers") / "journal"


@pytest.fixture(scope="module")
def urls(journal: Path) -> Iterator[dict[str, str]]:
    environment = {"PEER_JOURNAL": str(journal)}
    with (
        peers.sdk_server("http", "--key", KEY, environment=environment) as http_peer,
        peers.sdk_server("sse", "--key", KEY, environment=environment) as sse_peer,
    ):
        yield {"modern": http_peer.url, "auto": http_peer.url, "session": http_peer.url, "sse": sse_peer.url}


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_client_lists_calls_gets_and_reads(client: str, mode: str, urls: dict[str, str]) -> None:
    options = ["--call", "slow", *arguments(n=2, seconds=0.2), "--read", "peer://motd"]
    options += ["--prompt", "greet", "--prompt-args", '{"name": "Ann"}']
    seen = visit(client, urls[mode], KEY, *options, mode=mode)
    assert seen["ok"], seen
    assert seen["protocol_version"] == ("2026-07-28" if mode in ("modern", "auto") else "2025-11-25")
    assert seen["server"]["name"] == "sdk2-peer"
    assert {"echo", "slow", "ask"} <= set(seen["tools"])
    assert (seen["prompts"], seen["resources"]) == (["greet"], ["peer://motd", "peer://pixel"])
    assert seen["templates"] == ["peer://city/{name}"]
    assert seen["call"]["content"] == [{"type": "text", "text": "2 steps"}]
    assert seen["prompt"]["messages"][0]["content"]["text"] == "Greet Ann in a plain way."
    assert seen["read"]["contents"][0]["text"] == "Real peers, real sockets."
    if client not in WITHOUT_PROGRESS:
        assert [step["message"] for step in seen["progress"]] == ["step 1", "step 2"]


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_wrong_key_is_reported_as_401(client: str, mode: str, urls: dict[str, str]) -> None:
    seen = visit(client, urls[mode], "mcp_wrong", "--no-lists", mode=mode)
    assert (seen["ok"], seen["status"]) == (False, 401)


@pytest.mark.parametrize(("client", "mode"), INTERACTIVE)
def test_a_client_cancels_and_goes_on(client: str, mode: str, urls: dict[str, str], journal: Path) -> None:
    tag = f"{client}-{mode}"
    options = ["--no-lists", "--header", "x-api-key", "--cancel-after", "0.5"]
    seen = visit(client, urls[mode], KEY, *options, "--call", "cancellable", *arguments(tag=tag), mode=mode)
    assert (seen["ok"], seen["cancelled"], seen["call"]) == (True, True, None)
    events = [line["event"] for line in peers.journal_lines(journal) if line.get("tag") == tag]
    assert events == ["started", "cancelled"]


@pytest.mark.parametrize(("client", "mode"), INTERACTIVE)
def test_a_client_gets_logs_and_answers_a_question(client: str, mode: str, urls: dict[str, str]) -> None:
    quiet = ["--no-lists", "--log-level", "info", "--elicit", '{"colour": "blue"}', "--call"]
    logged = visit(client, urls[mode], KEY, *quiet, "log", *arguments(level="warning"), mode=mode)
    assert logged["logs"] == [{"level": "warning", "logger": "peer", "data": "hello 0"}]
    asked = visit(client, urls[mode], KEY, *quiet, "ask", "--complete", "greet", "style", "pi", mode=mode)
    assert asked["call"]["content"] == [{"type": "text", "text": "blue"}]
    assert asked["complete"]["completion"]["values"] == ["pirate"]


@pytest.mark.parametrize(("transport", "mode"), [("http", "auto"), ("http", "session"), ("sse", "sse")])
def test_a_server_of_2025_is_met_in_its_own_era(transport: str, mode: str) -> None:
    require("sdk1")
    with peers.legacy_server(transport, "--key", KEY) as peer:
        seen = visit("sdk2", peer.url, KEY, "--call", "add", *arguments(a=1, b=2), mode=mode)
    assert (seen["protocol_version"], seen["server"]["name"]) == ("2025-11-25", "sdk1-peer")
    assert seen["call"]["structuredContent"] == {"result": 3.0}


@pytest.mark.parametrize(("era", "version"), [("legacy", "2025-11-25"), ("modern", "2026-07-28")])
def test_the_peer_can_be_of_one_era_only(era: str, version: str) -> None:
    with peers.sdk_server("http", "--era", era) as peer:
        assert visit("sdk2", peer.url, "", mode="auto")["protocol_version"] == version
        assert not visit("sdk2", peer.url, "", mode="session" if era == "modern" else "modern")["ok"]


@pytest.mark.parametrize(("transport", "mode"), [("streamableHttp", "session"), ("sse", "sse")])
def test_server_everything_answers_over_http(transport: str, mode: str) -> None:
    require("npm")
    with peers.everything(transport) as peer:
        seen = visit("node-sdk1", peer.url, "", "--call", "echo", *arguments(message="hi"), mode=mode)
    assert seen["call"]["content"] == [{"type": "text", "text": "Echo: hi"}]


STDIO: dict[str, tuple[tuple[str, ...], Callable[[], peers.Command], str, dict[str, Any]]] = {
    "sdk": ((), peers.sdk_stdio, "add", {"a": 1, "b": 2}),
    "sdk-legacy": ((), lambda: peers.sdk_stdio(era="legacy"), "add", {"a": 1, "b": 2}),
    "mcp-1.x": (("sdk1",), peers.legacy_stdio, "add", {"a": 1, "b": 2}),
    "everything": (("npm",), peers.everything_stdio, "echo", {"message": "hi"}),
    "time": (("servers",), peers.time_stdio, "get_current_time", {"timezone": "Europe/Paris"}),
}


@pytest.mark.parametrize("name", STDIO)
def test_a_stdio_server_answers_a_call(name: str) -> None:
    needs, command, tool, given = STDIO[name]
    require(*needs)
    answer = call_over_stdio(command(), tool, given)
    assert answer["result"]["content"][0]["type"] == "text"
    assert not answer["result"].get("isError")


def test_mcp_server_fetch_fetches_a_page_of_this_machine() -> None:
    require("servers")
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    try:
        answer = call_over_stdio(peers.fetch_stdio(), "fetch", {"url": f"http://127.0.0.1:{page.server_port}/"})
    finally:
        page.shutdown()
        page.server_close()
    assert "a page of this machine" in answer["result"]["content"][0]["text"]


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"a page of this machine"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Quiet."""


def call_over_stdio(command: peers.Command, tool: str, given: dict[str, Any]) -> dict[str, Any]:
    """One session of 2025-11-25 in bytes, so that the answer owes nothing to a client library."""
    process = subprocess.Popen(
        [command.command, *command.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        say(process.stdin, id=1, method="initialize", params=client)
        answer_to(process.stdout, 1)
        say(process.stdin, method="notifications/initialized")
        say(process.stdin, id=2, method="tools/call", params={"name": tool, "arguments": given})
        return answer_to(process.stdout, 2)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def say(stream: Any, **message: Any) -> None:
    stream.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    stream.flush()


def answer_to(stream: Any, identifier: int) -> dict[str, Any]:
    for line in stream:
        message: dict[str, Any] = json.loads(line)
        if message.get("id") == identifier and "method" not in message:
            return message
    pytest.fail("the server closed its output")
