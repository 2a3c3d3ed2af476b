"""The MCP paths as one ASGI application: who may come in, what era a request is in, and who serves it.

| path         | method            | served by |
| ------------ | ----------------- | --------- |
| `/mcp`       | POST              | `stateless` or `streamable`, by the request's era |
| `/mcp`       | GET, DELETE       | `streamable` |
| `/sse`       | GET               | `legacy_sse` |
| `/messages/` | POST              | `legacy_sse` |
"""

from functools import lru_cache
from urllib.parse import parse_qs

from gateway import access, cuts
from gateway.access import Access
from gateway.endpoint import batch, stateless, streamable
from gateway.endpoint.elsewhere import Elsewhere
from gateway.endpoint.gate import Gate
from gateway.endpoint.http import Answer, Answering, Receive, Scope, Send, read_body, refused, respond
from gateway.endpoint.legacy_sse import LegacySse
from gateway.runtime import Runtime
from gateway.serving import ClientGone
from keys.principal import Principal
from mcpserver.protocol import codes, inbound, jsonrpc
from mcpserver.protocol.versions import HANDSHAKE, MODERN

_ALLOWED = {"/mcp": ("POST", "GET", "DELETE"), "/sse": ("GET",), "/messages": ("POST",), "/messages/": ("POST",)}
PATHS = frozenset(_ALLOWED)
_VERSION = b"mcp-protocol-version"
_REST = cuts.SCHEME.encode()
_TAKEN = (b"application/json", b"text/event-stream", b"application/*", b"*/*")


class Endpoint:
    def __init__(self, runtime: Runtime, gate: Gate) -> None:
        self._runtime = runtime
        self._gate = gate
        self._legacy = LegacySse(runtime)
        self._elsewhere = Elsewhere(runtime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        about = access.begin(f"{scope['method']} {scope['path']}")
        scope["request_id"] = about.id
        failed = False
        try:
            await self._serve(scope, receive, Answering(send, about), about)
        except ClientGone:
            about.is_gone = True
        except Exception:
            failed = True
            raise
        finally:
            access.ended(about, failed=failed)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, about: Access) -> None:
        about.source = source = self._gate.source(scope)
        headers, doubled = inbound.single(scope["headers"])
        turned_away = self._gate.turns_away(headers, doubled)
        if turned_away is not None:
            await respond(send, turned_away)
            return
        path, method = scope["path"], scope["method"]
        if method not in _ALLOWED[path]:
            await respond(send, _not_allowed(path, *_ALLOWED[path]))
            return
        principal = await self._gate.admits(headers, doubled, source)
        if isinstance(principal, Answer):
            await respond(send, principal)
            return
        about.key = principal.key_id
        if path != "/mcp":
            about.transport = "sse"
        if method == "POST":
            await self._post(scope, principal, headers, doubled, receive, send, about)
        elif path == "/sse":
            await self._legacy.get(principal, receive, send)
        elif (wrong := _wrong_head(headers, doubled)) is not None:
            await respond(send, wrong)
        elif method == "GET":
            if not await self._elsewhere.get(scope, headers, receive, send):
                await streamable.get(self._runtime, principal, headers, receive, send)
        elif not await self._elsewhere.ending(scope, headers, None, receive, send):
            await streamable.delete(self._runtime, principal, headers, send)

    async def _post(
        self,
        scope: Scope,
        principal: Principal,
        headers: dict[bytes, bytes],
        doubled: bytes | None,
        receive: Receive,
        send: Send,
        about: Access,
    ) -> None:
        wrong = _wrong_type(headers)
        if wrong is not None:
            await respond(send, wrong)
            return
        body = await read_body(receive)
        if body is None:
            about.is_gone = True
            return
        if scope["path"] != "/mcp":
            await self._message(scope, principal, body, receive, send)
            return
        try:
            message = jsonrpc.decode(body)
        except jsonrpc.Malformed as error:
            if jsonrpc.is_batch(body):
                await self._batch(scope, principal, body, headers, doubled, receive, send)
            else:
                await respond(send, refused(400, error.code, error.message, id=error.id))
            return
        about.method = getattr(message, "method", "response")
        era = _era(headers, doubled, message)
        if isinstance(era, Answer):
            await respond(send, era)
            return
        about.era = era
        if era == MODERN:
            keeper = _keeper(self._runtime, principal, message)
            if not (keeper and await self._elsewhere.worker(keeper, scope, body, receive, send)):
                await stateless.post(self._runtime, principal, message, headers, doubled, receive, send)
        elif doubled is not None:
            await respond(send, _sent_twice(doubled))
        elif (keeper := _rest_keeper(message)) and await self._elsewhere.worker(keeper, scope, body, receive, send):
            return
        elif self._elsewhere.is_here(message, headers) or not await self._elsewhere.message(
            message, scope, headers, body, receive, send
        ):
            await streamable.post(self._runtime, principal, message, headers, receive, send)

    async def _batch(
        self,
        scope: Scope,
        principal: Principal,
        body: bytes,
        headers: dict[bytes, bytes],
        doubled: bytes | None,
        receive: Receive,
        send: Send,
    ) -> None:
        era = _era(headers, doubled, None)
        if isinstance(era, Answer):
            await respond(send, era)
        elif era == MODERN:
            await respond(send, batch.not_taken(MODERN))
        elif doubled is not None:
            await respond(send, _sent_twice(doubled))
        elif not await self._elsewhere.batch(scope, headers, body, receive, send):
            await batch.post(self._runtime, principal, body, headers, receive, send)

    async def _message(self, scope: Scope, principal: Principal, body: bytes, receive: Receive, send: Send) -> None:
        ids = parse_qs(scope["query_string"].decode("latin-1")).get("session_id", [])
        if len(ids) != 1:
            why = "session_id is missing: POST to the address that the endpoint event named"
            await respond(send, refused(400, codes.INVALID_REQUEST, why))
            return
        if not await self._elsewhere.worker(ids[0].partition(".")[0], scope, body, receive, send):
            await self._legacy.post(principal, ids[0], body, send)


