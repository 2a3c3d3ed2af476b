"""What clients see: the tools, prompts, resources and templates of every remote, joined under one set of names.

Lists never wait for a remote that is known: each remote has a keeper that connects, loads its lists and loads them again
when the remote says so, when they grow old, or after it was lost; what it loaded last stands until then. Entries are encoded
once, when they are loaded; a joined list is encoded once per generation and audience.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Raw

import mcpserver
from gateway import links
from gateway.links import Links
from keys.principal import Kind, Principal
from mcpserver.protocol import jsonrpc, naming, results, versions
from mcpserver.protocol.headers import InvalidAnnotation, annotated
from mcpserver.protocol.inbound import SERVER_INFO
from mcpserver.protocol.uri import TEMPLATE_MAX, Template
from mcpserver.protocol.versions import LISTS
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.status import Status, of
from remotes.upstream.client import Upstream
from remotes.upstream.connection import Greeting
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Refusal

log = logging.getLogger("mcp.catalog")

# A remote that announces nothing is asked again this often.
REFRESH_S = 300.0
_RETRY_FIRST_S, _RETRY_MAX_S = 1.0, 60.0
# A list request waits for remotes in their first load, but never longer than this after the load began.
FIRST_LOAD_PATIENCE_S = 3.0
# A remote that announces a change with every answer would otherwise be asked as fast as it answers.
_LOADS_APART_S = 1.0
_PAGES_MAX = 1000
_ENTRIES_MAX = 20_000
_LIST_MAX_BYTES = 32 * 1024 * 1024
# What is wrong with one remote's lists is told so many times, each in so many characters; a remote chooses both.
_PROBLEMS_MAX, _PROBLEM_MAX_CHARS = 20, 200

# Each list method: what names an entry, what it is to a key's permissions, and the capability that offers it.
_IDENTITY = {
    "tools/list": "name",
    "prompts/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uriTemplate",
}
_KIND: Mapping[str, Kind] = {
    "tools/list": "tool",
    "prompts/list": "prompt",
    "resources/list": "resource",
    "resources/templates/list": "resource",
}
_CAPABILITY = {method: method.split("/", 1)[0] for method in LISTS}


class Entry(msgspec.Struct, frozen=True):
    """One tool, prompt, resource or template. `raw` is what clients get; `paths` the arguments mirrored in headers.

    `only_as_task`: a handshake remote runs this tool as a task or not at all.
    """

    remote: str
    own: str
    exposed: str
    raw: bytes
    paths: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    only_as_task: bool = False


class Listing(msgspec.Struct, frozen=True):
    """What one remote offers, by list method, in its own order and under its own names; `disabled` are tools by name."""

    entries: dict[str, tuple[Entry, ...]]
    greeting: Greeting
    ttl_ms: int
    public: bool
    problems: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


class Joined:
    """One generation of the whole catalogue; never changes."""

    def __init__(self, generation: int, listings: Iterable[tuple[str, Listing]]) -> None:
        self.generation = generation
        self.problems: list[str] = []
        self._shadowed: dict[str, int] = {}
        self._tables: dict[str, dict[str, Entry]] = {method: {} for method in LISTS}
        self._encoded: dict[tuple[str, str, bool, str], bytes] = {}
        self._altered: dict[str, dict[str, bytes]] = {}
        self._ttl_ms, self._public = int(REFRESH_S * 1000), True
        for name, listing in listings:
            self._ttl_ms = min(self._ttl_ms, listing.ttl_ms)
            self._public = self._public and listing.public
            self.problems += [f"{name}: {problem}" for problem in listing.problems]
            for method, entries in listing.entries.items():
                for entry in entries:
                    self._place(method, entry)
        self._templates = [(Template(entry.exposed), entry) for entry in self.entries("resources/templates/list")]
        self._pages = Links()
        for entry in [one for one in self.entries("tools/list") if b"resourceUri" in one.raw]:
            self._tables["tools/list"][entry.exposed] = self._with_page(entry)

    def tool(self, name: str) -> Entry | None:
        return self._tables["tools/list"].get(name)

    def prompt(self, name: str) -> Entry | None:
        return self._tables["prompts/list"].get(name)

    def resource(self, uri: str) -> Entry | None:
        """The resource, the page of a tool or, failing both, the first template that a URI fits."""
        found = self._tables["resources/list"].get(uri)
        if found is not None:
            return found
        found = linked(self._pages, uri)
        return found or next((entry for template, entry in self._templates if template.fits(uri)), None)

    def owner(self, uri: str) -> str | None:
        """The remote that a URI leads to."""
        entry = self.resource(uri)
        return None if entry is None else entry.remote

    def template(self, uri_template: str) -> Entry | None:
        return self._tables["resources/templates/list"].get(uri_template)

    def entries(self, method: str) -> Iterable[Entry]:
        return self._tables[method].values()

    def result(
        self, method: str, principal: Principal, *, modern: bool, revision: str = versions.NEWEST_HANDSHAKE
    ) -> bytes:
        """The encoded `result` of a list method for one audience; encoded anew for a revision only where it differs."""
        look = "" if modern or method != "tools/list" else results.tools_look(revision)
        altered = self._altered_for(look) if look else {}
        key = (method, principal.fingerprint, modern, look if altered else "")
        found = self._encoded.get(key)
        if found is None:
            found = self._encoded[key] = self._encode(method, principal, altered, modern=modern)
        return found

    def hints(self) -> dict[str, Any]:
        """The cache hints of a list: the shortest life, and `public` only when every part is and keys see the same."""
        return {"ttlMs": self._ttl_ms, "cacheScope": "public" if self._public else "private"}

    def _altered_for(self, look: str) -> Mapping[str, bytes]:
        """The tools that clients of some revisions must see in another form, by exposed name."""
        found = self._altered.get(look)
        if found is None:
            forms = (
                (name, entry.raw, results.tool_to_revision(entry.raw, look))
                for name, entry in self._tables["tools/list"].items()
            )
            found = self._altered[look] = {name: other for name, raw, other in forms if other is not raw}
        return found

    def _encode(self, method: str, principal: Principal, altered: Mapping[str, bytes], *, modern: bool) -> bytes:
        kind = _KIND[method]
        seen = b",".join(
            altered.get(name, entry.raw)
            for name, entry in self._tables[method].items()
            if principal.allows(kind, entry.remote, entry.own)
        )
        members = b'"' + LISTS[method].encode() + b'":[' + seen + b"]"
        if modern:
            members += b',"resultType":"complete",' + jsonrpc.encode(self.hints() | {"_meta": SIGNATURE})[1:-1]
        return b"{" + members + b"}"

    def _with_page(self, tool: Entry) -> Entry:
        """The tool with its page (MCP Apps) under a URI that leads there, listed or not."""
        raw = links.page(tool.raw, lambda uri: self._pages.exposed(tool.remote, uri, self.owner))
        return tool if raw is tool.raw else msgspec.structs.replace(tool, raw=raw)

    def _place(self, method: str, entry: Entry) -> None:
        table = self._tables[method]
        taken = table.get(entry.exposed)
        if taken is None:
            table[entry.exposed] = entry
        elif taken.remote == entry.remote or _IDENTITY[method] == "name":
            self._tell_of_shadow(entry, taken)
            table[entry.exposed] = entry
        else:
            uri = naming.distinct_uri(entry.remote, entry.own)
            if method == "resources/templates/list" and len(uri) > TEMPLATE_MAX:
                self.problems.append(
                    f"{entry.remote}: {uri[:80]}… was dropped: {taken.remote} has it too, and it is long"
                )
                return
            table[uri] = msgspec.structs.replace(entry, exposed=uri, raw=_renamed(entry.raw, _IDENTITY[method], uri))

    def _tell_of_shadow(self, entry: Entry, taken: Entry) -> None:
        count = self._shadowed[entry.remote] = self._shadowed.get(entry.remote, 0) + 1
        if count <= _PROBLEMS_MAX:
            names = f"{entry.own[:_PROBLEM_MAX_CHARS]!r} shadows {taken.own[:_PROBLEM_MAX_CHARS]!r} of {taken.remote}"
            self.problems.append(f"{entry.remote}: {names} as {entry.exposed}")


def linked(named: Links, uri: str) -> Entry | None:
    """The entry of a URI that a remote named without listing it."""
    found = named.find(uri)
    return None if found is None else Entry(*found, exposed=uri, raw=b"")


def own_uri(entry: Entry, uri: str) -> str:
    """An exposed URI as its remote knows it: without the part of its scheme that tells it from another remote's."""
    return uri[len(entry.exposed) - len(entry.own) :]


