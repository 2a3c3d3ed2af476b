"""URIs that a remote names without listing them: in a tool's result, or as the page of a tool (MCP Apps).

A client that reads one must come back to the remote it came from, so each is remembered, the latest so many of each remote. A
URI that leads to another remote already gets the form that tells the two apart. Pure: who else owns a URI is asked of the caller.

Source: specification 2026-07-28, server/tools "Resource Links"; extensions/apps.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw

from mcpserver.protocol import codes, jsonrpc, naming

_PER_REMOTE_MAX = 1024
_URI_MAX = 2048
# Clients may fetch these from the web themselves, which a changed scheme would break (server/resources, "https://").
_WEB = ("https://", "http://")

Owner = Callable[[str], str | None]
"""Which remote a URI leads to, None when to none."""


class Links:
    def __init__(self) -> None:
        self._seen: dict[str, OrderedDict[str, str]] = {}

    def find(self, uri: str) -> tuple[str, str] | None:
        """The remote that named an exposed URI, and the URI it has there."""
        return next(((remote, seen[uri]) for remote, seen in self._seen.items() if uri in seen), None)

    def exposed(self, remote: str, uri: str, owner: Owner) -> str:
        """The URI under which clients reach what `remote` calls `uri`."""
        if len(uri) > _URI_MAX:
            return uri
        found = self._owner(uri, owner)
        if found == remote:
            return uri
        if found is None:
            self._remember(remote, uri, uri)
            return uri
        if uri.startswith(_WEB):
            return uri
        distinct = naming.distinct_uri(remote, uri)
        if self._owner(distinct, owner) is None:
            self._remember(remote, distinct, uri)
        return distinct

    def knows(self, remote: str, uri: str) -> bool:
        """Whether it is settled how clients reach what `remote` calls `uri`."""
        seen: Mapping[str, str] = self._seen.get(remote, {})
        return uri in seen or naming.distinct_uri(remote, uri) in seen

    def learn(self, remote: str, exposed: str, own: str) -> None:
        """Another worker saw it first."""
        self._remember(remote, exposed, own)

    def names(self, remote: str, uri: str, owner: Owner) -> list[tuple[str, str]]:
        """What clients may come to call what `remote` calls `uri`, and that."""
        if len(uri) > _URI_MAX or uri.startswith(_WEB) or self.knows(remote, uri):
            return []
        distinct = naming.distinct_uri(remote, uri)
        return [(one, uri) for one in (uri, distinct) if owner(one) is None]

    def _owner(self, uri: str, owner: Owner) -> str | None:
        known = owner(uri)
        if known is not None:
            return known
        found = self.find(uri)
        return None if found is None else found[0]

    def _remember(self, remote: str, exposed: str, own: str) -> None:
        seen = self._seen.setdefault(remote, OrderedDict())
        seen[exposed] = own
        if len(seen) > _PER_REMOTE_MAX:
            seen.popitem(last=False)


Exposed = Callable[[str], str]
"""From a remote's own URI to the one that clients see."""


class _Embedded(msgspec.Struct):
    uri: str = ""


class _Block(msgspec.Struct):
    type: str = ""
    uri: str = ""
    resource: _Embedded | None = None


class _Message(msgspec.Struct):
    content: Raw = Raw(b"null")


class _Result(msgspec.Struct):
    content: Raw = Raw(b"null")
    messages: Raw = Raw(b"null")


def names_resources(raw: bytes) -> bool:
    """Whether a result can hold a link or an embedded resource; cheap, and true of some that hold none."""
    return b'"resource' in raw and (b'"resource"' in raw or b'"resource_link"' in raw)


