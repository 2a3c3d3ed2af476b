"""What the peers offer, the same on mcp 1.x and 2.x: tools, prompts, resources, completions that a gateway must carry.

Only what both SDKs spell alike is here; a question to the user and an error of the protocol are in the servers.
"""

from __future__ import annotations

import asyncio
import base64
import os
import warnings
from typing import Any, Literal

import mcp.types as types
from pydantic import BaseModel

from tests.peers.serving import journal

try:
    from mcp.server.mcpserver import Context, Image
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:  # mcp 1.x
    from mcp.server.fastmcp import Context, Image  # type: ignore[attr-defined,no-redef]
    from mcp.server.fastmcp.exceptions import ToolError  # type: ignore[import-not-found,no-redef]

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CITIES = ("Paris", "Prague", "Porto", "Berlin")
STYLES = ("plain", "polite", "pirate")
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
Level = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
READ_ONLY = types.ToolAnnotations.model_validate({"readOnlyHint": True, "idempotentHint": True})

threshold = "debug"  # what logging/setLevel asked for, for the whole process: a peer has one client, the gateway


class Weather(BaseModel):
    city: str
    celsius: float
    wind: dict[str, float]


async def echo(text: str) -> str:
    """Say it again."""
    return text


async def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


async def structured(city: str = "Paris") -> Weather:
    """An output schema, and structured content that keeps to it."""
    return Weather(city=city, celsius=21.5, wind={"kmh": 12.0})


async def image() -> Image:
    """A picture of one pixel."""
    return Image(data=PIXEL, format="png")


async def link() -> list[Any]:
    """A link to a resource, and a resource inside the result."""
    return [
        types.ResourceLink.model_validate({"type": "resource_link", "uri": "peer://motd", "name": "motd"}),
        types.EmbeddedResource.model_validate(
            {"type": "resource", "resource": {"uri": "peer://city/Paris", "mimeType": "text/plain", "text": "Paris"}}
        ),
    ]


async def slow(ctx: Context, n: int = 3, seconds: float = 0.3) -> str:
    """Report n steps of progress over some seconds, the last well before the result: clients forget to wait for it."""
    for step in range(1, n + 1):
        await ctx.report_progress(step, n, f"step {step}")
        await asyncio.sleep(seconds / n)
    return f"{n} steps"


async def log(ctx: Context, text: str = "hello", level: Level = "info", count: int = 1) -> str:
    """Send log messages, then answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2.x calls logging deprecated, which is right and not our point
        for number in range(count):
            if LEVELS.index(level) >= LEVELS.index(threshold):
                await ctx.log(level, f"{text} {number}", logger_name="peer")
    return f"{count} messages"


async def cancellable(tag: str, seconds: float = 60.0) -> str:
    """Wait, and write into the journal how that began and ended."""
    journal("started", tag=tag)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        journal("cancelled", tag=tag)
        raise
    journal("finished", tag=tag)
    return f"waited {seconds} s"


async def big(n: int) -> str:
    """Answer with n bytes of text."""
    return "x" * n


async def fail(message: str = "as you wished") -> str:
    """Fail: a result with isError."""
    raise ToolError(message)


async def crash(tag: str = "") -> str:
    """Die in the middle of the call, without a word."""
    journal("crashed", tag=tag)
    os._exit(70)


async def headers(ctx: Context) -> dict[str, str]:
    """The HTTP headers this very request came with; none on stdio."""
    request = ctx.request_context.request
    return dict(request.headers) if request is not None else {}


async def environment(name: str) -> str:
    """One variable of the environment the server was started with."""
    return os.environ.get(name, "")


def greet(name: str, style: str = "plain") -> str:
    """Ask for a greeting."""
    return f"Greet {name} in a {style} way."


def motd() -> str:
    """The message of the day."""
    return "Real peers, real sockets."


def pixel() -> bytes:
    """One pixel as bytes."""
    return PIXEL


def city(name: str) -> str:
    """What there is to know about a city."""
    return f"{name} is a city."


async def complete(reference: Any, argument: Any, context: Any) -> Any:
    """Values that begin with what was typed."""
    values = {"style": STYLES, "name": CITIES}.get(argument.name, ())
    found = [value for value in values if value.lower().startswith(argument.value.lower())]
    return types.Completion(values=found, total=len(found))


def register(server: Any) -> None:
    """Offer everything on an MCPServer (2.x) or a FastMCP (1.x): both know these decorators."""
    typed: tuple[Any, ...] = (add, structured, slow, log, cancellable, crash, headers, environment)
    plain: tuple[Any, ...] = (echo, big, fail, image, link)
    for tool in typed:
        server.tool()(tool)
    for tool in plain:
        server.tool(annotations=READ_ONLY, structured_output=False)(tool)
    server.prompt()(greet)
    server.resource("peer://motd", mime_type="text/plain")(motd)
    server.resource("peer://pixel", mime_type="image/png")(pixel)
    server.resource("peer://city/{name}", mime_type="text/plain")(city)
    server.completion()(complete)


def set_level(level: str) -> None:
    global threshold
    threshold = level
    journal("level", level=level)