SERVER = {"name": "MCP-Server", "version": mcpserver.__version__}
SIGNATURE = {SERVER_INFO: SERVER}


class Kept(msgspec.Struct):
    """A remote as its keeper knows it. Times are monotonic seconds."""

    upstream: Upstream
    spec: RemoteSpec
    began: float
    wake: asyncio.Event
    listing: Listing | None = None
    failure: Failure | None = None
    tried: bool = False
    latency_ms: float | None = None
    keeper: asyncio.Task[None] | None = None

    @property
    def status(self) -> Status:
        return of(self.upstream.spec, reached=self.listing is not None, failure=self.failure)


Published = Callable[[set[str]], None]


class Catalog:
    """The keepers of all remotes and the generation they last agreed on."""

    def __init__(self, on_published: Published, on_contact: Callable[[Kept], None]) -> None:
        self.joined = Joined(0, ())
        self._links = Links()
        self._kept: dict[str, Kept] = {}
        self._order: list[str] = []
        self._longest = 55
        self._on_published = on_published
        self._on_contact = on_contact
        self._settled = asyncio.Event()

    def follow(self, snapshot: Snapshot, upstreams: Mapping[str, Upstream]) -> None:
        """Keep the remotes of a revision, in its order."""
        self._order = list(snapshot.remotes)
        self._longest = snapshot.gateway.max_tool_name
        for name in [name for name, kept in self._kept.items() if upstreams.get(name) is not kept.upstream]:
            self._drop(name)
        for name, upstream in upstreams.items():
            kept = self._kept.get(name)
            if kept is None:
                self._keep(name, upstream)
            elif kept.spec != upstream.spec:
                kept.spec = upstream.spec
                kept.wake.set()
        self._publish()

    def kept(self, name: str) -> Kept | None:
        return self._kept.get(name)

    def resource(self, uri: str) -> Entry | None:
        """Whose resource a URI is: one that a remote lists, or has named in a result."""
        return self.joined.resource(uri) or linked(self._links, uri)

    def located(self, uri: str, principal: Principal) -> tuple[str, str] | None:
        """The remote and the own URI behind an exposed one; None when it does not exist for this key."""
        entry = self.resource(uri)
        if entry is None or not principal.allows("resource", entry.remote, entry.own):
            return None
        return entry.remote, own_uri(entry, uri)

    def readdressed(self, method: str, entry: Entry, raw: bytes) -> bytes:
        """A result whose URIs lead back to the remote that it came from: the same bytes, but where two remotes collide."""

        def exposed(uri: str) -> str:
            return self._links.exposed(entry.remote, uri, self.joined.owner)

        try:
            if method == "resources/read":
                return raw if entry.exposed == entry.own else links.contents(raw, exposed)
            return links.result(raw, exposed) if links.names_resources(raw) else raw
        except jsonrpc.Malformed:
            return raw  # whoever makes the answer says what is wrong with it

    async def ready(self) -> Joined:
        """The current generation, once no remote is in the first moments of its first load."""
        while (patience := self._patience()) > 0:
            self._settled.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._settled.wait()
            except TimeoutError:
                break
        return self.joined

    async def refresh(self, name: str) -> None:
        """Load one remote's lists again, now."""
        kept = self._kept.get(name)
        if kept is not None:
            await self._load(kept)

    async def close(self) -> None:
        keepers = [kept.keeper for kept in self._kept.values() if kept.keeper is not None]
        for name in list(self._kept):
            self._drop(name)
        await asyncio.gather(*keepers, return_exceptions=True)

    def _patience(self) -> float:
        now = asyncio.get_running_loop().time()
        loading = (kept.began + FIRST_LOAD_PATIENCE_S - now for kept in self._kept.values() if not kept.tried)
        return max(loading, default=0.0)

    def _keep(self, name: str, upstream: Upstream) -> None:
        kept = Kept(upstream, upstream.spec, asyncio.get_running_loop().time(), asyncio.Event())
        upstream.on_change = lambda kind: kept.wake.set()
        kept.keeper = asyncio.create_task(self._tend(kept), name=f"keeper of {name}")
        self._kept[name] = kept

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        if kept.keeper is not None:
            kept.keeper.cancel()

    async def _tend(self, kept: Kept) -> None:
        retry = _RETRY_FIRST_S
        while True:
            kept.wake.clear()
            loaded_at = asyncio.get_running_loop().time()
            await self._load(kept)
            if kept.failure is None:
                retry, wait = _RETRY_FIRST_S, REFRESH_S
            else:
                retry, wait = min(2 * retry, _RETRY_MAX_S), retry
            wait *= random.uniform(0.8, 1.2)  # noqa: S311 - spreading load, not guarding a secret
            try:
                async with asyncio.timeout(wait):
                    await kept.wake.wait()
            except TimeoutError:
                continue
            if kept.upstream.last_failure is not None:
                await asyncio.sleep(retry)  # lost: what just died is not started again at once
            await asyncio.sleep(loaded_at + _LOADS_APART_S - asyncio.get_running_loop().time())

    async def _load(self, kept: Kept) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        before = kept.status
        try:
            listing = await load(kept.upstream, self._longest)
        except Failed as failed:
            kept.failure = failed.failure
        except Exception:  # a keeper that dies leaves its remote without one until the next change of configuration
            log.exception("reading the lists of %s failed", kept.upstream.spec.name)
            kept.failure = Failure(Fault.INVALID, "list", "its lists cannot be read; the gateway's log says more")
        else:
            kept.failure, kept.latency_ms = None, round((loop.time() - started) * 1000, 1)
            if listing != kept.listing:
                kept.listing = listing
                self._publish()
        kept.tried = True
        self._settled.set()
        if kept.status != before:
            self._report(kept)
        self._on_contact(kept)

    def _report(self, kept: Kept) -> None:
        name = kept.upstream.spec.name
        if kept.failure is None:
            log.info("%s is %s", name, kept.status, extra={"remote": name})
        else:
            log.warning("%s is %s: %s", name, kept.status, kept.failure.told, extra={"remote": name})

    def _publish(self) -> None:
        listings = [
            (name, listing)
            for name in self._order
            if (kept := self._kept.get(name)) is not None and (listing := kept.listing) is not None
        ]
        before = self.joined
        self.joined = Joined(before.generation + 1, listings)
        changed = {
            _CAPABILITY[method]
            for method in LISTS
            if [entry.raw for entry in before.entries(method)] != [entry.raw for entry in self.joined.entries(method)]
        }
        for problem in set(self.joined.problems) - set(before.problems):
            log.warning("catalogue: %s", problem)
        if changed:
            self._on_published(changed)


