"""A server that passes everything the public conformance tool asks of one, in both eras: the remote behind the gateway.

    python -m tests.conformance.upstream [--era both|legacy|modern] [--transport http|sse|stdio] [--port 0]

On the official SDK's lowlevel server, so that it is no child of the gateway's own code; tasks and what the SDK leaves
out are raw (tasks.py). `--era legacy` behaves as a server that has never heard of 2026-07-28.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import anyio
import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.connection import Connection
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from tests.conformance import offer, tasks
from tests.conformance.call import Call, Context, Unanswered, finished, text
from tests.peers import serving
from tests.peers.sdk_server import WithoutEnvelope, without_modern_http

RETRY_MS = 100
LEGACY_NOT_FOUND = -32002
CACHED = (
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Changes:
    """A tool and a prompt that come and go, and the word to every client that they did."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.sessions: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.tool_there = False
        self.prompt_there = False

    async def toggle_tool(self, call: Call) -> dict[str, Any]:
        self.tool_there = not self.tool_there
        await self.bus.publish(ToolsListChanged())
        for session in list(self.sessions):
            await session.send_tool_list_changed()
        return text("the tools have changed")

    async def toggle_prompt(self, call: Call) -> dict[str, Any]:
        self.prompt_there = not self.prompt_there
        await self.bus.publish(PromptsListChanged())
        for session in list(self.sessions):
            await session.send_prompt_list_changed()
        return text("the prompts have changed")


class Upstream:
    """The handlers; one per process."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.subscribed: set[str] = set()
        self.tools = dict(offer.TOOLS)
        for name, run in (
            ("test_trigger_tool_change", self.changes.toggle_tool),
            ("test_trigger_prompt_change", self.changes.toggle_prompt),
        ):
            self.tools[name] = offer.Tool(name, run, "Change a list.")

    def server(self) -> Server[Any]:
        with warnings.catch_warnings(action="ignore"):  # logging is deprecated, and what a session of 2025 uses
            server: Server[Any] = Server(
                "conformance-upstream",
                version="1",
                instructions="What the public conformance tool expects.",
                cache_hints={method: CacheHint(1000, "private") for method in CACHED},  # type: ignore[misc]
                on_list_tools=self.list_tools,
                on_call_tool=self.call_tool,
                on_list_prompts=self.list_prompts,
                on_get_prompt=self.get_prompt,
                on_list_resources=self.list_resources,
                on_list_resource_templates=self.list_templates,
                on_read_resource=self.read_resource,
                on_subscribe_resource=self.subscribe,
                on_unsubscribe_resource=self.unsubscribe,
                on_subscriptions_listen=ListenHandler(self.changes.bus),
                on_completion=self.complete,
                on_set_logging_level=self.set_level,
            )
        tasks.serve(server)
        server.middleware.append(self.remember_session)
        server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))
        return server

    async def remember_session(self, ctx: Context, call_next: Any) -> Any:
        """Sessions of the handshake eras hear of changes on their own stream; the SDK keeps no list of them."""
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            self.changes.sessions.add(ctx.session._connection)
        return await call_next(ctx)

    async def list_tools(self, context: Context, params: Any) -> Any:
        tools = [tool.listed() for tool in self.tools.values()]
        if self.changes.tool_there:
            tools.append(offer.Tool("test_comes_and_goes", offer.test_simple_text, "Not always there.").listed())
        return finished(tools=tools)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> Any:
        return await self.run(self.tools.get(params.name), context, params.arguments)

    async def list_prompts(self, context: Context, params: Any) -> Any:
        prompts = [offer.listed_prompt(prompt) for prompt in offer.PROMPTS.values()]
        if self.changes.prompt_there:
            prompts.append({"name": "test_prompt_comes_and_goes", "description": "Not always there."})
        return finished(prompts=prompts)

    async def get_prompt(self, context: Context, params: types.GetPromptRequestParams) -> Any:
        return await self.run(offer.PROMPTS.get(params.name), context, params.arguments)

    async def run(self, offered: offer.Tool | None, context: Context, arguments: Mapping[str, Any] | None) -> Any:
        if offered is None:
            raise MCPError(code=types.INVALID_PARAMS, message="no such name")
        try:
            return await offered.run(Call(context, arguments, remembers=offered.remembers))
        except Unanswered as unanswered:
            return unanswered.result

    async def list_resources(self, context: Context, params: Any) -> Any:
        return finished(resources=offer.listed_resources())

    async def list_templates(self, context: Context, params: Any) -> Any:
        return finished(resourceTemplates=[offer.listed_template()])

    async def read_resource(self, context: Context, params: types.ReadResourceRequestParams) -> Any:
        contents = offer.resource(str(params.uri))
        if contents is None:
            modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
            code = types.INVALID_PARAMS if modern else LEGACY_NOT_FOUND
            raise MCPError(code=code, message="Resource not found", data={"uri": str(params.uri)})
        return finished(contents=[contents])

    async def subscribe(self, context: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        self.subscribed.add(str(params.uri))
        return types.EmptyResult()

    async def unsubscribe(self, context: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self.subscribed.discard(str(params.uri))
        return types.EmptyResult()

    async def complete(self, context: Context, params: types.CompleteRequestParams) -> Any:
        values = [word for word in ("test", "testing", "paris") if word.startswith(params.argument.value)]
        return finished(completion={"values": values, "total": len(values), "hasMore": False})

    async def set_level(self, context: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        return types.EmptyResult()


class Events(EventStore):
    """Every event of this process, to resume from; a run of the tool has a few hundred."""

    def __init__(self) -> None:
        self.events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        try:
            stream_id, _ = self.events[int(last_event_id) - 1]
        except (ValueError, IndexError):
            return None
        for number, (stream, message) in enumerate(self.events[int(last_event_id) :], int(last_event_id) + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


def sse_application(server: Server[Any]) -> serving.Application:
    security = TransportSecuritySettings(
        allowed_hosts=[f"{host}:*" for host in LOOPBACK], allowed_origins=[f"http://{host}:*" for host in LOOPBACK]
    )
    transport = SseServerTransport("/messages/", security_settings=security)

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        async with transport.connect_sse(scope, receive, send) as (read, write):
            await server.run(read, write, opening(server))
        with contextlib.suppress(RuntimeError):  # the response is over, and Starlette wants one
            await Response()(scope, receive, send)

    return Starlette(
        routes=[Route("/sse", endpoint=_Endpoint(stream)), Mount("/messages/", app=transport.handle_post_message)]
    )


class _Endpoint:
    """An ASGI application that Starlette takes for a route's endpoint: it calls functions with a request."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.application(scope, receive, send)


