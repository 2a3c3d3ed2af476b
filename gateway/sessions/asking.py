"""What a remote asks in the middle of a call (elicitation, sampling, roots), in the words of whoever is asked.

Values and decisions only; who carries a question to a client is `parking` (2026-07-28) and the session's own stream (before).
Source: specification 2025-11-25, client/elicitation, client/sampling, client/roots; 2026-07-28, basic/patterns/mrtr.
"""

import secrets
from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Raw

from mcpserver.protocol import codes, jsonrpc
from remotes.upstream.outcome import Answer, Refusal

# Each question and the client capability without which it must not be put.
CAPABILITY = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


class Question(msgspec.Struct, frozen=True):
    method: str
    params: bytes | None = None


Reply = Answer | Refusal
"""A client's answer: its result, or its error."""

_CARRIED = ("elicitation", "roots", "sampling")
_CANCELLED = Answer(b'{"action":"cancel"}', modern=False)


def not_offered(method: str) -> Refusal:
    return Refusal(_error(codes.METHOD_NOT_FOUND, f"the client does not offer {method}"))


def unanswered(method: str, why: str) -> Reply:
    """What a remote is told when nobody answered: an elicitation has a word for it, the others have an error."""
    return _CANCELLED if method == "elicitation/create" else Refusal(_error(codes.INTERNAL_ERROR, why))


def declared(capabilities: Raw | bytes) -> frozenset[str]:
    """Which questions a client can answer: elicitation, elicitation.url, sampling, roots."""
    try:
        fields = jsonrpc.fields(bytes(capabilities))
    except jsonrpc.Malformed:
        return frozenset()
    found: set[str] = {name for name in _CARRIED if name in fields}
    if "elicitation" in fields:
        try:
            if "url" in jsonrpc.fields(fields["elicitation"]):
                found.add("elicitation.url")
        except jsonrpc.Malformed:
            found.discard("elicitation")
    return frozenset(found)


def carried(capabilities: Raw | bytes) -> bytes:
    """The part of a client's capabilities that is about being asked, in one spelling: sessions are shared by it."""
    try:
        fields = jsonrpc.fields(bytes(capabilities))
        kept = {name: jsonrpc.value(fields[name], name) for name in _CARRIED if name in fields}
    except jsonrpc.Malformed:
        return b"{}"
    return msgspec.json.encode(kept, order="sorted")


def is_offered(question: Question, offered: frozenset[str]) -> bool:
    """Whether a client that declared `offered` may be asked this."""
    if CAPABILITY.get(question.method) not in offered:
        return False
    return _mode(question) != "url" or "elicitation.url" in offered


def needed(questions: Iterable[Question]) -> dict[str, dict[str, object]]:
    """The client capabilities without which these must not be asked."""
    capabilities: dict[str, dict[str, object]] = {}
    for question in questions:
        of_it = capabilities.setdefault(CAPABILITY[question.method], {})
        if question.method == "elicitation/create":
            of_it[_mode(question)] = {}
    return capabilities


def for_session(question: Question) -> Question:
    """A 2026-07-28 remote's question for a client of an earlier revision, where a URL elicitation needs an id."""
    if _mode(question) != "url":
        return question
    fields = jsonrpc.fields(question.params)
    fields.setdefault("elicitationId", Raw(jsonrpc.encode(secrets.token_hex(16))))
    return Question(question.method, jsonrpc.encode(fields))


def for_modern(question: Question) -> Question:
    """A handshake remote's question for a 2026-07-28 client, which knows no elicitation ids."""
    if _mode(question) != "url":
        return question
    fields = jsonrpc.fields(question.params)
    fields.pop("elicitationId", None)
    return Question(question.method, jsonrpc.encode(fields))


def required(questions: dict[str, Question], state: str | None) -> bytes:
    """The `input_required` result that puts questions to a 2026-07-28 client."""
    requests = {
        key: {"method": one.method} | ({} if one.params is None else {"params": Raw(one.params)})
        for key, one in questions.items()
    }
    result: dict[str, object] = {"resultType": "input_required", "inputRequests": requests}
    if state is not None:
        result["requestState"] = state
    return jsonrpc.encode(result)


class InputRequired(msgspec.Struct, frozen=True):
    """A 2026-07-28 remote's `input_required` result, read."""

    questions: dict[str, Question]
    state: str | None


class _Request(msgspec.Struct):
    method: str
    params: Raw = Raw(b"")


class _Result(msgspec.Struct, rename="camel"):
    input_requests: dict[str, _Request] = {}
    request_state: str | None = None


def read_required(raw: bytes) -> InputRequired | None:
    """None when it is not what the specification says (it needs questions or a state)."""
    try:
        result = msgspec.json.decode(raw, type=_Result)
    except jsonrpc.UNREADABLE:
        return None
    if not result.input_requests and result.request_state is None:
        return None
    questions = {
        key: Question(one.method, bytes(one.params) if bytes(one.params) else None)
        for key, one in result.input_requests.items()
        if one.method in CAPABILITY
    }
    return InputRequired(questions, result.request_state) if len(questions) == len(result.input_requests) else None


def with_state(raw: bytes, state: str | None) -> bytes:
    """The same result with another state, or none."""
    fields = jsonrpc.fields(raw, "result")
    fields.pop("requestState", None)
    if state is not None:
        fields["requestState"] = Raw(jsonrpc.encode(state))
    return jsonrpc.encode(fields)


def required_by_error(error: jsonrpc.ErrorBody) -> dict[str, Question] | None:
    """The questions in a handshake remote's URL-elicitation error (-32042), or None when it holds none."""
    if error.code != codes.URL_ELICITATION_REQUIRED or error.data is UNSET:
        return None
    try:
        listed = jsonrpc.listed(jsonrpc.fields(bytes(error.data), "data").get("elicitations"), "elicitations")
    except jsonrpc.Malformed:
        return None
    return {
        f"url-{number}": for_modern(Question("elicitation/create", bytes(one))) for number, one in enumerate(listed, 1)
    }


def _mode(question: Question) -> str:
    if question.method != "elicitation/create" or question.params is None or b'"url"' not in question.params:
        return "form"
    return jsonrpc.text(jsonrpc.fields(question.params).get("mode")) or "form"


def _error(code: int, message: str) -> bytes:
    return jsonrpc.encode({"code": code, "message": message})
