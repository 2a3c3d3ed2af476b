"""Pydantic AI's MCPToolset (pydantic-ai-slim[mcp]), without a model. See contract.py.

It goes by the URL: one that ends in /sse is HTTP+SSE, every other Streamable HTTP. It is asked for tools only: whatever
else contract.py knows is a usage error. Not called after its package: a script's folder comes first on its path, and it
would import itself.
"""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import contract

contract.inside("frameworks")

from fastmcp.exceptions import ToolError
from pydantic_ai.mcp import MCPToolset


async def visit(chosen: Namespace, report: dict[str, Any]) -> None:
    toolset = MCPToolset(chosen.url, headers=contract.headers(chosen), tool_error_behavior="error")
    async with toolset:
        report["server"] = contract.plain(toolset.server_info)
        report["protocol_version"] = str(toolset.client.initialize_result.protocolVersion)

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            try:
                answer = await toolset.direct_call_tool(name, arguments)
            except ToolError as failed:
                return {"content": [{"type": "text", "text": str(failed)}], "isError": True}
            words = answer if isinstance(answer, str) else json.dumps(answer)  # it hands out values, not contents
            return {"content": [{"type": "text", "text": words}], "isError": False}

        names = [] if chosen.no_lists else [tool.name for tool in await toolset.list_tools()]
        await contract.use_tools(chosen, report, names, call)


contract.run(visit, contract.options_of_tools("pydantic-ai", ("session", "sse")))