def result(raw: bytes, exposed: Exposed) -> bytes:
    """A result of tools/call or prompts/get with the URIs that clients see; the same bytes where none differs."""
    try:
        said = msgspec.json.decode(raw, type=_Result)
    except jsonrpc.UNREADABLE:
        raise jsonrpc.Malformed(codes.INVALID_PARAMS, "result must be an object") from None
    readdressed = {"content": _content(said.content, exposed), "messages": _messages(said.messages, exposed)}
    changed = {name: value for name, value in readdressed.items() if value is not None}
    return jsonrpc.encode(jsonrpc.fields(raw, "result") | changed) if changed else raw


def named(raw: bytes) -> list[str]:
    """The URIs that a result of tools/call or prompts/get names."""
    found: dict[str, None] = {}

    def seen(uri: str) -> str:
        found[uri] = None
        return uri

    result(raw, seen)
    return list(found)


def contents(raw: bytes, exposed: Exposed) -> bytes:
    """A resources/read result with the URIs that clients see."""
    fields = jsonrpc.fields(raw, "result")
    items = [_with_uri(item, exposed) or item for item in jsonrpc.items(fields.get("contents"))]
    return jsonrpc.encode(fields | {"contents": items}) if "contents" in fields else raw


def page(raw: bytes, exposed: Exposed) -> bytes:
    """A tool whose `_meta` names its page: `ui.resourceUri`, or `ui/resourceUri` as before."""
    fields = jsonrpc.fields(raw)
    meta = _object(fields.get("_meta"))
    changed = _changed(meta, "ui/resourceUri", exposed)
    ui = _object(meta.get("ui"))
    if _changed(ui, "resourceUri", exposed):
        meta["ui"] = Raw(jsonrpc.encode(ui))
        changed = True
    return jsonrpc.encode(fields | {"_meta": Raw(jsonrpc.encode(meta))}) if changed else raw


def _messages(raw: Raw, exposed: Exposed) -> Raw | None:
    return _each(raw, lambda message: _of_message(message, exposed))


def _of_message(raw: Raw, exposed: Exposed) -> Raw | None:
    try:
        content = msgspec.json.decode(raw, type=_Message).content
    except jsonrpc.UNREADABLE:
        return None
    changed = _block(content, exposed)
    return None if changed is None else _replaced(raw, "content", changed)


def _content(raw: Raw, exposed: Exposed) -> Raw | None:
    return _each(raw, lambda block: _block(block, exposed))


def _each(raw: Raw, change: Callable[[Raw], Raw | None]) -> Raw | None:
    items = jsonrpc.items(raw)
    changed = [change(item) for item in items]
    if not any(changed):
        return None
    return Raw(jsonrpc.encode([new or old for new, old in zip(changed, items, strict=True)]))


def _block(raw: Raw, exposed: Exposed) -> Raw | None:
    """A content block under another URI, or None when it stays as it is."""
    try:
        block = msgspec.json.decode(raw, type=_Block)
    except jsonrpc.UNREADABLE:
        return None
    if block.type == "resource_link" and block.uri:
        return _with_uri(raw, exposed)
    if block.type == "resource" and block.resource is not None and block.resource.uri:
        resource = _with_uri(jsonrpc.fields(raw)["resource"], exposed)
        return None if resource is None else _replaced(raw, "resource", resource)
    return None


def _with_uri(raw: Raw, exposed: Exposed) -> Raw | None:
    fields = _object(raw)
    return Raw(jsonrpc.encode(fields)) if _changed(fields, "uri", exposed) else None


def _changed(fields: jsonrpc.Fields, name: str, exposed: Exposed) -> bool:
    uri = jsonrpc.text(fields.get(name))
    if not uri or (seen_as := exposed(uri)) == uri:
        return False
    fields[name] = Raw(jsonrpc.encode(seen_as))
    return True


def _replaced(raw: Raw, name: str, value: Raw) -> Raw:
    return Raw(jsonrpc.encode(jsonrpc.fields(raw) | {name: value}))


def _object(raw: Raw | None) -> jsonrpc.Fields:
    try:
        return jsonrpc.fields(raw)
    except jsonrpc.Malformed:
        return {}
