"""One list of one remote, read to its last page within its time; a list without an end is given up."""

import msgspec
from msgspec import Raw

from mcpserver.protocol import jsonrpc
from mcpserver.protocol.versions import LISTS
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Refusal

_PAGES_MAX = 1000
_ENTRIES_MAX = 20_000
_LIST_MAX_BYTES = 32 * 1024 * 1024


class Pages(msgspec.Struct, frozen=True):
    """All entries in the remote's order, undecoded; how long they hold and for whom, as a modern remote says it."""

    entries: list[Raw]
    ttl_ms: int
    public: bool


async def read(upstream: Upstream, method: str, deadline: float) -> Pages:
    """Raises Failed."""
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
        if len(found) > _ENTRIES_MAX or size > _LIST_MAX_BYTES:
            break
        if cursor is None:
            return Pages(found, ttl_ms, public)
        if cursor in cursors:
            break
        cursors.add(cursor)
        params = {"cursor": Raw(jsonrpc.encode(cursor))}
    why = f"{upstream.spec.name} never ends its {method}: {len(found)} entries so far, and a cursor that came twice or too much"
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
        return jsonrpc.listed(result.get(LISTS[method]), LISTS[method])
    except jsonrpc.Malformed as error:
        why = f"the result of {method} from {name} cannot be read: {error.message}"
        raise Failed(Failure(Fault.INVALID, "list", why)) from None


def _whole_number(raw: Raw | None) -> int:
    try:
        return max(0, msgspec.json.decode(raw, type=int)) if raw is not None else 0
    except jsonrpc.UNREADABLE:
        return 0
