"""npm's mcp-remote: the bridge that gives an application which knows only stdio a remote server. See contract.py.

The bridge is spawned as such an application would, and driven with the Python SDK 2.x over its stdin and stdout. Its
folder is a temporary one: it must not meet the sign-ins of whoever runs the tests.
"""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

import re
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import contract

contract.inside("sdk2")

import install
import sdk2
from mcp.client.stdio import StdioServerParameters, stdio_client

STRATEGY = {"session": "http-only", "sse": "sse-only"}


def bridge(chosen: Namespace, folder: str) -> StdioServerParameters:
    program, *arguments = install.npm_program("mcp-remote", "mcp-remote")
    arguments += [chosen.url, "--transport", STRATEGY[chosen.mode], "--auth-timeout", "2"]
    for name, value in contract.headers(chosen).items():
        arguments += ["--header", f"{name}: {value}"]
    private = {"HOME": folder, "MCP_REMOTE_CONFIG_DIR": folder, "BROWSER": "false"}
    return StdioServerParameters(command=program, args=arguments, env=install.node_environment() | private)


async def visit(chosen: Namespace, report: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="mcp-remote-", ignore_cleanup_errors=True) as folder:
        words = Path(folder, "stderr")
        try:
            with words.open("w") as errlog:
                await sdk2.visit(chosen, report, stdio_client(bridge(chosen, folder), errlog=errlog))
        except BaseException:
            told = re.search(r"HTTP (\d{3})", words.read_text())  # a refusal is only told to people, on stderr
            report["status"] = int(told[1]) if told else None
            raise


contract.run(visit, contract.options("mcp_remote", ("session", "sse")))