def _era(headers: inbound.Headers, doubled: bytes | None, message: jsonrpc.Message | None) -> str | Answer:
    """Which era a POST is in, decided per request (specification 2026-07-28, basic/versioning "Backward Compatibility")."""
    id = message.id if isinstance(message, jsonrpc.Request) else None
    if doubled == _VERSION:
        return refused(400, codes.HEADER_MISMATCH, "header MCP-Protocol-Version was sent twice", id=id)
    version = _version(headers)
    if version is not None:
        return version if version == MODERN or version in HANDSHAKE else _unsupported(version, id)
    if isinstance(message, jsonrpc.Request) and message.params and inbound.PROTOCOL_VERSION.encode() in message.params:
        meta = _meta(message)
        if inbound.PROTOCOL_VERSION in meta:
            return refused(400, codes.HEADER_MISMATCH, "header MCP-Protocol-Version is missing", id=id)
    return ""


def _keeper(runtime: Runtime, principal: Principal, message: jsonrpc.Message) -> str:
    """The worker where the call waits that this request goes on with; empty for nearly all requests."""
    if not isinstance(message, jsonrpc.Request) or not message.params:
        return ""
    if b'"requestState"' in message.params:
        return runtime.rounds.keeper(message, principal.key_id)
    return _rest_keeper(message)


def _rest_keeper(message: jsonrpc.Message) -> str:
    """The worker that keeps the rest of a cut answer, when that is what is read."""
    if not isinstance(message, jsonrpc.Request) or message.method != "resources/read":
        return ""
    if not message.params or _REST not in message.params:
        return ""
    try:
        return cuts.keeper(jsonrpc.text(jsonrpc.fields(message.params).get("uri")) or "")
    except jsonrpc.Malformed:
        return ""  # said where it is served


def _wrong_head(headers: inbound.Headers, doubled: bytes | None) -> Answer | None:
    """Why there is no GET or DELETE of /mcp for this client: they belong to the handshake revisions alone."""
    if doubled is not None:
        return _sent_twice(doubled)
    version = _version(headers)
    if version is None or version in HANDSHAKE:
        return None
    return _not_allowed(f"/mcp in {MODERN}", "POST") if version == MODERN else _unsupported(version, None)


def _version(headers: inbound.Headers) -> str | None:
    named = headers.get(_VERSION)
    return None if named is None else named.decode("latin-1").strip(" \t")


def _unsupported(version: str, id: bytes | None) -> Answer:
    unsupported = inbound.unsupported_version(version, id)
    return Answer(unsupported.status, unsupported.body())


def _sent_twice(header: bytes) -> Answer:
    return refused(400, codes.INVALID_REQUEST, f"header {header.decode('latin-1')} was sent twice")


def _not_allowed(what: str, *methods: str) -> Answer:
    taken = ", ".join(methods)
    return refused(405, codes.INVALID_REQUEST, f"{what} takes {taken}", headers=((b"allow", taken.encode()),))


def _meta(message: jsonrpc.Request) -> jsonrpc.Fields:
    try:
        return jsonrpc.fields(jsonrpc.fields(message.params).get("_meta"), "_meta")
    except jsonrpc.Malformed:
        return {}


def _wrong_type(headers: inbound.Headers) -> Answer | None:
    """Only JSON comes in (text/plain would need no preflight in a browser), and the client must take JSON back."""
    type, accept = headers.get(b"content-type", b""), headers.get(b"accept")
    judge = _judged_type if len(type) + len(accept or b"") <= _REMEMBERED_BYTES else _judge_type
    return judge(type, accept)


def _judge_type(type: bytes, accept: bytes | None) -> Answer | None:
    if type.partition(b";")[0].strip().lower() != b"application/json":
        return refused(415, codes.INVALID_REQUEST, "send Content-Type: application/json")
    if accept and not any(type in accept for type in _TAKEN):
        return refused(406, codes.INVALID_REQUEST, "accept application/json and text/event-stream")
    return None


# Every request of a client says the same.
_REMEMBERED_BYTES = 256
_judged_type = lru_cache(maxsize=256)(_judge_type)
