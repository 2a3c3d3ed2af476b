"""What a request does, whatever transport and era it came by: one method after another, from a `Call` to what was `Served`.

A request reads the snapshot and the catalogue once and keeps both to its end. What a key may not use does not exist for it: the
answer is that for an unknown name.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.calls import Served, Visit, mismatched_header, refusal
from gateway.catalog import SIGNATURE, Catalog, Entry, Joined
from gateway.rounds import Rounds
from keys.principal import Kind
from mcpserver.protocol import codes, jsonrpc, versions
from mcpserver.protocol.inbound import Call
from remotes import status
from remotes.config.snapshot import Snapshot
from remotes.upstream.pool import Pool

_INSTRUCTIONS_MAX = 8192
_DISCOVER_TTL_MS = 300_000
_METHOD_KIND: dict[str, Kind] = {"tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource"}


class Pipeline:
    def __init__(self, catalog: Catalog, pool: Pool, rounds: Rounds) -> None:
        self._catalog = catalog
        self._pool = pool
        self._rounds = rounds
        self._serve: dict[str, Callable[[Visit], Awaitable[Served]]] = {
            "server/discover": self._discover,
            "ping": self._ping,
            "completion/complete": self._complete,
            **dict.fromkeys(versions.LISTS, self._list),
            **dict.fromkeys(versions.ROUTED, self._routed),
        }

    async def serve(self, visit: Visit) -> Served:
        """The answer to one request; never raises for what a client or a remote did."""
        serve = self._serve.get(visit.call.method)
        if serve is None:
            return refusal(visit.call, codes.METHOD_NOT_FOUND, f"unknown method {visit.call.method}")
        try:
            return await serve(visit)
        except jsonrpc.Malformed as error:
            return refusal(visit.call, error.code, error.message)

    def capabilities(self, *, modern: bool) -> dict[str, Any]:
        """What the gateway offers: the same while remotes come and go, because a handshake client reads it once."""
        changes = {"listChanged": True}
        offered = {"tools": changes, "prompts": changes, "resources": changes, "completions": {}, "logging": {}}
        return offered if not modern else offered | {"extensions": {}}

    def instructions(self, joined_names: list[tuple[str, str]]) -> str:
        """What the remotes say about themselves, each under its name, bounded."""
        parts = [f"## {name}\n{text}" for name, text in joined_names if text]
        return "\n\n".join(parts)[:_INSTRUCTIONS_MAX]

    def remote_instructions(self, snapshot: Snapshot) -> str:
        told = [
            (name, kept.listing.greeting.instructions)
            for name in snapshot.remotes
            if (kept := self._catalog.kept(name)) is not None and kept.listing is not None
        ]
        return self.instructions(told)

    async def _discover(self, visit: Visit) -> Served:
        result: dict[str, Any] = {
            "resultType": "complete",
            "supportedVersions": list(versions.SUPPORTED),
            "capabilities": self.capabilities(modern=True),
            "ttlMs": _DISCOVER_TTL_MS,
            "cacheScope": "private",
            "_meta": SIGNATURE,
        }
        if instructions := self.remote_instructions(visit.snapshot):
            result["instructions"] = instructions
        return Served(jsonrpc.result(visit.call.id, jsonrpc.encode(result)))

    async def _ping(self, visit: Visit) -> Served:
        return Served(jsonrpc.result(visit.call.id, b"{}"))

    async def _list(self, visit: Visit) -> Served:
        """Everything on one page, so any cursor is one that was never given out."""
        call = visit.call
        if "cursor" in call.params:
            return refusal(call, codes.INVALID_PARAMS, "unknown cursor: lists have one page")
        joined = await self._catalog.ready()
        return Served(jsonrpc.result(call.id, joined.result(call.method, visit.principal, modern=call.modern)))

    async def _routed(self, visit: Visit) -> Served:
        call = visit.call
        field = versions.ROUTED[call.method]
        name = jsonrpc.text(call.params.get(field))
        if name is None:
            return refusal(call, codes.INVALID_PARAMS, f"{call.method} needs {field}, a string")
        visit.name = name
        entry = _find(self._catalog.joined, call.method, name) or _find(await self._catalog.ready(), call.method, name)
        if entry is None or not visit.principal.allows(_METHOD_KIND[call.method], entry.remote, entry.own):
            return _unknown(call, name)
        if call.method == "tools/call":
            wrong = _wrong_arguments(visit, entry)
            if wrong is not None:
                return wrong
        return await self._forward(visit, entry)

    async def _complete(self, visit: Visit) -> Served:
        call = visit.call
        ref = jsonrpc.fields(call.params.get("ref"), "ref")
        joined = await self._catalog.ready()
        kind, name = jsonrpc.text(ref.get("type")), jsonrpc.text(ref.get("name")) or jsonrpc.text(ref.get("uri"))
        if kind not in ("ref/prompt", "ref/resource") or name is None:
            return refusal(
                call, codes.INVALID_PARAMS, "ref must be a ref/prompt with a name or a ref/resource with a uri"
            )
        visit.name = name
        entry = joined.prompt(name) if kind == "ref/prompt" else joined.template(name) or joined.resource(name)
        if entry is None or not visit.principal.allows(
            "prompt" if kind == "ref/prompt" else "resource", entry.remote, entry.own
        ):
            return refusal(call, codes.INVALID_PARAMS, f"unknown {kind.removeprefix('ref/')} {name}")
        return await self._forward(visit, entry)

    async def _forward(self, visit: Visit, entry: Entry) -> Served:
        visit.remote = entry.remote
        spec = visit.snapshot.remotes.get(entry.remote)
        upstream = self._pool.get(entry.remote)
        if spec is None or upstream is None:
            why = (status.refusal(spec) if spec is not None else None) or f"{entry.remote} is no longer configured"
            return refusal(visit.call, codes.INVALID_PARAMS, why)
        return await self._rounds.serve(visit, entry, upstream)


def _find(joined: Joined, method: str, name: str) -> Entry | None:
    match method:
        case "tools/call":
            return joined.tool(name)
        case "prompts/get":
            return joined.prompt(name)
        case _:
            return joined.resource(name)


def _unknown(call: Call, name: str) -> Served:
    """server/tools and server/resources, "Error Handling"; the code for a resource changed in 2026-07-28."""
    if call.method != "resources/read":
        return refusal(call, codes.INVALID_PARAMS, f"unknown {_METHOD_KIND[call.method]} {name}")
    code = codes.INVALID_PARAMS if call.modern else codes.RESOURCE_NOT_FOUND
    return refusal(call, code, "resource not found", {"uri": name})


def _wrong_arguments(visit: Visit, entry: Entry) -> Served | None:
    call = visit.call
    arguments = call.params.get("arguments")
    if arguments is not None and bytes(arguments)[:1] != b"{":
        return refusal(call, codes.INVALID_PARAMS, "arguments must be an object")
    if call.modern and entry.paths:
        wrong = mismatched_header(call, entry, visit.headers)
        if wrong is not None:
            return refusal(call, codes.HEADER_MISMATCH, wrong)
    return None
