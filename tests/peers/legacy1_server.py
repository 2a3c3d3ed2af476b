"""A real server on mcp 1.x, which has never heard of 2026-07-28: Streamable HTTP up to 2025-11-25, HTTP+SSE, stdio.

tests/.tools/sdk1/bin/python tests/peers/legacy1_server.py --transport stdio|http|sse [--port 0] [--key KEY]
"""

# The names are those of mcp 1.x, which is not in the environment that mypy sees.
# mypy: ignore-errors
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs as a plain script, from any folder

from mcp.server.fastmcp import Context, FastMCP
from mcp.shared.exceptions import McpError
from mcp.types import ErrorData
from pydantic import BaseModel

from tests.peers import offer, serving


class Favourite(BaseModel):
    colour: str


async def ask(ctx: Context) -> str:
    """Ask the user, and repeat the answer."""
    answer = await ctx.elicit("What is your favourite colour?", Favourite)
    return answer.data.colour if answer.action == "accept" else answer.action


async def protocol_error(code: int = -32050, message: str = "no") -> str:
    """Ask for an error of JSON-RPC; 1.x makes a failed result of it."""
    raise McpError(ErrorData(code=code, message=message, data={"from": "peer"}))


async def grow(name: str, ctx: Context) -> str:
    """Offer one more tool, and tell the client."""
    ctx.fastmcp.add_tool(offer.echo, name=name)
    await ctx.session.send_tool_list_changed()
    return name


def build(chosen: Any) -> FastMCP:
    server: FastMCP = FastMCP(
        chosen.name or "sdk1-peer", log_level="WARNING", json_response=chosen.json, stateless_http=chosen.stateless
    )
    offer.register(server)
    for tool in (ask, protocol_error, grow):
        server.tool(structured_output=False)(tool)

    @server._mcp_server.set_logging_level()
    async def set_level(level: str) -> None:
        offer.set_level(level)

    return server


def main() -> None:
    chosen = serving.options("A peer on mcp 1.x", eras=("legacy",)).parse_args()
    server = build(chosen)
    match chosen.transport:
        case "stdio":
            server.run("stdio")
        case "sse":
            serving.serve(server.sse_app(), chosen)
        case "http":
            serving.serve(server.streamable_http_app(), chosen)


if __name__ == "__main__":
    main()
