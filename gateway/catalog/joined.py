"""The lists of all remotes under one set of names: looked up by name, encoded once for each audience. Never changes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

import mcpserver
from gateway.catalog import links
from gateway.catalog.links import Links
from gateway.catalog.listing import (
    IDENTITY,
    PROBLEM_MAX_CHARS,
    PROBLEMS_MAX,
    REFRESH_S,
    Entry,
    Hidden,
    Listing,
    renamed,
)
from keys.principal import Kind, Principal
from mcpserver.protocol import jsonrpc, naming, results, versions
from mcpserver.protocol.inbound import SERVER_INFO
from mcpserver.protocol.uri import TEMPLATE_MAX, Template
from mcpserver.protocol.versions import LISTS

SERVER = {"name": "MCP-Server", "version": mcpserver.__version__}
SIGNATURE = {SERVER_INFO: SERVER}
# Of lists as they were encoded for different keys and eras; the same list for everybody takes a few of these bytes.
_ENCODED_MAX_BYTES = 32 * 1024 * 1024

# What each list's entries are to a key's permissions.
_KIND: Mapping[str, Kind] = {
    "tools/list": "tool",
    "prompts/list": "prompt",
    "resources/list": "resource",
    "resources/templates/list": "resource",
}


class Joined:
    """One generation of the whole catalogue; never changes."""

    def __init__(self, generation: int, listings: Iterable[tuple[str, Listing]]) -> None:
        self.generation = generation
        self.problems: list[str] = []
        self._shadowed: dict[str, int] = {}
        self._tables: dict[str, dict[str, Entry]] = {method: {} for method in LISTS}
        self._hidden: dict[str, Hidden] = {}
        self.shadowed: list[tuple[Entry, Entry]] = []
        """Tools that are not offered, each with the one that is, under the name of both."""
        self._encoded: dict[tuple[str, str, bool, str], bytes] = {}
        self._encoded_bytes = 0
        self._altered: dict[str, dict[str, bytes]] = {}
        self._ttl_ms = int(REFRESH_S * 1000)
        for name, listing in listings:
            self._ttl_ms = min(self._ttl_ms, listing.ttl_ms)
            self.problems += [f"{name}: {problem}" for problem in listing.problems]
            self._hidden |= {tool.exposed: tool for tool in listing.hidden if tool.exposed}
            for method, entries in listing.entries.items():
                for entry in entries:
                    self._place(method, entry)
        self._templates = [(Template(entry.exposed), entry) for entry in self.entries("resources/templates/list")]
        self._pages = Links()
        for entry in [one for one in self.entries("tools/list") if b"resourceUri" in one.raw]:
            self._tables["tools/list"][entry.exposed] = self._with_page(entry)

    def tool(self, name: str) -> Entry | None:
        return self._tables["tools/list"].get(name)

    def hidden(self, name: str) -> Hidden | None:
        """A tool that its remote lists and that nobody may call, by the name that it would have."""
        return self._hidden.get(name)

    def prompt(self, name: str) -> Entry | None:
        return self._tables["prompts/list"].get(name)

    def resource(self, uri: str) -> Entry | None:
        """Whose resource a URI is, as far as lists tell."""
        return next(self.leads(uri), None)

    def leads(self, uri: str) -> Iterator[Entry]:
        """Where a URI may lead, the first choice first: the resource, the page of a tool, the templates that it fits."""
        found = self._tables["resources/list"].get(uri) or linked(self._pages, uri)
        if found is not None:
            yield found
        yield from (entry for template, entry in self._templates if template.fits(uri))

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
            found = self._encode(method, principal, altered, modern=modern)
            self._encoded_bytes += len(found)
            if self._encoded_bytes > _ENCODED_MAX_BYTES:  # as many forms as keys see different things
                self._encoded.clear()
                self._encoded_bytes = len(found)
            self._encoded[key] = found
        return found

    def hints(self) -> dict[str, Any]:
        """The cache hints of a list: the shortest life, and never `public`: what a key sees is its own affair, and may change."""
        return {"ttlMs": self._ttl_ms, "cacheScope": "private"}

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
            if principal.allows(kind, entry.remote, entry.own, entry.exposed)
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
        elif taken.remote == entry.remote:
            self._shadow(method, entry, taken)
            table[entry.exposed] = entry
        elif IDENTITY[method] == "name":
            # Only names that were shortened can meet, and then not by accident: nobody takes over another remote's.
            self._shadow(method, taken, entry)
        else:
            uri = naming.distinct_uri(entry.remote, entry.own)
            if method == "resources/templates/list" and len(uri) > TEMPLATE_MAX:
                self.problems.append(
                    f"{entry.remote}: {uri[:80]}… was dropped: {taken.remote} has it too, and it is long"
                )
                return
            table[uri] = msgspec.structs.replace(entry, exposed=uri, raw=renamed(entry.raw, IDENTITY[method], uri))

    def _shadow(self, method: str, entry: Entry, taken: Entry) -> None:
        """`entry` is the one that is offered."""
        if method == "tools/list":
            self.shadowed.append((taken, entry))
        count = self._shadowed[entry.remote] = self._shadowed.get(entry.remote, 0) + 1
        if count <= PROBLEMS_MAX:
            names = f"{entry.own[:PROBLEM_MAX_CHARS]!r} shadows {taken.own[:PROBLEM_MAX_CHARS]!r} of {taken.remote}"
            self.problems.append(f"{entry.remote}: {names} as {entry.exposed}")


def linked(named: Links, uri: str) -> Entry | None:
    """The entry of a URI that a remote named without listing it."""
    found = named.find(uri)
    return None if found is None else Entry(*found, exposed=uri, raw=b"")


def own_uri(entry: Entry, uri: str) -> str:
    """An exposed URI as its remote knows it: without the part of its scheme that tells it from another remote's."""
    return uri[len(entry.exposed) - len(entry.own) :]


def is_readable(principal: Principal, entry: Entry, uri: str) -> bool:
    """Whether a key may read an exposed URI: by the URI itself, and not past a template that it was denied."""
    if not principal.allows("resource", entry.remote, own_uri(entry, uri)):
        return False
    return not principal.denies(entry.remote, entry.own)
