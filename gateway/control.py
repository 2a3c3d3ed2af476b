"""What this worker answers on its control socket: its live facts, and calls made by the operator on this machine.

The socket is 0600: who can open it can read the database too. Nothing here changes the configuration.
"""

import asyncio
import contextlib
import json
import os
from typing import Any

from msgspec import Raw

from gateway import access, metrics, report, serving
from gateway.calls import Visit
from gateway.catalog import inventory
from gateway.runtime import Runtime
from keys.principal import Principal
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.protocol import jsonrpc, versions
from mcpserver.protocol.inbound import Call
from remotes import status
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failure, Refusal

_OPERATOR = Principal(key_id="operator", name="operator")
_PING_S = 10.0
# How long a reset waits for the remote to be there again; it goes on coming back without anybody waiting.
_RESET_S = 8.0


class Control:
    """Answers `{"op": …}` requests of `mcpserver.lib.control`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("op"):
            case "status":
                return self._runtime.status()
            case "metrics":
                return {"ok": True, "pid": os.getpid(), "families": await asyncio.to_thread(metrics.families)}
            case "reload":
                return await self._runtime.reload()
            case "tools":
                return await self._tools(hidden=bool(request.get("all")), key=str(request.get("key") or ""))
            case "keys":
                return {"ok": True, "closed": await self._runtime.reread_keys()}
            case "call":
                return await self._call(str(request["name"]), request.get("arguments") or {})
            case "ping":
                return await self._ping(str(request["remote"]))
            case "reset":
                return await self._reset(str(request["remote"]))
            case "adopt":
                serving.adopt(int(request["number"]))
                return {"ok": True}
            case "release":
                serving.release(int(request["number"]))
                return {"ok": True}
            case other:
                raise GatewayError("unknown_op", f"this process does not know the operation {other!r}")

    async def _tools(self, *, hidden: bool, key: str) -> dict[str, Any]:
        """Everything, or what one key sees; `hidden` ones are hidden from every key."""
        principal = self._named(key) if key else _OPERATOR
        runtime = self._runtime
        joined = await runtime.catalog.ready()
        tools = inventory.offered(joined, runtime.catalog, runtime.snapshot, principal)
        if hidden:
            tools += inventory.hidden(joined, runtime.catalog, runtime.snapshot, runtime.pins)
        return {"ok": True, "tools": tools, "problems": report.problems(runtime)}

    def _named(self, key: str) -> Principal:
        found = self._runtime.authenticator.named(key)
        if found is None:
            hint = "see them with: mcpkey list"
            raise GatewayError(
                "not_found", f"no key with the name or id {key!r} opens", hint=hint, exit_code=Exit.NOT_FOUND
            )
        return found

    async def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        call = Call(
            id=b"1",
            method="tools/call",
            params={"name": Raw(jsonrpc.encode(name)), "arguments": Raw(jsonrpc.encode(arguments))},
            meta={},
            revision=versions.NEWEST_HANDSHAKE,
        )
        entry = (await self._runtime.catalog.ready()).tool(name)
        if entry is None:
            raise GatewayError(
                "not_found", f"there is no tool {name}", hint="see them with: mcp tools list", exit_code=Exit.NOT_FOUND
            )
        clock = self._runtime.clock
        began = clock.monotonic()
        visit = Visit(call, _OPERATOR, self._runtime.snapshot, lambda method, params: None, {})
        access.begin("mcp tools call")
        served = await self._runtime.pipeline.serve(visit)
        seconds, size = clock.monotonic() - began, len(served.body)
        self._runtime.record.tell(visit, "control", served.verdict, served.code, size, seconds)
        message = json.loads(served.body)
        error, result = message.get("error"), message.get("result")
        ok = error is None and not (result or {}).get("isError", False)
        document: dict[str, Any] = {"ok": ok, "latency_ms": round(seconds * 1000, 1)}
        if error is not None:
            return document | {"error": "refused", "message": error.get("message", ""), "code": error.get("code")}
        if not ok:
            document |= {"error": "tool_error", "message": f"{name} answered with an error"}
        return document | {"result": result}

    async def _reset(self, name: str) -> dict[str, Any]:
        """Forget what a remote did and connect to it anew; how it is then, if it says so soon."""
        runtime = self._runtime
        spec = runtime.snapshot.remotes.get(name)
        if spec is None:
            raise GatewayError("not_found", f"there is no remote {name}", exit_code=Exit.NOT_FOUND)
        if (why := status.refusal(spec)) is not None:
            raise GatewayError("not_called", why, hint=f"see it with: mcp remote show {name}")
        before = runtime.circuits.document(name)["state"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RESET_S):
                await runtime.reset(name)
        facts = runtime.status()["mcps"][name]
        told = {key: facts[key] for key in ("status", "circuit", "last_error")}
        return {"ok": True, "name": name, "circuit_before": before} | told

    async def _ping(self, name: str) -> dict[str, Any]:
        """Ask a remote for a sign of life over its warm connection."""
        upstream = self._runtime.pool.get(name)
        if upstream is None:
            raise GatewayError("not_found", f"there is no remote {name} to ask", exit_code=Exit.NOT_FOUND)
        loop = asyncio.get_running_loop()
        began = loop.time()
        greeting = upstream.greeting
        method = "server/discover" if greeting is not None and greeting.modern else "ping"
        outcome = await upstream.exchange(Exchange(method, {}, deadline=began + _PING_S))
        latency_ms = round((loop.time() - began) * 1000, 1)
        match outcome:
            case Answer() | Refusal():  # a refusal of ping is a sign of life too
                if (kept := self._runtime.catalog.kept(name)) is not None:
                    kept.latency_ms = latency_ms
                greeting = upstream.greeting
                return {
                    "ok": True,
                    "latency_ms": latency_ms,
                    "era": greeting.revision if greeting else None,
                    "transport": greeting.transport if greeting else None,
                }
            case Failure():
                return {
                    "ok": False,
                    "error": str(outcome.fault),
                    "phase": outcome.phase,
                    "message": outcome.message,
                    "latency_ms": latency_ms,
                }
