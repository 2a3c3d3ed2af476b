"""What a request does, whatever transport and era it came by: one method after another, from a `Call` to what was `Served`.

A request reads the snapshot and the catalogue once and keeps both to its end. What a key may not use does not exist for it: the
answer is that for an unknown name.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.admission.rates import Rates
from gateway.calls import Served, Visit, error, mismatched_header, refusal, worded
from gateway.catalog.catalog import Catalog
from gateway.catalog.joined import SIGNATURE
from gateway.catalog.listing import Entry, unavailable
from gateway.cuts import SCHEME, Cuts
from gateway.rounds.rounds import Rounds, lists_tasks
from gateway.rounds.tasks import CAPABILITY, EXTENSION, TaskIds
from gateway.sessions.subscriptions import URIS_MAX, Subscriptions, TooMany
from keys.principal import Kind, Principal
from mcpserver.protocol import codes, jsonrpc, versions
from mcpserver.protocol.inbound import Call
from mcpserver.protocol.naming import SEPARATOR
from remotes import status
from remotes.config.snapshot import TIMEOUT_S, Snapshot
from remotes.upstream.client import Upstream
from remotes.upstream.pool import Pool

_INSTRUCTIONS_MAX = 8192
_DISCOVER_TTL_MS = 300_000
_FROM_MEMORY = frozenset((*versions.LISTS, "ping", "server/discover"))
_METHOD_KIND: dict[str, Kind] = {"tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource"}


class Pipeline:
    def __init__(
        self,
        catalog: Catalog,
        pool: Pool,
        rounds: Rounds,
        tasks: TaskIds,
        subscriptions: Subscriptions,
        rates: Rates,
        cuts: Cuts,
    ) -> None:
        self._cuts = cuts
        self._rates = rates
        self._subscriptions = subscriptions
        self._tasks = tasks
        self._catalog = catalog
        self._pool = pool
        self._rounds = rounds
        self._serve: dict[str, Callable[[Visit], Awaitable[Served]]] = {
            "server/discover": self._discover,
            "ping": self._ping,
            "completion/complete": self._complete,
            **dict.fromkeys(versions.LISTS, self._list),
            **dict.fromkeys(versions.ROUTED, self._routed),
            **dict.fromkeys(versions.TASKS, self._task),
            "tasks/list": self._task_list,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
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
        except (
            RecursionError
        ):  # what one reader still took may be too deep for the next, who stands deeper in the stack
            return refusal(visit.call, codes.INVALID_PARAMS, "nested too deeply")

    def time_for(self, visit: Visit) -> tuple[str, float]:
        """Where a request will go, as far as that is known, and how long it may take in all: none for what memory answers."""
        call = visit.call
        if call.method in _FROM_MEMORY:
            return "", 0.0
        name = jsonrpc.text(call.params.get(versions.ROUTED[call.method])) if call.method in versions.ROUTED else None
        entry = self._find(call.method, name, visit.principal) if name else None
        spec = visit.snapshot.remotes.get(entry.remote) if entry is not None else None
        return (spec.name, spec.timeout_s) if spec is not None else ("", TIMEOUT_S)

    def capabilities(self, *, modern: bool) -> dict[str, Any]:
        """What the gateway offers: the same while remotes come and go, because a handshake client reads it once."""
        changes = {"listChanged": True}
        offered = {"tools": changes, "prompts": changes, "resources": changes | {"subscribe": True}}
        offered |= {"completions": {}, "logging": {}}
        return offered | ({"extensions": {EXTENSION: {}}} if modern else {"tasks": CAPABILITY})

    def instructions(self, joined_names: list[tuple[str, str]]) -> str:
        """What the remotes say about themselves, each under its name, bounded."""
        parts = [f"## {name}\n{text}" for name, text in joined_names if text]
        return "\n\n".join(parts)[:_INSTRUCTIONS_MAX]

    def remote_instructions(self, snapshot: Snapshot, principal: Principal) -> str:
        told = [
            (name, kept.listing.greeting.instructions)
            for name in snapshot.remotes
            if principal.reaches(name) and (kept := self._catalog.kept(name)) is not None and kept.listing is not None
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
        if instructions := self.remote_instructions(visit.snapshot, visit.principal):
            result["instructions"] = instructions
        return Served(jsonrpc.result(visit.call.id, jsonrpc.encode(result)))

    async def _ping(self, visit: Visit) -> Served:
        return Served(jsonrpc.result(visit.call.id, b"{}"))

    async def _list(self, visit: Visit) -> Served:
        """Everything on one page, so any cursor is one that was never given out."""
        call = visit.call
        if "cursor" in call.params:
            return refusal(call, codes.INVALID_PARAMS, "unknown cursor: lists have one page")
        listed = self._catalog.joined.result(call.method, visit.principal, modern=call.modern, revision=call.revision)
        return Served(jsonrpc.result(call.id, listed))

    async def _routed(self, visit: Visit) -> Served:
        call = visit.call
        field = versions.ROUTED[call.method]
        name = jsonrpc.text(call.params.get(field))
        if name is None:
            return refusal(call, codes.INVALID_PARAMS, f"{call.method} needs {field}, a string")
        visit.name = name
        if name.startswith(SCHEME):
            return await self._cuts.read(visit, name) or _unknown(call, name)
        entry = self._find(call.method, name, visit.principal)
        if entry is None:
            await self._catalog.ready()
            if call.method == "resources/read":
                await self._catalog.recall([name])
            entry = self._find(call.method, name, visit.principal)
        if entry is None:
            return self._hidden(visit, name) or self._out_of_service(visit, name) or _unknown(call, name)
        if call.method == "tools/call":
            wrong = _wrong_arguments(visit, entry)
            if wrong is not None:
                return wrong
        return await self._forward(visit, entry)

    def _out_of_service(self, visit: Visit, name: str) -> Served | None:
        """Why a name is unknown, if it reads like one of a remote that cannot be called, or never could be since the start."""
        first, _, own = name.partition(SEPARATOR)
        remote = visit.snapshot.remotes.get(first)
        if remote is None or not visit.principal.allows(_METHOD_KIND[visit.call.method], remote.name, own):
            return None
        why = status.refusal(remote)
        if why is None:
            kept = self._catalog.kept(remote.name)
            if kept is None or kept.listing is not None:
                return None
            said = kept.failure.message if kept.failure is not None else "it is being contacted, try again in a moment"
            why = f"{remote.name} has not been reached since the gateway started: {said}"
        visit.remote = remote.name
        return worded(visit.call, why)

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
        about: Kind = "prompt" if kind == "ref/prompt" else "resource"
        if entry is None or not visit.principal.allows(about, entry.remote, entry.own, entry.exposed):
            return refusal(call, codes.INVALID_PARAMS, f"unknown {kind.removeprefix('ref/')} {name}")
        return await self._forward(visit, entry)

    async def _task(self, visit: Visit) -> Served:
        call = visit.call
        if call.modern and EXTENSION.encode() not in bytes(call.capabilities):
            needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            return refusal(call, codes.MISSING_CAPABILITY, f"the client did not declare {EXTENSION}", needed)
        id = jsonrpc.text(call.params.get("taskId"))
        found = self._tasks.read(id, visit.principal.key_id) if id is not None else None
        if id is None or found is None or not visit.principal.reaches(found[0]):
            return refusal(call, codes.INVALID_PARAMS, "unknown task")
        remote, own = found
        visit.name = "task"
        return await self._forward(visit, Entry(remote, own, id, b""))

    async def _task_list(self, visit: Visit) -> Served:
        """The tasks of this key at every remote that lists its own; one remote that fails is left out."""
        call = visit.call
        if "cursor" in call.params:
            return refusal(call, codes.INVALID_PARAMS, "unknown cursor: lists have one page")
        reached = filter(visit.principal.reaches, visit.snapshot.remotes)
        upstreams = [one for name in reached if (one := self._pool.get(name)) and lists_tasks(one)]
        found = await asyncio.gather(*(self._rounds.tasks_of(visit, one) for one in upstreams))
        tasks = b",".join(task for one in found for task in one)
        return Served(jsonrpc.result(call.id, b'{"tasks":[' + tasks + b"]}"))

    async def _subscribe(self, visit: Visit) -> Served:
        """Be told when a resource changes: revisions before 2026-07-28, whose sessions have a stream for that."""
        call = visit.call
        uri = visit.name = _uri(call)
        place = self._catalog.located(uri, visit.principal)
        if place is None:
            await self._catalog.ready()
            await self._catalog.recall([uri])
            place = self._catalog.located(uri, visit.principal)
        if place is None or visit.subscriber is None:
            return _unknown(call, uri)
        visit.remote = place[0]
        await self._rates.take_for(visit.principal, place[0])
        try:
            refused = await self._subscriptions.add(visit.subscriber, {uri: place})
        except TooMany:
            why = f"too many resources are watched: at most {URIS_MAX} in one session"
            return refusal(call, codes.INVALID_PARAMS, why)
        if uri not in refused:
            return Served(jsonrpc.result(call.id, b"{}"))
        said = refused[uri]
        if said is not None:
            return error(call, said)
        return refusal(call, codes.INVALID_PARAMS, f"{visit.remote} does not tell when this resource changes")

    async def _unsubscribe(self, visit: Visit) -> Served:
        uri = visit.name = _uri(visit.call)
        if visit.subscriber is not None:
            self._subscriptions.remove(visit.subscriber, uri)
        return Served(jsonrpc.result(visit.call.id, b"{}"))

    def _find(self, method: str, name: str, principal: Principal) -> Entry | None:
        """What a name leads to for this key; what it may not use is not found."""
        if method == "resources/read":
            return self._catalog.readable(name, principal)
        joined = self._catalog.joined
        entry = joined.tool(name) if method == "tools/call" else joined.prompt(name)
        if entry is None or not principal.allows(_METHOD_KIND[method], entry.remote, entry.own, entry.exposed):
            return None
        return entry

    def _hidden(self, visit: Visit, name: str) -> Served | None:
        """Why a tool cannot be called that its remote has, for a key that could otherwise call it."""
        tool = self._catalog.joined.hidden(name) if visit.call.method == "tools/call" else None
        if tool is None or not visit.principal.allows("tool", tool.remote, tool.own, tool.exposed):
            return None
        visit.remote = tool.remote
        return worded(visit.call, unavailable(tool))

    async def _forward(self, visit: Visit, entry: Entry) -> Served:
        visit.remote = entry.remote
        spec = visit.snapshot.remotes.get(entry.remote)
        upstream = self._pool.get(entry.remote)
        if spec is None or upstream is None:
            why = (status.refusal(spec) if spec is not None else None) or f"{entry.remote} is no longer configured"
            return refusal(visit.call, codes.INVALID_PARAMS, why)
        if visit.principal.grant.rates:
            await self._rates.take_for(visit.principal, entry.remote)
        served = await self._served(visit, entry, upstream)
        if served.code == codes.HEADER_MISMATCH and visit.call.method == "tools/call":
            return await self._with_new_headers(visit, entry, upstream) or served
        return served

    async def _with_new_headers(self, visit: Visit, entry: Entry, upstream: Upstream) -> Served | None:
        """A remote that misses headers has changed its schema: read it again and repeat the call, which was not executed
        (specification 2026-07-28, basic/transports/streamable-http "Client Behavior")."""
        await self._catalog.refresh(entry.remote)
        changed = self._catalog.joined.tool(visit.name)
        if changed is None or changed.paths == entry.paths:
            return None
        return await self._served(visit, changed, upstream)

    async def _served(self, visit: Visit, entry: Entry, upstream: Upstream) -> Served:
        served = await self._rounds.serve(visit, entry, upstream)
        if len(served.body) > self._cuts.max_bytes:
            return await self._cuts.fitted(visit, served, upstream.spec.keep_cut_answers_s)
        return served


def _uri(call: Call) -> str:
    uri = jsonrpc.text(call.params.get("uri"))
    if uri is None:
        raise jsonrpc.Malformed(codes.INVALID_PARAMS, f"{call.method} needs uri, a string")
    return uri


def _unknown(call: Call, name: str) -> Served:
    """server/tools and server/resources, "Error Handling"; the code for a resource changed in 2026-07-28."""
    if not call.method.startswith("resources/"):
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
