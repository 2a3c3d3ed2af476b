"""The official Python SDK 2.x: 2026-07-28, sessions of 2025, HTTP+SSE, or whatever it negotiates. See contract.py."""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

import warnings
from argparse import Namespace
from contextlib import asynccontextmanager
from typing import Any

import contract

contract.inside("sdk2")

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
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


@asynccontextmanager
async def transport(chosen: Namespace, report: dict[str, Any]):
    def client(**given: Any) -> httpx2.AsyncClient:
        made = create_mcp_http_client(**given)
        made.event_hooks = contract.watch_status(report)
        return made

    if chosen.mode == "sse":
        async with sse_client(chosen.url, headers=contract.headers(chosen), httpx_client_factory=client) as streams:
            yield streams
    else:
        async with (
            client(headers=contract.headers(chosen)) as http,
            streamable_http_client(chosen.url, http_client=http) as streams,
        ):
            yield streams


def connect(chosen: Namespace, report: dict[str, Any], over: Any) -> Client:
    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        report["logs"].append(contract.plain(params))

    async def on_question(_context: Any, params: Any) -> types.ElicitResult:
        report["elicitations"].append(contract.plain(params))
        return types.ElicitResult(**contract.elicitation(chosen))

    return Client(
        over,
        mode=CLIENT_MODE[chosen.mode],
        logging_callback=on_log,
        log_level=chosen.log_level,
        elicitation_callback=on_question if chosen.elicit else None,
        cache=None,  # what the server says now, not what it said before
    )


async def visit(chosen: Namespace, report: dict[str, Any], over: Any = None) -> None:
    async with connect(chosen, report, over or transport(chosen, report)) as client:
        report["protocol_version"] = client.protocol_version
        if chosen.log_level and client.protocol_version < "2026":
            with warnings.catch_warnings(action="ignore"):
                await client.set_logging_level(chosen.log_level)
        await contract.list_everything(chosen, report, client)
        await contract.use(chosen, report, client, lambda: call(chosen, report, client), References)
        if client.server_info is not None:  # in 2026-07-28 known only from an answer
            report["server"] = contract.plain(client.server_info)


async def call(chosen: Namespace, report: dict[str, Any], client: Client) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report["progress"].append({"progress": progress, "total": total, "message": message})

    with anyio.move_on_after(chosen.cancel_after) as scope:
        report["call"] = contract.plain(await client.call_tool(chosen.call, chosen.args, progress_callback=on_progress))
    report["cancelled"] = scope.cancelled_caught


if __name__ == "__main__":
    contract.run(visit, contract.options("sdk2", ("auto", "modern", "session", "sse")))
