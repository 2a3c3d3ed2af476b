"""What one remote offers: its lists read to the last page, each entry checked, cleaned, renamed and encoded once.

An entry that is malformed is dropped and reported, its siblings stay. Thousands of entries are worked through in short turns, so
that no other request waits for them.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec
from msgspec import Raw

from gateway.catalog import pages
from mcpserver.protocol import hygiene, jsonrpc, naming
from mcpserver.protocol.headers import InvalidAnnotation, annotated
from mcpserver.protocol.hygiene import Notes
from mcpserver.protocol.uri import Template
from mcpserver.protocol.versions import LISTS
from remotes import pinning
from remotes.config.snapshot import RemoteSpec
from remotes.pinning import Pins, Sighting, Standing
from remotes.upstream.client import Upstream
from remotes.upstream.connection import Greeting

# A remote that announces nothing is asked again this often.
REFRESH_S = 300.0
# What is wrong with one remote's lists is told so many times, each in so many characters; a remote chooses both.
PROBLEMS_MAX, PROBLEM_MAX_CHARS = 20, 200
# The specification names 128 characters, and real servers overdo it; what is longer than this is no name.
_NAME_MAX = 512
# A definition of this size is one that no model could read, and looking through it would keep others waiting.
_ENTRY_MAX_BYTES = 1024 * 1024
_TURN_S = 0.005
# Of one remote's new definitions so much is kept to be looked at; fingerprints are of all.
_DEFINITIONS_MAX_BYTES = 8 * 1024 * 1024

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


class Why(StrEnum):
    """Why clients do not see a tool that its remote lists."""

    DISABLED = "disabled"
    MALFORMED = "malformed"
    WITHHELD = "withheld"


class Hidden(msgspec.Struct, frozen=True):
    """A tool that clients do not see. `detail`: the field that disables it, what is wrong with it, how it stands to its pin."""

    remote: str
    own: str
    exposed: str
    why: Why
    detail: str


class Listing(msgspec.Struct, frozen=True):
    """What one remote offers, by list method, in its own order and under its own names.

    `hidden` are tools that it lists as well; `sighting` is None where its tools are not pinned.
    """

    entries: dict[str, tuple[Entry, ...]]
    greeting: Greeting
    ttl_ms: int
    public: bool
    problems: tuple[str, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    notes: Notes = msgspec.field(default_factory=Notes)
    sighting: Sighting | None = None


class Said(msgspec.Struct, frozen=True):
    """What a remote says of itself: the entries of its lists undecoded, in its order."""

    greeting: Greeting
    lists: Mapping[str, list[Raw]]
    ttl_ms: int
    public: bool


async def load(upstream: Upstream, longest: int, pins: Pins = MappingProxyType({})) -> Listing:
    """Every list a remote offers; raises Failed."""
    return await worked(await read(upstream), upstream.spec, longest, pins)


async def read(upstream: Upstream) -> Said:
    """Every list a remote offers, as it says it; raises Failed. Each list has the remote's list timeout for all its pages."""
    loop = asyncio.get_running_loop()
    spec = upstream.spec
    connection = await upstream.connected(loop.time() + spec.connect_timeout_s)
    greeting = connection.greeting
    lists: dict[str, list[Raw]] = {}
    ttl_ms, public = int(REFRESH_S * 1000), greeting.modern
    for method in LISTS:
        if CAPABILITY[method] not in greeting.capabilities:
            continue
        found = await pages.read(upstream, method, loop.time() + spec.list_timeout_s)
        lists[method] = found.entries
        if greeting.modern:
            ttl_ms, public = min(ttl_ms, found.ttl_ms), public and found.public
    return Said(greeting, lists, ttl_ms, public)


async def worked(said: Said, spec: RemoteSpec, longest: int, pins: Pins) -> Listing:
    """What is made of it: checked, cleaned and renamed as the remote is configured now."""
    work = _Reading(spec, longest, pins)
    for method, raws in said.lists.items():
        await work.through(method, raws)
    return work.listing(said.greeting, said.ttl_ms, said.public)