async def load(upstream: Upstream, longest: int) -> Listing:
    """Every list a remote offers; raises Failed. Each list has the remote's list timeout for all its pages."""
    loop = asyncio.get_running_loop()
    spec = upstream.spec
    connection = await upstream.connected(loop.time() + spec.connect_timeout_s)
    greeting = connection.greeting
    entries: dict[str, tuple[Entry, ...]] = {}
    problems: list[str] = []
    disabled: tuple[str, ...] = ()
    ttl_ms, public = int(REFRESH_S * 1000), greeting.modern
    for method in LISTS:
        if _CAPABILITY[method] not in greeting.capabilities:
            continue
        raws, hints = await _pages(upstream, method, loop.time() + spec.list_timeout_s)
        entries[method] = tuple(_entries(spec, method, raws, longest, problems))
        if method == "tools/list":
            disabled = tuple(own for raw in raws if (own := _own_name(raw)) and not _enabled(spec, own))
        if greeting.modern:
            ttl_ms, public = min(ttl_ms, hints[0]), public and hints[1]
    return Listing(entries, greeting, ttl_ms, public, _told(problems), disabled)


async def _pages(upstream: Upstream, method: str, deadline: float) -> tuple[list[Raw], tuple[int, bool]]:
    found: list[Raw] = []
    cursors: set[str] = set()
    params: jsonrpc.Fields = {}
    ttl_ms, public, size = 2**31, True, 0
    for _ in range(_PAGES_MAX):
        result = await _page(upstream, method, params, deadline)
        found += _list_of(upstream.spec.name, method, result)
        size += sum(map(len, result.values()))
        ttl_ms = min(ttl_ms, _whole_number(result.get("ttlMs")))
        public = public and jsonrpc.text(result.get("cacheScope")) == "public"
        cursor = jsonrpc.text(result.get("nextCursor"))
        if cursor is None:
            return found, (ttl_ms, public)
        if cursor in cursors or len(found) > _ENTRIES_MAX or size > _LIST_MAX_BYTES:
            break
        cursors.add(cursor)
        params = {"cursor": Raw(jsonrpc.encode(cursor))}
    why = f"{upstream.spec.name} never ends its {method}: {len(found)} entries so far, and a cursor that came twice or no end"
    raise Failed(Failure(Fault.INVALID, "list", why))


