"""The fastmcp 4.x client: Streamable HTTP of both eras, and HTTP+SSE. See contract.py.

Not called fastmcp.py: a script's folder comes first on its path, and it would import itself.
"""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

from argparse import Namespace
from typing import Any

import contract

contract.inside("fastmcp")

import anyio
import mcp_types as types
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import SSETransport, StreamableHttpTransport
from mcp.shared._httpx_utils import create_mcp_http_client

CLIENT_MODE = {"auto": "auto", "modern": "2026-07-28", "session": "legacy", "sse": "legacy"}


class References:
    uri = str

    @staticmethod
    def template(uri: str) -> types.ResourceTemplateReference:
        return types.ResourceTemplateReference(type="ref/resource", uri=uri)

    @staticmethod
    def prompt(name: str) -> types.PromptReference:
        return types.PromptReference(type="ref/prompt", name=name)


class Raw:
    """fastmcp's methods that answer with the protocol's own documents, under the names that contract.py calls."""

    def __init__(self, client: Client) -> None:
        self.list_tools = client.list_tools_mcp
        self.list_prompts = client.list_prompts_mcp
        self.list_resources = client.list_resources_mcp
        self.list_resource_templates = client.list_resource_templates_mcp
        self.get_prompt = client.get_prompt_mcp
        self.read_resource = client.read_resource_mcp
        self.complete = client.complete_mcp


def connect(chosen: Namespace, report: dict[str, Any]) -> Client:
    def http_client(*, follow_redirects: bool = False, **given: Any):
        made = create_mcp_http_client(**given)
        made.event_hooks = contract.watch_status(report)
        return made

    async def on_log(message: Any) -> None:
        report["logs"].append(contract.plain(message))

    async def on_question(_message: str, _kind: Any, params: Any, _context: Any) -> ElicitResult:
        report["elicitations"].append(contract.plain(params))
        return ElicitResult(**contract.elicitation(chosen))

    make = SSETransport if chosen.mode == "sse" else StreamableHttpTransport
    return Client(
        make(chosen.url, headers=contract.headers(chosen), httpx_client_factory=http_client),
        mode=CLIENT_MODE[chosen.mode],
        log_handler=on_log,
        elicitation_handler=on_question if chosen.elicit else None,
    )


async def visit(chosen: Namespace, report: dict[str, Any]) -> None:
    async with connect(chosen, report) as client:
        report["protocol_version"] = client.protocol_version
        if chosen.log_level and client.protocol_version < "2026":
            await client.set_logging_level(chosen.log_level)
        await contract.list_everything(chosen, report, Raw(client))
        await contract.use(chosen, report, Raw(client), lambda: call(chosen, report, client), References)
        if client.server_info is not None:
            report["server"] = contract.plain(client.server_info)


async def call(chosen: Namespace, report: dict[str, Any], client: Client) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report["progress"].append({"progress": progress, "total": total, "message": message})

    with anyio.move_on_after(chosen.cancel_after) as scope:
        result = await client.call_tool_mcp(chosen.call, chosen.args, progress_handler=on_progress)
        report["call"] = contract.plain(result)
    report["cancelled"] = scope.cancelled_caught


contract.run(visit, contract.options("fastmcp4", ("auto", "modern", "session", "sse")))