class _Reading:
    """One remote's lists while they are worked through."""

    def __init__(self, spec: RemoteSpec, longest: int, pins: Pins) -> None:
        self._spec = spec
        self._longest = longest
        self._pins = pins
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._hidden: list[Hidden] = []
        self._problems: list[str] = []
        self._notes = Notes()
        self._digests: dict[str, str] = {}
        self._definitions: dict[str, bytes] = {}
        self._room = _DEFINITIONS_MAX_BYTES

    async def through(self, method: str, raws: list[Raw]) -> None:
        """Take the entries of one list, giving way to others after each turn."""
        entries: list[Entry] = []
        until = time.perf_counter() + _TURN_S
        for raw in raws:
            entries += self._taken(method, raw)
            if time.perf_counter() > until:
                await asyncio.sleep(0)
                until = time.perf_counter() + _TURN_S
        self._entries[method] = tuple(entries)

    def listing(self, greeting: Greeting, ttl_ms: int, public: bool) -> Listing:
        instructions = hygiene.text(greeting.instructions, self._notes)
        sighting = Sighting(self._digests, self._definitions) if self._spec.pin != "off" else None
        return Listing(
            self._entries,
            msgspec.structs.replace(greeting, instructions=instructions),
            ttl_ms,
            public,
            _told(self._problems),
            tuple(self._hidden),
            self._notes,
            sighting,
        )

    def _taken(self, method: str, raw: Raw) -> Iterator[Entry]:
        own = ""
        try:
            if len(raw) > _ENTRY_MAX_BYTES:
                raise ValueError(f"it has more than {_ENTRY_MAX_BYTES} bytes")
            fields = jsonrpc.fields(raw, "an entry")
            own = _own(method, fields)
            entry = self._tool(own, fields, raw) if method == "tools/list" else self._other(method, own, raw)
        except (jsonrpc.Malformed, InvalidAnnotation, ValueError, RecursionError) as error:
            self._drop(method, own, str(error))
            return
        if entry is not None:
            yield entry

    def _tool(self, own: str, fields: jsonrpc.Fields, raw: Raw) -> Entry | None:
        spec = self._spec
        paths = _paths(own, fields.get("inputSchema"))
        only_as_task = _only_as_task(fields.get("execution"))
        shown = hygiene.entry("tools/list", bytes(raw), self._notes)
        if spec.pin != "off":
            self._see(own, fields)
        exposed = naming.exposed(spec.name, spec.aliases.get(own, own), self._longest)
        field = spec.disabled_by(own)
        if field is not None:
            self._hidden.append(Hidden(spec.name, own, exposed, Why.DISABLED, field))
            return None
        return Entry(spec.name, own, exposed, renamed(shown, "name", exposed), paths, only_as_task)

    def _other(self, method: str, own: str, raw: Raw) -> Entry:
        name = self._spec.name
        shown = hygiene.entry(method, bytes(raw), self._notes)
        if method == "prompts/list":
            exposed = naming.exposed(name, own, self._longest)
            return Entry(name, own, exposed, renamed(shown, "name", exposed))
        if method == "resources/templates/list":
            Template(own)
        return Entry(name, own, own, shown)

    def _see(self, own: str, fields: jsonrpc.Fields) -> None:
        definition = pinning.definition(fields)
        digest = self._digests[own] = pinning.fingerprint(definition)
        pin = self._pins.get(own)
        if (pin is None or pin.sha256 != digest) and self._room > 0:
            kept = self._definitions[own] = pinning.packed(definition)
            self._room -= len(kept)

    def _drop(self, method: str, own: str, why: str) -> None:
        named = f" {own[:60]!r}" if own else ""
        self._problems.append(f"an entry of {method}{named} was dropped: {why}")
        if method == "tools/list" and len(self._problems) <= PROBLEMS_MAX:
            exposed = naming.exposed(self._spec.name, own, self._longest) if own else ""
            self._hidden.append(Hidden(self._spec.name, own, exposed, Why.MALFORMED, why[:PROBLEM_MAX_CHARS]))


def _told(problems: list[str]) -> tuple[str, ...]:
    told = [problem[:PROBLEM_MAX_CHARS] for problem in problems[:PROBLEMS_MAX]]
    more = len(problems) - len(told)
    return (*told, f"and {more} more") if more else tuple(told)


def _own(method: str, fields: jsonrpc.Fields) -> str:
    identity = IDENTITY[method]
    own = jsonrpc.text(fields.get(identity))
    if not own:
        raise ValueError(f"it has no {identity}")
    if identity == "name" and (len(own) > _NAME_MAX or "\0" in own):
        raise ValueError(f"its name is longer than {_NAME_MAX} characters, or holds a NUL")
    return own


def unavailable(tool: Hidden) -> str:
    """Why it cannot be called, and what an operator can do."""
    name = tool.exposed
    match tool.why:
        case Why.DISABLED:
            return f"{name} is disabled: {tool.detail} of {tool.remote} in the gateway's configuration leaves it out"
        case Why.MALFORMED:
            return f"{name} cannot be called: its definition is malformed ({tool.detail})"
        case Why.WITHHELD:
            how = (
                "is new and nobody has approved it"
                if tool.detail == Standing.NEW
                else "has changed since it was approved"
            )
            return (
                f"{name} {how}: it is withheld. The gateway's operator sees it with `mcp tools diff {name}` "
                f"and lets it through with `mcp tools approve {name}`"
            )


def _paths(tool: str, schema: Raw | None) -> Mapping[str, tuple[str, ...]]:
    fields = jsonrpc.fields(schema, "its inputSchema") if schema is not None else {}
    if jsonrpc.text(fields.get("type")) != "object":
        raise ValueError("its inputSchema is not of type object")
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
