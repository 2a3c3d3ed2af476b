"""One request on its way to one remote and back: the name it has there, the deadline, and what is made of the outcome.

What a remote did wrong becomes an answer that says so: for a tool a result with `isError`, which a model can read
(server/tools, "Error Handling"); for everything else a JSON-RPC error.
"""

import math

import msgspec
from msgspec import UNSET, Raw

from gateway.catalog.joined import SIGNATURE, own_uri
from gateway.catalog.listing import Entry
from gateway.record import Verdict
from gateway.sessions.elicitations import Errand
from gateway.sessions.subscriptions import Subscriber
from keys.principal import Principal
from mcpserver.protocol import codes, headers, inbound, jsonrpc, results
from mcpserver.protocol.inbound import Call
from mcpserver.protocol.versions import ROUTED, TASKS
from remotes.config.snapshot import Snapshot
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Ask, Exchange, Notify
from remotes.upstream.outcome import Answer, Failure, Fault, Outcome, Refusal

SERVER_INFO = jsonrpc.encode(SIGNATURE[inbound.SERVER_INFO])
# "input_required" is served before it comes here; "task" only where the client knows tasks, and remotes are told which do.
_RESULT_TYPES = ("complete", "input_required", "task")
_READ_HINTS = b'"ttlMs":0,"cacheScope":"private"'


class Served(msgspec.Struct, frozen=True, gc=False):
    """How a request was served: the JSON-RPC answer as bytes; `code` is the JSON-RPC error code in it, 0 for a result.

    `retry_after_s`: when to ask again, where that is known; 0 otherwise. Whoever
    keeps the bytes keeps `held`, the memory that a large answer was given.
    """

    body: bytes
    verdict: Verdict = Verdict.OK
    code: int = 0
    retry_after_s: int = 0
    held: object = None


class Visit(msgspec.Struct):
    """One request on its way through; `remote` and `name` are filled in for the log line.

    `ask` puts a remote's question to the client of a session; a 2026-07-28 client is asked by `parking` instead. `subscriber`
    is how that session hears of what happens outside its requests. `waited_s`: before its turn came, out of its own time.
    """

    call: Call
    principal: Principal
    snapshot: Snapshot
    notify: Notify
    headers: inbound.Headers
    ask: Ask | None = None
    session_id: str = ""
    subscriber: Subscriber | None = None
    errands: list[Errand] = []
    remote: str = ""
    name: str = ""
    waited_s: float = 0.0


def refusal(call: Call, code: int, message: str, data: object = UNSET) -> Served:
    return Served(jsonrpc.error(call.id, code, message, data), Verdict.REFUSED, code)


def exchange_for(visit: Visit, entry: Entry, upstream: Upstream, now: float) -> Exchange:
    """The request as the remote that owns `entry` gets it. `now` is the loop's time; the deadline counts from it."""
    call = visit.call
    return Exchange(
        call.method,
        _own_params(call, entry, upstream),
        deadline=now + upstream.spec.timeout_s - visit.waited_s,
        meta=call.meta,
        capabilities=call.capabilities,
        client_info=call.client_info,
        log_level=call.log_level,
        progress_token=call.progress_token,
        param_headers=_param_headers(call, entry),
        notify=visit.notify,
        ask=visit.ask,
    )


def mismatched_header(call: Call, entry: Entry, received: inbound.Headers) -> str | None:
    """What is wrong with a modern tools/call's `Mcp-Param-*` headers, or None (streamable-http, "Server Behavior")."""
    arguments = jsonrpc.value(call.params.get("arguments") or b"{}", "arguments")
    for name in entry.paths:
        header = received.get(f"mcp-param-{name}".encode())
        value = headers.argument(entry.paths, name, arguments)
        if header is None and value is not None:
            return f"header Mcp-Param-{name} is missing"
        if header is not None and (value is None or not headers.agrees(header.decode("latin-1"), value)):
            return f"header Mcp-Param-{name} does not match the argument"
    return None


def answered(call: Call, entry: Entry, upstream: Upstream, outcome: Outcome) -> Served:
    """The outcome in the words of the client's era."""
    match outcome:
        case Answer():
            return _result(call, entry, outcome)
        case Refusal():
            return error(call, outcome)
        case Failure():
            return _failure(call, upstream, outcome)


