"""LangChain's MultiServerMCPClient (langchain-mcp-adapters): the tools that its agents get. See contract.py.

It opens a session for each list and each call. It is asked for tools only: whatever else contract.py knows is a usage
error. Not called after its package: a script's folder comes first on its path, and it would import itself.
"""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

import contract

contract.inside("frameworks")
os.environ["LANGSMITH_TRACING"] = "false"  # whatever the machine says, a test tells nobody of its calls

from langchain_mcp_adapters.client import MultiServerMCPClient

TRANSPORT = {"session": "streamable_http", "sse": "sse"}


async def visit(chosen: Namespace, report: dict[str, Any]) -> None:
    connection = {"transport": TRANSPORT[chosen.mode], "url": chosen.url, "headers": contract.headers(chosen)}
    client = MultiServerMCPClient({"gateway": connection})
    tools = {tool.name: tool for tool in await client.get_tools()}  # its only way to a tool is through the list
    welcome = (await client.get_server_info())["gateway"]
    report["protocol_version"], report["server"] = str(welcome.protocolVersion), contract.plain(welcome.serverInfo)

    async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        wish = {"type": "tool_call", "id": "1", "name": name, "args": arguments}
        answer = await tools[name].ainvoke(wish)
        content = [{"type": "text", "text": block["text"]} for block in answer.content_blocks if "text" in block]
        return {"content": content, "isError": answer.status == "error"}

    await contract.use_tools(chosen, report, list(tools), call)


contract.run(visit, contract.options_of_tools("langchain", ("session", "sse")))
