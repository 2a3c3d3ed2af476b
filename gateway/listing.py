"""What one remote offers: its lists read to the last page, each entry checked, renamed and encoded once.

An entry that is malformed is dropped and reported, its siblings stay; a list without an end is given up.
"""

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec
from msgspec import Raw

from mcpserver.protocol import jsonrpc, naming
from mcpserver.protocol.headers import InvalidAnnotation, annotated
from mcpserver.protocol.uri import Template
from mcpserver.protocol.versions import LISTS
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.client import Upstream
from remotes.upstream.connection import Greeting
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Refusal

# A remote that announces nothing is asked again this often.
REFRESH_S = 300.0
_PAGES_MAX = 1000
_ENTRIES_MAX = 20_000
_LIST_MAX_BYTES = 32 * 1024 * 1024
# What is wrong with one remote's lists is told so many times, each in so many characters; a remote chooses both.
PROBLEMS_MAX, PROBLEM_MAX_CHARS = 20, 200

# Each list method: what names an entry, and the capability that offers it.
IDENTITY = {
    "tools/list": "name",
    "prompts/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uriTemplate",
}
CAPABILITY = {method: method.split("/", 1)[0] for method in LISTS}


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
        if CAPABILITY[method] not in greeting.capabilities:
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
    except (KeyError, *jsonrpc.UNREADABLE):
        why = f"the result of {method} from {name} has no list {LISTS[method]}"
        raise Failed(Failure(Fault.INVALID, "list", why)) from None


def _told(problems: list[str]) -> tuple[str, ...]:
    told = [problem[:PROBLEM_MAX_CHARS] for problem in problems[:PROBLEMS_MAX]]
    more = len(problems) - len(told)
    return (*told, f"and {more} more") if more else tuple(told)


def _whole_number(raw: Raw | None) -> int:
    try:
        return max(0, msgspec.json.decode(raw, type=int)) if raw is not None else 0
    except jsonrpc.UNREADABLE:
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
    identity = IDENTITY[method]
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
        return Entry(spec.name, own, exposed, renamed(bytes(raw), identity, exposed))
    if not _enabled(spec, own):
        return None
    exposed = naming.exposed(spec.name, spec.aliases.get(own, own), longest)
    paths = _paths(own, fields.get("inputSchema"))
    encoded = renamed(bytes(raw), identity, exposed)
    return Entry(spec.name, own, exposed, encoded, paths, _only_as_task(fields.get("execution")))


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
    return annotated(jsonrpc.value(schema, f"inputSchema of {tool}"))


def _only_as_task(execution: Raw | None) -> bool:
    return (
        execution is not None and jsonrpc.text(jsonrpc.fields(execution, "execution").get("taskSupport")) == "required"
    )


def renamed(raw: bytes, identity: str, exposed: str) -> bytes:
    fields = jsonrpc.fields(raw)
    fields[identity] = Raw(jsonrpc.encode(exposed))
    return jsonrpc.encode(fields)