def error(call: Call, refused: Refusal) -> Served:
    """An error of the remote, in a code that the client's era knows."""
    said = jsonrpc.error_body(refused.error)
    if call.modern and said.code == codes.RESOURCE_NOT_FOUND:
        uri = jsonrpc.text(call.params.get("uri")) or ""
        return refusal(call, codes.INVALID_PARAMS, said.message, {"uri": uri})
    if not call.modern and said.code in (codes.MISSING_CAPABILITY, codes.HEADER_MISMATCH, codes.UNSUPPORTED_VERSION):
        return refusal(call, codes.INVALID_PARAMS, said.message)
    return Served(jsonrpc.raw_error(call.id, refused.error), Verdict.REFUSED, said.code, held=refused.held)


def worded(call: Call, words: str, excerpt: bytes = b"", retry_after_s: int = 0) -> Served:
    """A failure in words; for a tool, with what came instead of an answer."""
    if call.method != "tools/call":
        body = jsonrpc.error(call.id, codes.INTERNAL_ERROR, words)
        return Served(body, Verdict.FAILED, codes.INTERNAL_ERROR, retry_after_s)
    if excerpt:
        words += f"\n\nWhat it sent instead, unverified:\n{results.untrusted(excerpt)}"
    raw = results.tool_error(words)
    if call.modern:
        raw = results.to_modern(raw, SERVER_INFO)
    return Served(jsonrpc.result(call.id, raw), Verdict.FAILED, retry_after_s=retry_after_s)


def runs_tasks(upstream: Upstream) -> bool:
    """Whether a remote is of the era in which clients ask for tasks, and takes tool calls as such."""
    greeting = upstream.greeting
    return greeting is not None and not greeting.modern and b'"call"' in bytes(greeting.capabilities.get("tasks", b""))


def _own_params(call: Call, entry: Entry, upstream: Upstream) -> jsonrpc.Fields:
    """The params with the name that the remote gave the thing."""
    if call.method in TASKS:
        return call.params | {"taskId": Raw(jsonrpc.encode(entry.own))}
    if "task" in call.params and call.method == "tools/call" and not runs_tasks(upstream):
        params = {name: raw for name, raw in call.params.items() if name != "task"}
        return params | {"name": Raw(jsonrpc.encode(entry.own))}
    if call.method == "completion/complete":
        ref = jsonrpc.fields(call.params.get("ref"), "ref")
        ref["name" if "name" in ref else "uri"] = Raw(jsonrpc.encode(entry.own))
        return call.params | {"ref": Raw(jsonrpc.encode(ref))}
    if call.method == "resources/read":
        return call.params | _own_uri(call, entry)
    return call.params | {ROUTED[call.method]: Raw(jsonrpc.encode(entry.own))}


def _own_uri(call: Call, entry: Entry) -> jsonrpc.Fields:
    """A URI without the part of its scheme that tells it from another remote's."""
    if entry.exposed == entry.own:
        return {}
    return {"uri": Raw(jsonrpc.encode(own_uri(entry, jsonrpc.text(call.params["uri"]) or "")))}


def _param_headers(call: Call, entry: Entry) -> dict[str, str]:
    if not entry.paths or call.method != "tools/call":
        return {}
    return headers.mirrored(entry.paths, jsonrpc.value(call.params.get("arguments") or b"{}", "arguments"))


def _result(call: Call, entry: Entry, answer: Answer) -> Served:
    raw = answer.result
    if raw[:1] != b"{":
        return worded(call, f"{entry.remote} answered {call.method} with a result that is no object", raw)
    try:
        if answer.modern and (type := results.result_type(raw)) not in _RESULT_TYPES:
            return worded(call, f"{entry.remote} answered with a result of the unknown type {type!r}", raw)
        if call.modern and not answer.modern:
            raw = results.to_modern(raw, SERVER_INFO, _READ_HINTS if call.method == "resources/read" else b"")
        elif answer.modern and not call.modern:
            raw = results.to_handshake(raw)
        if not call.modern:
            raw = results.to_revision(raw, call.method, call.revision)
        failed = call.method == "tools/call" and results.is_error(raw)
    except jsonrpc.Malformed as malformed:  # the remote's fault, which must not read as the caller's
        return worded(call, f"{entry.remote} answered {call.method} with a malformed result: {malformed.message}", raw)
    verdict = Verdict.TOOL_ERROR if failed else Verdict.OK
    return Served(jsonrpc.result(call.id, raw), verdict, held=answer.held)


def _failure(call: Call, upstream: Upstream, failure: Failure) -> Served:
    words = failure.message
    if failure.fault is Fault.TIMEOUT and not failure.before_request:
        words = f"{upstream.spec.name} did not answer within {upstream.spec.timeout_s:g} s"
    elif failure.fault is Fault.BUSY:
        words = f"{upstream.spec.name} is busy: {failure.message}; try again in a moment"
    return worded(call, words, failure.excerpt, math.ceil(failure.retry_after_s or 0))