async def _page(upstream: Upstream, method: str, params: jsonrpc.Fields, deadline: float) -> jsonrpc.Fields:
    outcome = await upstream.exchange(Exchange(method, params, deadline=deadline))
    match outcome:
        case Answer():
            try:
                return jsonrpc.fields(outcome.result, "the result")
            except jsonrpc.Malformed as error:
                raise Failed(Failure(Fault.INVALID, "list", error.message, outcome.result[:4096])) from None
        case Refusal():
            said = jsonrpc.error_body(outcome.error)
            why = f"{upstream.spec.name} refused {method}: {said.message} ({said.code})"
            raise Failed(Failure(Fault.INVALID, "list", why))
        case Failure():
            raise Failed(outcome)


def _list_of(name: str, method: str, result: jsonrpc.Fields) -> list[Raw]:
    try:
        return msgspec.json.decode(result[LISTS[method]], type=list[Raw])
    except (KeyError, msgspec.DecodeError, RecursionError):
        why = f"the result of {method} from {name} has no list {LISTS[method]}"
        raise Failed(Failure(Fault.INVALID, "list", why)) from None


def _told(problems: list[str]) -> tuple[str, ...]:
    told = [problem[:_PROBLEM_MAX_CHARS] for problem in problems[:_PROBLEMS_MAX]]
    more = len(problems) - len(told)
    return (*told, f"and {more} more") if more else tuple(told)


