"""A real server on mcp 2.x: both eras, stdio, Streamable HTTP and HTTP+SSE.

    python tests/peers/sdk_server.py --transport stdio|http|sse [--era both|modern|legacy] [--port 0] [--key KEY]

`--era legacy` makes it behave like a server that has never heard of 2026-07-28; legacy1_server.py is one that really
has not, where its environment is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs as a plain script, from any folder

from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, MCPServer, Resolve
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    EmptyResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from tests.peers import offer, serving

ENVELOPE_PREFIX = "io.modelcontextprotocol/"


class Favourite(BaseModel):
    colour: str


async def ask_for_favourite() -> Elicit[Favourite]:
    return Elicit("What is your favourite colour?", Favourite)


async def ask(favourite: Annotated[ElicitationResult[Favourite], Resolve(ask_for_favourite)]) -> str:
    """Ask the user, and repeat the answer."""
    return favourite.data.colour if isinstance(favourite, AcceptedElicitation) else favourite.action


async def protocol_error(code: int = -32050, message: str = "no") -> str:
    """Answer with an error of JSON-RPC instead of a result."""
    raise MCPError(code=code, message=message, data={"from": "peer"})


async def grow(name: str, ctx: Context) -> str:
    """Offer one more tool, and tell clients of both eras."""
    ctx.mcp_server.add_tool(offer.echo, name=name)
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return name


async def touch(uri: str, ctx: Context) -> str:
    """Say that a resource changed, in the words of both eras: to sessions that subscribed to it, and to listeners."""
    await ctx.notify_resource_updated(uri)
    if uri in subscribed:
        await ctx.session.send_resource_updated(uri)
    return uri


subscribed: set[str] = set()  # for the whole process: a peer has one client, the gateway


async def subscribe(context: Any, params: SubscribeRequestParams) -> EmptyResult:
    serving.journal("subscribed", tag=str(params.uri))
    subscribed.add(str(params.uri))
    return EmptyResult()


async def unsubscribe(context: Any, params: UnsubscribeRequestParams) -> EmptyResult:
    serving.journal("unsubscribed", tag=str(params.uri))
    subscribed.discard(str(params.uri))
    return EmptyResult()


def build(name: str, era: str) -> MCPServer:
    server = MCPServer(name, version="2", instructions="A peer for tests.", log_level="WARNING")
    offer.register(server)
    for tool in (ask, protocol_error, grow, touch):
        server.tool(structured_output=False)(tool)
    if era != "modern":
        # MCPServer leaves this method out since 2026-07-28 removed it; sessions of 2025 still use it.
        server._lowlevel_server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
        server._lowlevel_server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        server._lowlevel_server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
    if era != "both":
        server.middleware.append(only(era))
    return server


async def set_level(context: Any, params: SetLevelRequestParams) -> EmptyResult:
    offer.set_level(params.level)
    return EmptyResult()


def only(era: str) -> Any:
    """Refuse how the other era opens a connection."""

    async def middleware(context: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        if era == "modern" and context.method == "initialize":
            data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": context.params.get("protocolVersion")}
            raise MCPError(code=UNSUPPORTED_PROTOCOL_VERSION, message="initialize is not spoken here", data=data)
        if era == "legacy" and context.method == "server/discover":
            raise MCPError(code=METHOD_NOT_FOUND, message="Method not found")
        return await call_next(context)

    return middleware


class WithoutEnvelope:
    """stdin as an old server reads it: the `_meta` keys of 2026-07-28 mean nothing, so they open no modern connection."""

    def __init__(self) -> None:
        self.lines = anyio.wrap_file(sys.stdin)

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self.lines:
            try:
                message = json.loads(line)
                meta = message["params"]["_meta"]
                message["params"]["_meta"] = {k: v for k, v in meta.items() if not k.startswith(ENVELOPE_PREFIX)}
                yield json.dumps(message) + "\n"
            except (ValueError, TypeError, KeyError, AttributeError):
                yield line


async def run_stdio(server: MCPServer, era: str) -> None:
    stdin: Any = WithoutEnvelope() if era == "legacy" else None
    async with stdio_server(stdin=stdin) as (read, write):
        low = server._lowlevel_server
        await low.run(read, write, low.create_initialization_options())


def without_modern_http(application: serving.Application) -> serving.Application:
    """What an SDK of 2025 answers to a version it does not know."""

    async def old(scope: serving.Scope, receive: Any, send: Any) -> None:
        version = dict(scope.get("headers", ())).get(b"mcp-protocol-version", b"").decode("latin-1")
        if version and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            error = {"code": -32600, "message": f"Bad Request: Unsupported protocol version: {version}"}
            await serving.refuse(send, 400, {"jsonrpc": "2.0", "id": "server-error", "error": error})
        else:
            await application(scope, receive, send)

    return old


def main() -> None:
    chosen = serving.options("A peer on mcp 2.x", eras=("both", "modern", "legacy")).parse_args()
    server = build(chosen.name or "sdk2-peer", chosen.era)
    match chosen.transport:
        case "stdio":
            anyio.run(run_stdio, server, chosen.era)
        case "sse":
            serving.serve(server.sse_app(), chosen)
        case "http":
            application = server.streamable_http_app(json_response=chosen.json, stateless_http=chosen.stateless)
            serving.serve(without_modern_http(application) if chosen.era == "legacy" else application, chosen)


if __name__ == "__main__":
    main()
