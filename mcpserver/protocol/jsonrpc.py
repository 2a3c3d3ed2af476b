"""JSON-RPC 2.0 messages in and out, with payloads left as the bytes that came.

The envelope is decoded, `params`, `result` and `error` are not: wide integers, unknown fields and key order survive a
relay, and a 10 MB answer costs milliseconds. One strict reader serves both roles. What it refuses: bytes that are not
UTF-8, nesting that would exhaust the stack, an envelope with a key twice, ids that are neither string nor integer, numbers
that no other reader could hold. What it mends: a lone surrogate escape (sent by clients that cut an emoji in two) becomes
U+FFFD instead of losing the message.

Whatever the bytes, reading takes time and memory in proportion to their length, and raises nothing but `Malformed`. What would
list millions of members refuses to.
"""

import json
import re
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mcpserver.protocol import codes, jsontext

NULL = b"null"
Fields = dict[str, Raw]
T = TypeVar("T")


class Malformed(Exception):
    """A message that cannot be served; `code` is the JSON-RPC error to answer with, `id` the raw id where it is known."""

    def __init__(self, code: int, message: str, id: bytes | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


class Request(msgspec.Struct, frozen=True, gc=False):
    id: bytes  # raw JSON, so that 1, "1" and 12345678901234567890 go back as they came
    method: str
    params: bytes | None = None


class Notification(msgspec.Struct, frozen=True, gc=False):
    method: str
    params: bytes | None = None


class Response(msgspec.Struct, frozen=True, gc=False):
    """Exactly one of `result` and `error` is set; `id` is None for an error about a message that had none.

    `mended`: half a character (a lone surrogate) was replaced by U+FFFD somewhere in it.
    """

    id: bytes | None
    result: bytes | None = None
    error: bytes | None = None
    mended: bool = False


Message = Request | Notification | Response

UNREADABLE = (msgspec.DecodeError, RecursionError)
"""What a typed decoder of msgspec raises: bytes that `decode` took may still be nested, or a number out of range, for it."""


class ErrorBody(msgspec.Struct):
    """The `error` member, decoded where a bridge or a log line must look inside."""

    code: int = codes.INTERNAL_ERROR
    message: str = ""
    data: Raw | UnsetType = UNSET


class _Envelope(msgspec.Struct, gc=False):
    jsonrpc: str
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_envelope = msgspec.json.Decoder(_Envelope)
_fields = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_strings = msgspec.json.Decoder(list[str])
_error = msgspec.json.Decoder(ErrorBody)
_encode = msgspec.json.Encoder().encode
_ID = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?\d+', re.DOTALL)
_ENVELOPE_KEYS = ("jsonrpc", "id", "method", "params", "result", "error")
# Beside the payload; nobody's envelope comes near it.
_ENVELOPE_MAX_BYTES = 64 * 1024


def decode(body: bytes) -> Message:
    """Read one message; raises Malformed (parse error or invalid request)."""
    envelope, body, mended = _read(body)
    id = _id(envelope)
    if envelope.jsonrpc != "2.0":
        raise Malformed(codes.INVALID_REQUEST, 'jsonrpc must be "2.0"', id)
    params, result, error = _bytes(envelope.params), _bytes(envelope.result), _bytes(envelope.error)
    if not _is_accounted_for(envelope, body, id, params or result or error):
        _refuse_doubled_keys(body, params or result or error, id)
    if envelope.method is not UNSET:
        if result is not None or error is not None:
            raise Malformed(codes.INVALID_REQUEST, "a request has no result and no error", id)
        return _request_or_notification(str(envelope.method), params, id)
    if (result is None) == (error is None):
        raise Malformed(codes.INVALID_REQUEST, "a message has a method, or either a result or an error", id)
    if result is not None and id is None:
        raise Malformed(codes.INVALID_REQUEST, "a result needs the id of its request")
    return Response(id, result, error, mended)


def decode_batch(body: bytes, longest: int) -> list[Message]:
    """Read the messages of a batch: requests and notifications, or responses. Raises Malformed: one bad one spoils it all."""
    if jsontext.is_crowded(body):
        raise Malformed(codes.INVALID_REQUEST, f"a batch has 1 to {longest} messages")
    try:
        raws = _batch_items(body)
    except UNREADABLE as error:
        raise Malformed(codes.PARSE_ERROR, f"not JSON: {error}") from None
    if not 0 < len(raws) <= longest:
        raise Malformed(codes.INVALID_REQUEST, f"a batch has 1 to {longest} messages, this one has {len(raws)}")
    messages = [decode(bytes(raw)) for raw in raws]
    if len({isinstance(message, Response) for message in messages}) > 1:
        raise Malformed(codes.INVALID_REQUEST, "a batch holds requests and notifications, or responses, not both")
    ids = [message.id for message in messages if isinstance(message, Request)]
    if len(set(ids)) < len(ids):
        raise Malformed(codes.INVALID_REQUEST, "a batch with two requests of one id")
    return messages


def is_batch(body: bytes) -> bool:
    """Whether the body is a JSON array: a batch, which only revision 2025-03-26 allows."""
    return body.lstrip(b" \t\r\n")[:1] == b"["


def fields(raw: bytes | Raw | None, what: str = "params") -> Fields:
    """The members of a JSON object, values undecoded; an absent one is empty. Raises Malformed (invalid params)."""
    if raw is None:
        return {}
    if jsontext.is_crowded(raw):
        raise Malformed(codes.INVALID_PARAMS, f"{what} has too many members or levels")
    try:
        return _fields.decode(raw)
    except UNREADABLE:
        raise Malformed(codes.INVALID_PARAMS, f"{what} must be an object") from None


def listed(raw: bytes | Raw | None, what: str) -> list[Raw]:
    """The elements of a JSON array, undecoded. Raises Malformed (invalid params)."""
    return _listed(_items, raw, what)


def strings(raw: bytes | Raw | None, what: str) -> list[str]:
    """The elements of a JSON array of strings. Raises Malformed (invalid params)."""
    return _listed(_strings, raw, what)


def items(raw: bytes | Raw | None) -> list[Raw]:
    """The elements of a JSON array, undecoded; anything else has none."""
    try:
        return [] if raw is None else listed(raw, "it")
    except Malformed:
        return []


def text(raw: Raw | bytes | None) -> str | None:
    """The string behind a raw value, or None when it is absent or anything else."""
    if raw is None or bytes(raw[:1] if isinstance(raw, bytes) else raw)[:1] != b'"':
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except UNREADABLE:
        return None


def value(raw: Raw | bytes | None, what: str = "params") -> Any:
    """The plain values behind a payload, for where something must look inside; raises Malformed (invalid params).

    What a reader of bytes passes on may still be too much for one of values: a number out of range, nesting.
    """
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise Malformed(codes.INVALID_PARAMS, f"{what} cannot be read: {error}") from None


def error_body(raw: bytes) -> ErrorBody:
    """Look inside an `error` member; one of the wrong shape reads as an internal error that quotes it."""
    try:
        return _error.decode(raw)
    except UNREADABLE:
        return ErrorBody(message=raw[:200].decode("utf-8", "replace"))


def encode(value: Any) -> bytes:
    """JSON bytes of plain values; `Raw` members are copied as they are."""
    return _encode(value)


def request(id: bytes, method: str, params: bytes | None) -> bytes:
    tail = b"}" if params is None else b',"params":' + params + b"}"
    return b'{"jsonrpc":"2.0","id":' + id + b',"method":' + _encode(method) + tail


def notification(method: str, params: bytes | None) -> bytes:
    tail = b"}" if params is None else b',"params":' + params + b"}"
    return b'{"jsonrpc":"2.0","method":' + _encode(method) + tail


def result(id: bytes, raw: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + id + b',"result":' + raw + b"}"


def error(id: bytes | None, code: int, message: str, data: Any = UNSET) -> bytes:
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not UNSET:
        body["data"] = data
    return raw_error(id, _encode(body))


def raw_error(id: bytes | None, raw: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + (NULL if id is None else id) + b',"error":' + raw + b"}"


def _read(body: bytes) -> tuple[_Envelope, bytes, bool]:
    """The envelope, the body as it was read, and whether that is not the one that came."""
    wrong = jsontext.not_utf8(body)
    if wrong is not None:
        raise Malformed(codes.PARSE_ERROR, wrong)
    mended = False
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        raise Malformed(codes.INVALID_REQUEST, f"not a JSON-RPC message: {error}") from None
    except msgspec.DecodeError as error:
        envelope, body = _mended(body, error)
        mended = True
    except RecursionError:
        raise Malformed(codes.PARSE_ERROR, "nested too deeply") from None
    wrong = jsontext.huge_number(body)
    if wrong is not None:
        raise Malformed(codes.PARSE_ERROR, wrong)
    return envelope, body, mended


def _mended(body: bytes, cause: msgspec.DecodeError) -> tuple[_Envelope, bytes]:
    """Read again what failed only for lone surrogates."""
    mended = jsontext.without_lone_surrogates(body)
    if mended is body:
        raise Malformed(codes.PARSE_ERROR, f"not JSON: {cause}") from None
    try:
        return _envelope.decode(mended), mended
    except msgspec.ValidationError as error:
        raise Malformed(codes.INVALID_REQUEST, f"not a JSON-RPC message: {error}") from None
    except UNREADABLE as error:
        raise Malformed(codes.PARSE_ERROR, f"not JSON: {error}") from None


def _listed(decoder: msgspec.json.Decoder[list[T]], raw: bytes | Raw | None, what: str) -> list[T]:
    if raw is None:
        raise Malformed(codes.INVALID_PARAMS, f"{what} is missing")
    if jsontext.is_crowded(raw):
        raise Malformed(codes.INVALID_PARAMS, f"{what} has too many elements or levels")
    try:
        return decoder.decode(raw)
    except UNREADABLE:
        raise Malformed(codes.INVALID_PARAMS, f"{what} must be a list") from None


def _batch_items(body: bytes) -> list[Raw]:
    try:
        return _items.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _items.decode(jsontext.without_lone_surrogates(body))


def _id(envelope: _Envelope) -> bytes | None:
    if envelope.id is UNSET:
        return None
    raw = bytes(envelope.id).strip()
    if raw == NULL and envelope.method is UNSET:
        return None
    if not _ID.fullmatch(raw):
        raise Malformed(codes.INVALID_REQUEST, "an id is a string or an integer")
    return raw


def _bytes(raw: Raw | UnsetType) -> bytes | None:
    return None if raw is UNSET else bytes(raw)


def _request_or_notification(method: str, params: bytes | None, id: bytes | None) -> Request | Notification:
    if params is not None and params[:1] != b"{":
        raise Malformed(codes.INVALID_REQUEST if id is None else codes.INVALID_PARAMS, "params must be an object", id)
    return Notification(method, params) if id is None else Request(id, method, params)


def _is_accounted_for(envelope: _Envelope, body: bytes, id: bytes | None, payload: bytes | None) -> bool:
    """Whether what was read explains every quotation mark around the payload: then no key stands there twice.

    Two for each key and each string value. Clears nearly every message for the price of a look at a few bytes.
    """
    around = body if payload is None else _around(body, payload)
    quotes = 4
    if envelope.id is not UNSET:
        quotes += 4 if id is not None and id[:1] == b'"' else 2
    if envelope.method is not UNSET:
        quotes += 4
    if payload is not None:
        quotes += 2
    return around.count(b'"') == quotes and b"\\" not in around


def _around(body: bytes, payload: bytes, instead: bytes = b"") -> bytes:
    """The body with something else for its payload, which stands last in what nearly everybody sends."""
    at = len(body) - len(payload) - 1
    if not body.startswith(payload, at):
        at = body.find(payload)
    return body[:at] + instead + body[at + len(payload) :]


def _refuse_doubled_keys(body: bytes, payload: bytes | None, id: bytes | None) -> None:
    """Two readers of `{"method": a, "method": b}` may disagree on what it says, so nobody gets to read it.

    Of a large message only what stands around the payload is looked at.
    """
    around = body
    if len(body) > _ENVELOPE_MAX_BYTES and payload is not None:
        around = _around(body, payload, b"0")
    if len(around) > _ENVELOPE_MAX_BYTES:
        raise Malformed(codes.INVALID_REQUEST, "too much beside the payload", id)
    last: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        nonlocal last
        last = pairs  # the outermost object is completed last

    try:
        # Numbers are not looked at, and one of 5,000 digits is no error here.
        json.loads(around, object_pairs_hook=keep, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        raise Malformed(codes.PARSE_ERROR, "nested too deeply", id) from None
    names = [name for name, _ in last]
    doubled = {name for name in names if name in _ENVELOPE_KEYS and names.count(name) > 1}
    if doubled:
        raise Malformed(codes.INVALID_REQUEST, f"{', '.join(sorted(doubled))} given twice", id)
