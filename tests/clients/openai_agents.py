"""The OpenAI Agents SDK's MCP servers (openai-agents), without a model. See contract.py.

It is asked for tools only: whatever else contract.py knows is a usage error.
"""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

import os
import re
from argparse import Namespace
from typing import Any

import contract

contract.inside("frameworks")
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"  # whatever the machine says, a test tells nobody of its calls

from agents.exceptions import UserError
from agents.mcp import MCPServerSse, MCPServerStreamableHttp

SERVER = {"session": MCPServerStreamableHttp, "sse": MCPServerSse}


async def visit(chosen: Namespace, report: dict[str, Any]) -> None:
    try:
        await use(chosen, report)
    except UserError as refused:
        told = re.search(r"HTTP error (\d{3})", str(refused))  # it keeps the answer to itself, on purpose
        report["status"] = int(told[1]) if told else None
        raise


async def use(chosen: Namespace, report: dict[str, Any]) -> None:
    given = {"url": chosen.url, "headers": contract.headers(chosen)}
    async with SERVER[chosen.mode](given, client_session_timeout_seconds=chosen.timeout) as server:
        welcome = server.server_initialize_result
        report["protocol_version"], report["server"] = str(welcome.protocolVersion), contract.plain(welcome.serverInfo)

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return contract.plain(await server.call_tool(name, arguments))

        names = [] if chosen.no_lists else [tool.name for tool in await server.list_tools()]
        await contract.use_tools(chosen, report, names, call)


contract.run(visit, contract.options_of_tools("openai-agents", ("session", "sse")))
