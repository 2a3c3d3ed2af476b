"""One request on its way to one remote and back: the name it has there, the deadline, and what is made of the outcome.

What a remote did wrong becomes an answer that says so: for a tool a result with `isError`, which a model can read
(server/tools, "Error Handling"); for everything else a JSON-RPC error.
"""

from enum import StrEnum

import msgspec
from msgspec import UNSET, Raw

from gateway.catalog import SIGNATURE, Entry
from mcpserver.protocol import codes, headers, inbound, jsonrpc, results
from mcpserver.protocol.inbound import Call
from mcpserver.protocol.versions import ROUTED
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Exchange, Notify
from remotes.upstream.outcome import Answer, Failure, Fault, Outcome, Refusal

_SERVER_INFO = jsonrpc.encode(SIGNATURE[inbound.SERVER_INFO])
_READ_HINTS = b'"ttlMs":0,"cacheScope":"private"'


class Verdict(StrEnum):
    """How a request ended, for the log line and the counters."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    REFUSED = "refused"  # the remote, or we, said no in JSON-RPC
    FAILED = "failed"  # the remote gave no usable answer
    CANCELLED = "cancelled"


class Served(msgspec.Struct, frozen=True, gc=False):
    """How a request was served: the JSON-RPC answer as bytes; `code` is the JSON-RPC error code in it, 0 for a result."""

    body: bytes
    verdict: Verdict = Verdict.OK
    code: int = 0


def refusal(call: Call, code: int, message: str, data: object = UNSET) -> Served:
    return Served(jsonrpc.error(call.id, code, message, data), Verdict.REFUSED, code)


async def forward(call: Call, entry: Entry, upstream: Upstream, notify: Notify, now: float) -> Served:
    """Send `call` to the remote that owns `entry`. `now` is the loop's time; the deadline counts from it."""
    exchange = Exchange(
        call.method,
        _own_params(call, entry),
        deadline=now + upstream.spec.timeout_s,
        meta=call.meta,
        capabilities=call.capabilities,
        client_info=call.client_info,
        log_level=call.log_level,
        progress_token=call.progress_token,
        param_headers=_param_headers(call, entry),
        notify=notify,
    )
    return _answered(call, entry, upstream, await upstream.exchange(exchange))


def mismatched_header(call: Call, entry: Entry, received: inbound.Headers) -> str | None:
    """What is wrong with a modern tools/call's `Mcp-Param-*` headers, or None (streamable-http, "Server Behavior")."""
    arguments = msgspec.json.decode(call.params.get("arguments") or b"{}")
    for name in entry.paths:
        header = received.get(f"mcp-param-{name}".encode())
        value = headers.argument(entry.paths, name, arguments)
        if header is None and value is not None:
            return f"header Mcp-Param-{name} is missing"
        if header is not None and (value is None or not headers.agrees(header.decode("latin-1"), value)):
            return f"header Mcp-Param-{name} does not match the argument"
    return None


def _own_params(call: Call, entry: Entry) -> jsonrpc.Fields:
    """The params with the name that the remote gave the thing."""
    if call.method == "completion/complete":
        ref = jsonrpc.fields(call.params.get("ref"), "ref")
        ref["name" if "name" in ref else "uri"] = Raw(jsonrpc.encode(entry.own))
        return call.params | {"ref": Raw(jsonrpc.encode(ref))}
    if call.method == "resources/read":
        return call.params | _own_uri(call, entry)
    return call.params | {ROUTED[call.method]: Raw(jsonrpc.encode(entry.own))}


def _own_uri(call: Call, entry: Entry) -> jsonrpc.Fields:
    """A URI without the part of its scheme that tells it from another remote's."""
    added = len(entry.exposed) - len(entry.own)
    if not added:
        return {}
    asked = jsonrpc.text(call.params["uri"]) or ""
    return {"uri": Raw(jsonrpc.encode(asked[added:]))}


def _param_headers(call: Call, entry: Entry) -> dict[str, str]:
    if not entry.paths or call.method != "tools/call":
        return {}
    return headers.mirrored(entry.paths, msgspec.json.decode(call.params.get("arguments") or b"{}"))


def _answered(call: Call, entry: Entry, upstream: Upstream, outcome: Outcome) -> Served:
    match outcome:
        case Answer():
            return _result(call, entry, outcome)
        case Refusal():
            return _error(call, outcome)
        case Failure():
            return _failure(call, upstream, outcome)


def _result(call: Call, entry: Entry, answer: Answer) -> Served:
    raw = answer.result
    if raw[:1] != b"{":
        why = f"{entry.remote} answered {call.method} with a result that is no object"
        return _worded(call, why, answer.result)
    if call.modern and not answer.modern:
        raw = results.to_modern(raw, _SERVER_INFO, _READ_HINTS if call.method == "resources/read" else b"")
    elif answer.modern and not call.modern:
        raw = results.to_handshake(raw)
    failed = call.method == "tools/call" and b'"isError"' in raw and _is_error(raw)
    return Served(jsonrpc.result(call.id, raw), Verdict.TOOL_ERROR if failed else Verdict.OK)


def _is_error(raw: bytes) -> bool:
    return bytes(jsonrpc.fields(raw, "result").get("isError") or b"") == b"true"


def _error(call: Call, refused: Refusal) -> Served:
    """The remote's own error, in a code that the client's era knows."""
    error = jsonrpc.error_body(refused.error)
    if call.modern and error.code == codes.RESOURCE_NOT_FOUND:
        uri = jsonrpc.text(call.params.get("uri")) or ""
        return refusal(call, codes.INVALID_PARAMS, error.message, {"uri": uri})
    if not call.modern and error.code in (codes.MISSING_CAPABILITY, codes.HEADER_MISMATCH, codes.UNSUPPORTED_VERSION):
        return refusal(call, codes.INVALID_PARAMS, error.message)
    return Served(jsonrpc.raw_error(call.id, refused.error), Verdict.REFUSED, error.code)


def _failure(call: Call, upstream: Upstream, failure: Failure) -> Served:
    words = failure.message
    if failure.fault is Fault.TIMEOUT:
        words = f"{upstream.spec.name} did not answer within {upstream.spec.timeout_s:g} s"
    elif failure.fault is Fault.BUSY:
        words = f"{upstream.spec.name} is busy: {failure.message}; try again in a moment"
    elif failure.fault is Fault.UNAUTHORIZED:
        words = f"{upstream.spec.name} refused the gateway's credential: check its headers in the configuration"
    return _worded(call, words, failure.excerpt)


def _worded(call: Call, words: str, excerpt: bytes = b"") -> Served:
    if call.method != "tools/call":
        return Served(jsonrpc.error(call.id, codes.INTERNAL_ERROR, words), Verdict.FAILED, codes.INTERNAL_ERROR)
    if excerpt:
        words += f"\n\nWhat it sent instead, unverified:\n{results.untrusted(excerpt)}"
    raw = results.tool_error(words)
    if call.modern:
        raw = results.to_modern(raw, _SERVER_INFO)
    return Served(jsonrpc.result(call.id, raw), Verdict.FAILED)
