"""Coding agents as their users run them, from their own configuration files: what no SDK's own client would show.

mcporter lists and calls. Claude Code decides with a model, and a stand-in for its API (tests/clients/model_api.py) plays it:
everything else of the agent is as shipped. Each has a home of its own, nothing of whoever runs the tests, and no way out of
this machine: whatever else Claude Code would ask for goes to the stand-in, which keeps it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.clients import install, model_api
from tests.clients.model_api import ModelApi
from tests.system import gateway
from tests.system.gateway import Gateway
from tests.system.tools import require

DEADLINE_S = 40.0  # each takes a second or so; a busy machine starts 380 MB of agent slowly
TOOLS = {"add", "ask", "big", "echo", "fail", "slow"}
HEADERS = {"authorization": "Authorization", "x-api-key": "X-API-Key"}
SERVED = [("http", "authorization"), ("sse", "x-api-key")]  # both addresses and both headers, in two runs
SILENT = (
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_AUTOUPDATER",
    "DISABLE_ERROR_REPORTING",
    "DISABLE_TELEMETRY",
)


@dataclass(frozen=True)
class Ended:
    """What a program said before it ended."""

    code: int
    stdout: str
    stderr: str

    def document(self) -> Any:
        try:
            return json.loads(self.stdout)
        except ValueError:
            pytest.fail(f"ended with {self.code} and no document:\n{self.stdout[-500:]}\n{self.stderr[-2000:]}")


@dataclass(frozen=True)
class Session:
    """One whole run of Claude Code: its messages, and what its model's API was asked."""

    messages: list[dict[str, Any]]
    api: ModelApi

    @property
    def server(self) -> str:
        """The state of the gateway, as the agent saw it when it began."""
        ((name, status),) = [(one["name"], one["status"]) for one in self.messages[0]["mcp_servers"]]
        assert name == "gw"
        return str(status)

    @property
    def offered(self) -> set[str]:
        """The tools of any MCP server that the model was offered."""
        return {tool for tool in self.api.offered() if tool.startswith("mcp__")}

    @property
    def results(self) -> list[dict[str, Any]]:
        contents = [message["message"]["content"] for message in self.messages if message["type"] == "user"]
        return [block for content in contents for block in content if block["type"] == "tool_result"]

    @property
    def answer(self) -> str:
        last = self.messages[-1]
        assert (last["type"], last["is_error"], last["permission_denials"]) == ("result", False, []), last
        return str(last["result"])


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    require("agents")
    demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(gateway.ROOT)}
    with gateway.running({"demo": demo}) as running:
        gateway.eventually(
            lambda: running.remotes()["demo"]["status"], "healthy".__eq__, within_s=20, what="demo was looked at"
        )
        yield running


@pytest.mark.parametrize(("kind", "header"), SERVED)
def test_mcporter_lists_and_calls(kind: str, header: str, served: Gateway, tmp_path: Path) -> None:
    def mcporter(*words: str) -> Ended:
        return run_mcporter(*words, url=served.address(kind), header=header, key=served.key, home=tmp_path)

    listed = mcporter("list", "gw", "--json").document()
    assert (listed["status"], {tool["name"] for tool in listed["tools"]}) == ("ok", {f"demo__{name}" for name in TOOLS})
    echo = next(tool for tool in listed["tools"] if tool["name"] == "demo__echo")
    assert echo["inputSchema"]["required"] == ["text"]
    assert mcporter("call", "gw.demo__echo", "text=hi there").document() == {"result": "hi there"}
    failed = mcporter("call", "gw.demo__fail", "message=as you wished")
    assert (failed.code, failed.document()["isError"]) == (1, True)
    assert failed.document()["content"] == [{"type": "text", "text": "Error executing tool fail: as you wished"}]


@pytest.mark.parametrize(("kind", "header"), SERVED)
def test_mcporter_says_that_a_wrong_key_is_refused(kind: str, header: str, served: Gateway, tmp_path: Path) -> None:
    for words in (("list", "gw", "--json"), ("call", "gw.demo__echo", "text=hi")):
        refused = run_mcporter(*words, url=served.address(kind), header=header, key="mcp_wrong", home=tmp_path)
        assert refused.code == 1
        issue = refused.document()["issue"]
        assert (issue["kind"], issue["statusCode"]) == ("auth", 401)
        assert "demo__add" not in refused.stdout


