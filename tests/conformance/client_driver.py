"""What the conformance tool starts as "the client" under test: the gateway in front of the tool's server, and somebody to use it.

    python -m tests.conformance.client_driver URL       (the tool adds the URL, and names the scenario in its environment)

So it is the gateway's side towards remotes that is judged: discovery and handshake, headers, `Mcp-Param-*`, which tools it
drops, rounds, resumed streams. The one who uses it is the official SDK's client: lists everything, calls, reads and gets
it all once, and answers a question with the defaults that the question offers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.conformance.names import Names
from tests.system import gateway as system

REMOTE = "ev"
NAMES = Names(REMOTE)
SAMPLES: dict[str, Any] = {"string": "x", "number": 1, "integer": 1, "boolean": True, "array": [], "object": {}}
USE_S = 30.0


def main() -> int:
    url = sys.argv[1]
    with system.running({REMOTE: {"type": "http", "url": url}}) as gateway:
        asyncio.run(asyncio.wait_for(use(gateway.address("http"), gateway.key), USE_S))
    return 0


async def use(url: str, key: str) -> None:
    """Everything that the remote offers, once."""
    mode = "legacy" if os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "") < "2026" else "2026-07-28"
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=USE_S) as http,
        Client(
            streamable_http_client(url, http_client=http), mode=mode, elicitation_callback=accept_defaults, cache=None
        ) as client,
    ):
        tools = (await client.list_tools()).tools
        for tool in tools:
            for arguments in wanted(tool, tools):
                await tried(client.call_tool(tool.name, arguments))
        for prompt in (await client.list_prompts()).prompts:
            await tried(client.get_prompt(prompt.name))
        for resource in (await client.list_resources()).resources:
            await tried(client.read_resource(resource.uri))


async def tried(call: Any) -> None:
    """An error is an answer, too: the tool judges what its server saw."""
    try:
        await call
    except MCPError as error:
        print(error, file=sys.stderr)


def wanted(tool: types.Tool, tools: list[types.Tool]) -> list[dict[str, Any]]:
    """The arguments to call a tool with: those the scenario names, or something of each required type."""
    name = tool.name.removeprefix(NAMES.prefix)
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    named = [call["arguments"] for call in context.get("toolCalls", []) if call["name"] == name]
    if named:
        return named
    if name == "json_schema_echo":
        focal = next(other for other in tools if other.name == f"{NAMES.prefix}json_schema_2020_12_tool")
        return [{"schema": focal.input_schema}]
    properties = tool.input_schema.get("properties", {})
    required = tool.input_schema.get("required", [])
    return [{name: SAMPLES.get(properties.get(name, {}).get("type"), "x") for name in required}]


async def accept_defaults(context: Any, params: Any) -> types.ElicitResult | types.ErrorData:
    schema = getattr(params, "requested_schema", {})
    content = {
        name: facts.get("default", SAMPLES.get(facts.get("type")))
        for name, facts in schema.get("properties", {}).items()
    }
    return types.ElicitResult(action="accept", content=content)


if __name__ == "__main__":
    sys.exit(main())
