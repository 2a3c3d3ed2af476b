"""The MCP inspector's command line (npm), one process per method, as people use it in scripts. See contract.py.

It has no completion, shows no progress and no log messages, and cannot cancel or answer a question: asking it for one
of those is a usage error. Its home is a temporary folder: it must not meet the sign-ins of whoever runs the tests.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from argparse import Namespace
from typing import Any

import contract
import install

ERA = {"session": "legacy", "auto": "auto", "modern": "modern", "sse": "legacy"}
TOOL_FAILED, AUTH_REQUIRED = "tool_is_error", "auth_required"


class Refused(Exception):
    """The inspector's own error document."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document.get("message", "the inspector said nothing"))
        self.name = document.get("code")


def ask(chosen: Namespace, home: str, method: str, *more: str) -> dict[str, Any]:
    command = install.npm_program("@modelcontextprotocol/inspector", "mcp-inspector")
    command += ["--cli", "--server-url", chosen.url, "--transport", "sse" if chosen.mode == "sse" else "http"]
    command += ["--protocol-era", ERA[chosen.mode], "--format", "json", "--quiet", "--stored-auth-only"]
    for name, value in contract.headers(chosen).items():
        command += ["--header", f"{name}: {value}"]
    done = subprocess.run(
        [*command, "--method", method, *more],
        env=install.node_environment() | {"HOME": home},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=chosen.timeout,
        check=False,
    )
    refused = failure(done.stderr)
    if done.returncode and (refused is None or refused.get("code") != TOOL_FAILED):
        raise Refused(refused or {"message": done.stderr[-500:]})
    return json.loads(done.stdout)["result"]


def failure(words: str) -> dict[str, Any] | None:
    for line in reversed(words.splitlines()):
        if line.startswith('{"error"'):
            return json.loads(line)["error"]
    return None


def visit(chosen: Namespace, report: dict[str, Any], home: str) -> None:
    welcome = ask(chosen, home, "initialize")
    report["protocol_version"], report["server"] = welcome.get("protocolVersion"), welcome.get("serverInfo")
    able = welcome.get("capabilities", {})
    if not chosen.no_lists:
        raw = {"tools": ask(chosen, home, "tools/list")["tools"], "prompts": [], "resources": [], "templates": []}
        if "prompts" in able:
            raw["prompts"] = ask(chosen, home, "prompts/list")["prompts"]
        if "resources" in able:
            raw["resources"] = ask(chosen, home, "resources/list")["resources"]
            raw["templates"] = ask(chosen, home, "resources/templates/list")["resourceTemplates"]
        contract.record_lists(chosen, report, raw)
    if chosen.call:
        named = ("--tool-name", chosen.call, "--tool-args-json", json.dumps(chosen.args))
        report["call"] = ask(chosen, home, "tools/call", *named)
    for other in chosen.also:
        named = ("--tool-name", other["name"], "--tool-args-json", json.dumps(other["arguments"]))
        report["also"].append(ask(chosen, home, "tools/call", *named))
    if chosen.prompt:
        pairs = [f"{name}={value}" for name, value in chosen.prompt_args.items()]
        named = ("--prompt-name", chosen.prompt, *(("--prompt-args", *pairs) if pairs else ()))
        report["prompt"] = ask(chosen, home, "prompts/get", *named)
    if chosen.read:
        report["read"] = ask(chosen, home, "resources/read", "--uri", chosen.read)


def main() -> None:
    chosen = contract.options("inspector", ("session", "auto", "modern", "sse"))
    if chosen.cancel_after or chosen.complete or chosen.elicit or chosen.log_level:
        contract.finish({"ok": False, "error": "the inspector's CLI cannot do that"}, exit_code=2)
    if not install.TOOLS["npm"].folder.is_dir():
        contract.finish({"ok": False, "error": "npm is not installed: run tests/clients/install.py"}, exit_code=2)
    report = contract.new_report(chosen)
    with tempfile.TemporaryDirectory(prefix="inspector-") as home:
        try:
            visit(chosen, report, home)
            report["ok"] = True
        except (Refused, subprocess.TimeoutExpired) as raised:
            contract.record_failure(report, raised, chosen.timeout)
            if getattr(raised, "name", None) == AUTH_REQUIRED:
                report["status"] = 401
    contract.finish(report)


main()
