"""The official Python SDK 1.x: Streamable HTTP with sessions up to 2025-11-25, and HTTP+SSE. See contract.py."""

# ruff: noqa: E402 - the environment is chosen before its packages are imported
from __future__ import annotations

import asyncio
from argparse import Namespace
from contextlib import asynccontextmanager
from typing import Any

import contract

contract.inside("sdk1")

import httpx
import mcp.types as types
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from pydantic import AnyUrl


class References:
    uri = AnyUrl

    @staticmethod
    def template(uri: str) -> types.ResourceTemplateReference:
        return types.ResourceTemplateReference(type="ref/resource", uri=uri)

    @staticmethod
    def prompt(name: str) -> types.PromptReference:
        return types.PromptReference(type="ref/prompt", name=name)


@asynccontextmanager
async def streams(chosen: Namespace, report: dict[str, Any]):
    def client(**given: Any) -> httpx.AsyncClient:
        made = create_mcp_http_client(**given)
        made.event_hooks = contract.watch_status(report)
        return made

    if chosen.mode == "sse":
        async with sse_client(chosen.url, headers=contract.headers(chosen), httpx_client_factory=client) as (
            read,
            write,
        ):
            yield read, write
    else:
        async with (
            client(headers=contract.headers(chosen)) as http,
            streamable_http_client(chosen.url, http_client=http) as (read, write, _session_id),
        ):
            yield read, write


async def visit(chosen: Namespace, report: dict[str, Any]) -> None:
    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        report["logs"].append(contract.plain(params))

    async def on_question(_context: Any, params: Any) -> types.ElicitResult:
        report["elicitations"].append(contract.plain(params))
        return types.ElicitResult(**contract.elicitation(chosen))

    async with (
        streams(chosen, report) as (read, write),
        ClientSession(
            read, write, logging_callback=on_log, elicitation_callback=on_question if chosen.elicit else None
        ) as session,
    ):
        welcome = await session.initialize()
        report["protocol_version"] = str(welcome.protocolVersion)
        report["server"] = contract.plain(welcome.serverInfo)
        if chosen.log_level:
            await session.set_logging_level(chosen.log_level)
        await contract.list_everything(chosen, report, session)
        await contract.use(chosen, report, session, lambda: call(chosen, report, session), References)


async def call(chosen: Namespace, report: dict[str, Any], session: ClientSession) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report["progress"].append({"progress": progress, "total": total, "message": message})

    request_id = session._request_id  # 1.x sends no cancellation of its own, and tells nobody the id it will use next
    calling = asyncio.create_task(session.call_tool(chosen.call, chosen.args, progress_callback=on_progress))
    done, _ = await asyncio.wait([calling], timeout=chosen.cancel_after)
    if done:
        report["call"] = contract.plain(calling.result())
        return
    params = types.CancelledNotificationParams(requestId=request_id, reason="the test said so")
    await session.send_notification(
        types.ClientNotification(types.CancelledNotification(method="notifications/cancelled", params=params))
    )
    calling.cancel()
    report["cancelled"] = True


contract.run(visit, contract.options("sdk1", ("session", "sse")))