def _whole_number(raw: Raw | None) -> int:
    try:
        return max(0, msgspec.json.decode(raw, type=int)) if raw is not None else 0
    except msgspec.DecodeError:
        return 0


def _entries(spec: RemoteSpec, method: str, raws: list[Raw], longest: int, problems: list[str]) -> Iterable[Entry]:
    """The well-formed entries; one that is malformed is dropped and reported, its siblings stay."""
    for raw in raws:
        try:
            entry = _entry(spec, method, raw, longest)
        except (jsonrpc.Malformed, InvalidAnnotation, ValueError, RecursionError) as error:
            problems.append(f"an entry of {method} was dropped: {error}")
            continue
        if entry is not None:
            yield entry


def _entry(spec: RemoteSpec, method: str, raw: Raw, longest: int) -> Entry | None:
    identity = _IDENTITY[method]
    fields = jsonrpc.fields(raw, "an entry")
    own = jsonrpc.text(fields.get(identity))
    if not own:
        raise ValueError(f"it has no {identity}")
    if identity != "name":
        if identity == "uriTemplate":
            Template(own)
        return Entry(spec.name, own, own, bytes(raw))
    if method == "prompts/list":
        exposed = naming.exposed(spec.name, own, longest)
        return Entry(spec.name, own, exposed, _renamed(bytes(raw), identity, exposed))
    if not _enabled(spec, own):
        return None
    exposed = naming.exposed(spec.name, spec.aliases.get(own, own), longest)
    paths = _paths(own, fields.get("inputSchema"))
    renamed = _renamed(bytes(raw), identity, exposed)
    return Entry(spec.name, own, exposed, renamed, paths, _only_as_task(fields.get("execution")))


def _own_name(raw: Raw) -> str | None:
    try:
        return jsonrpc.text(jsonrpc.fields(raw, "an entry").get("name"))
    except jsonrpc.Malformed:
        return None  # reported where it is dropped


def _enabled(spec: RemoteSpec, tool: str) -> bool:
    return tool not in spec.tools_disabled and (spec.tools_enabled is None or tool in spec.tools_enabled)


def _paths(tool: str, schema: Raw | None) -> Mapping[str, tuple[str, ...]]:
    fields = jsonrpc.fields(schema, f"inputSchema of {tool}") if schema is not None else {}
    if jsonrpc.text(fields.get("type")) != "object":
        raise ValueError(f"inputSchema of {tool} is not of type object")
    if schema is None or b'"x-mcp-header"' not in bytes(schema):
        return MappingProxyType({})
    return annotated(msgspec.json.decode(schema))


def _only_as_task(execution: Raw | None) -> bool:
    return (
        execution is not None and jsonrpc.text(jsonrpc.fields(execution, "execution").get("taskSupport")) == "required"
    )


def _renamed(raw: bytes, identity: str, exposed: str) -> bytes:
    fields = jsonrpc.fields(raw)
    fields[identity] = Raw(jsonrpc.encode(exposed))
    return jsonrpc.encode(fields)