@pytest.mark.parametrize(("kind", "header"), SERVED)
def test_claude_code_offers_the_tools_and_uses_one(kind: str, header: str, served: Gateway, tmp_path: Path) -> None:
    session = claude_code("echo", {"text": "hi there"}, served, kind, header, served.key, tmp_path)
    assert session.server == "connected"
    assert session.offered == {f"mcp__gw__demo__{name}" for name in TOOLS}
    (result,) = session.results
    assert (json.loads(result["content"]), result.get("is_error", False)) == ({"result": "hi there"}, False)
    assert session.answer == f"The tool said: {result['content']}"


def test_claude_code_tells_its_model_that_a_tool_failed(served: Gateway, tmp_path: Path) -> None:
    session = claude_code("fail", {"message": "as you wished"}, served, "http", "authorization", served.key, tmp_path)
    (result,) = session.results
    assert result["is_error"]
    assert "Error executing tool fail: as you wished" in session.answer


@pytest.mark.parametrize(("kind", "header"), SERVED)
def test_claude_code_with_a_wrong_key_has_no_tool_of_the_gateway(
    kind: str, header: str, served: Gateway, tmp_path: Path
) -> None:
    session = claude_code("echo", {"text": "hi"}, served, kind, header, "mcp_wrong", tmp_path)
    assert session.server == "failed"
    assert (session.offered, session.results) == (set(), [])
    assert "Bash" in session.api.offered()  # it did ask its model, and had other tools to offer
    assert session.answer == "There is no tool mcp__gw__demo__echo."


def run_mcporter(*words: str, url: str, header: str, key: str, home: Path) -> Ended:
    """With the key from the environment, as its users are told to; it looks in no other program's configuration."""
    config = home / "mcporter.json"
    server = {"baseUrl": url, "headers": {HEADERS[header]: key_text(header, "${GATEWAY_KEY}")}}
    config.write_text(json.dumps({"imports": [], "mcpServers": {"gw": server}}))
    command = [*install.npm_program("mcporter", "mcporter", "agents"), "--config", str(config), *words, "--no-oauth"]
    return run([*command, "--output", "json"] if words[0] == "call" else command, home, GATEWAY_KEY=key)


def claude_code(
    tool: str, given: Mapping[str, Any], served: Gateway, kind: str, header: str, key: str, home: Path
) -> Session:
    """Claude Code, once, without its screen; its model wants this tool of the remote `demo` called."""
    config = home / "mcp.json"
    server = {"type": kind, "url": served.address(kind), "headers": {HEADERS[header]: key_text(header, key)}}
    config.write_text(json.dumps({"mcpServers": {"gw": server}}))
    wanted = f"mcp__gw__demo__{tool}"
    options = ["--output-format", "json", "--verbose", "--mcp-config", str(config), "--strict-mcp-config"]
    with model_api.serving(wanted, given) as api:
        environment = dict.fromkeys(SILENT, "1") | {
            "ANTHROPIC_API_KEY": "dummy",
            "ANTHROPIC_BASE_URL": api.url,
            "HTTPS_PROXY": api.url,  # where anything for another host ends
            "HTTP_PROXY": api.url,
            "ENABLE_TOOL_SEARCH": "false",  # offer the tools themselves, not one that looks for them
        }
        ended = run(
            [*install.claude_code(), "-p", "Use the tool.", *options, "--allowedTools", wanted], home, **environment
        )
    assert api.elsewhere == []
    return Session(ended.document(), api)


def key_text(header: str, key: str) -> str:
    return f"Bearer {key}" if header == "authorization" else key


def run(command: list[str], home: Path, **environment: str) -> Ended:
    """Run it to its end with an environment of its own; at the deadline it goes with all that it started."""
    (home / "tmp").mkdir(exist_ok=True)
    own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "CLAUDE_CODE_TMPDIR": str(home / "tmp")}
    own |= {"PATH": install.node_environment()["PATH"], "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        command,
        cwd=home,
        env=own | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    finally:
        peers.end_group(process, signal.SIGKILL)
    return Ended(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
