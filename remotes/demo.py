"""The embedded demo remote: something to call before the operator has a remote of their own.

A stdio server on the official SDK, one tool for each thing a gateway must carry: a result, a typed result, progress,
size, failure, a question to the user. It keeps no state, opens no file and no socket, and bounds what it is asked for;
it never imports Django or the gateway: to them it is one more foreign process (`python -m remotes.demo`).
"""

from __future__ import annotations

import asyncio
import gc
from typing import Annotated

# The SDK builds some thousand pydantic classes while it is imported, none of which is garbage: the collector would only
# walk them again and again. Measured: 0.95 s until the first answer instead of 1.09 s.
gc.disable()

from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, MCPServer, Resolve  # noqa: E402
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402
from mcp_types import ToolAnnotations  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

gc.enable()

BIG_MAX_BYTES = 32 * 1024 * 1024  # above every limit of the gateway, below what would hurt a small machine
SLOW_MAX_S = 120.0  # longer than the default deadline of a call, so that a timeout can be seen
READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

demo = MCPServer("demo", instructions="Harmless tools to try a gateway with.", version="1", log_level="WARNING")


class Favourite(BaseModel):
    colour: str = Field(description="Any colour you like")


async def ask_for_favourite() -> Elicit[Favourite]:
    return Elicit("What is your favourite colour?", Favourite)


@demo.tool(annotations=READ_ONLY)
async def echo(text: str) -> str:
    """Say it again."""
    return text


@demo.tool(annotations=READ_ONLY)
async def add(a: float, b: float) -> float:
    """Add two numbers; the result is structured."""
    return a + b


@demo.tool(annotations=READ_ONLY)
async def slow(
    ctx: Context,
    seconds: Annotated[float, Field(ge=0, le=SLOW_MAX_S)] = 1.0,
    steps: Annotated[int, Field(ge=1, le=1000)] = 5,
) -> str:
    """Take a while, and report each step as progress."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step} of {steps}")
        await asyncio.sleep(seconds / steps)
    return f"{steps} steps in {seconds} s"


@demo.tool(annotations=READ_ONLY, structured_output=False)
async def big(n: Annotated[int, Field(ge=0, le=BIG_MAX_BYTES)]) -> str:
    """Answer with n bytes of text."""
    return "x" * n


@demo.tool(annotations=READ_ONLY)
async def fail(message: str = "as you wished") -> str:
    """Fail: the result says isError, and the gateway counts no failure of the remote."""
    raise ToolError(message)


@demo.tool(annotations=READ_ONLY)
async def ask(favourite: Annotated[ElicitationResult[Favourite], Resolve(ask_for_favourite)]) -> str:
    """Ask the user a question with a form, and repeat the answer."""
    if isinstance(favourite, AcceptedElicitation):
        return f"Your favourite colour is {favourite.data.colour}."
    return f"The question was answered with {favourite.action}."


@demo.prompt()
async def greet(name: str) -> str:
    """Ask a model for a greeting."""
    return f"Please greet {name} in one friendly sentence."


@demo.resource("demo://about", mime_type="text/plain")
async def about() -> str:
    """What this server is."""
    return "The demo remote of the gateway. Remove it from the configuration whenever you like."


if __name__ == "__main__":
    gc.freeze()  # what was imported stays: later collections need not look at it
    demo.run("stdio")