def opening(server: Server[Any]) -> Any:
    changing = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    return server.create_initialization_options(changing)


def only(era: str) -> Any:
    """Refuse how the other era opens a connection."""

    async def middleware(context: Context, call_next: Any) -> Any:
        old = context.protocol_version not in MODERN_PROTOCOL_VERSIONS
        if era == "modern" and old and context.method == "initialize":
            data = {
                "supported": list(MODERN_PROTOCOL_VERSIONS),
                "requested": (context.params or {}).get("protocolVersion"),
            }
            raise MCPError(code=types.UNSUPPORTED_PROTOCOL_VERSION, message="initialize is not spoken here", data=data)
        if era == "legacy" and context.method == "server/discover":
            raise MCPError(code=types.METHOD_NOT_FOUND, message="Method not found")
        return await call_next(context)

    return middleware


async def serve_stdio(server: Server[Any], era: str) -> None:
    stdin: Any = WithoutEnvelope() if era == "legacy" else None
    async with stdio_server(stdin=stdin) as (read, write):
        await server.run(read, write, opening(server))


def main() -> None:
    parser = serving.options("The upstream of the conformance run", eras=("both", "modern", "legacy"))
    parser.set_defaults(transport="http")
    chosen = parser.parse_args()
    server = Upstream().server()
    if chosen.era != "both":
        server.middleware.append(only(chosen.era))
    if chosen.transport == "stdio":
        anyio.run(serve_stdio, server, chosen.era)
    elif chosen.transport == "sse":
        serving.serve(sse_application(server), chosen)
    else:
        application = server.streamable_http_app(event_store=Events(), retry_interval=RETRY_MS)
        serving.serve(without_modern_http(application) if chosen.era == "legacy" else application, chosen)


if __name__ == "__main__":
    main()
