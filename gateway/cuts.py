"""Answers that are too large for clients: cut where that keeps them valid, else an error that says why. What was cut off can be
kept for a while, for whoever called, as a resource.

A kept rest is named by its worker, so that it can be read through any other (`relay`), and by 128 random bits under a scheme of
our own. It is found by that name alone and belongs to the key that called: for any other it does not exist. It is memory, bounded
per key and in all, and the first to go when memory is short.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
from msgspec import Raw

from gateway import metrics
from gateway.calls import SERVER_INFO, Served, Visit, refusal, worded
from mcpserver.protocol import cutting, jsonrpc, results
from mcpserver.protocol.cutting import Cut

SCHEME = "gateway+cut:"
_TOTAL_MAX_BYTES, _KEY_MAX_BYTES, _KEPT_MAX = 64 * 1024 * 1024, 32 * 1024 * 1024, 1000
# A loop that stands still for longer than a few milliseconds holds up everybody.
_OFF_THE_LOOP_BYTES = 1024 * 1024
_LINKS_SINCE = "2025-06-18"
_MESSAGE_MAX_CHARS = 4096
_READ_HINTS = b'"ttlMs":0,"cacheScope":"private"'


class Rest(msgspec.Struct, frozen=True):
    """What was cut off one answer: a `contents` list, as JSON. Times are monotonic seconds."""

    key_id: str
    remote: str
    contents: bytes
    expires: float


class Rests:
    """What is kept, the oldest first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.bytes = 0
        self.on_growth: Callable[[], None] = lambda: None
        self._kept: OrderedDict[str, Rest] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, uri: str, rest: Rest) -> bool:
        """False when it is more than one key may have kept."""
        size = len(rest.contents)
        if size > _KEY_MAX_BYTES:
            return False
        self.sweep()
        while self._of(rest.key_id) + size > _KEY_MAX_BYTES:
            self._forget(next(uri for uri, one in self._kept.items() if one.key_id == rest.key_id))
        self.give_way(self.bytes + size - _TOTAL_MAX_BYTES)
        if len(self._kept) >= _KEPT_MAX:
            self._forget(next(iter(self._kept)))
        self._kept[uri] = rest
        self.bytes += size
        self.on_growth()
        return uri in self._kept

    def find(self, uri: str, key_id: str) -> Rest | None:
        rest = self._kept.get(uri)
        if rest is None or rest.key_id != key_id or rest.expires <= self.now():
            return None
        return rest

    def give_way(self, need_bytes: int) -> None:
        """Forget the oldest until so many bytes are free again."""
        enough = self.bytes - need_bytes
        while self._kept and self.bytes > enough:
            self._forget(next(iter(self._kept)))

    def sweep(self) -> None:
        """Forget what was kept long enough; remotes differ in how long that is."""
        now = self.now()
        for uri in [uri for uri, rest in self._kept.items() if rest.expires <= now]:
            self._forget(uri)

    def _of(self, key_id: str) -> int:
        return sum(len(rest.contents) for rest in self._kept.values() if rest.key_id == key_id)

    def _forget(self, uri: str) -> None:
        self.bytes -= len(self._kept.pop(uri).contents)


class Cuts:
    def __init__(self, max_bytes: int, rests: Rests, worker: str = "") -> None:
        self._worker = worker
        self.max_bytes = max_bytes
        self.rests = rests
        self._thread = ThreadPoolExecutor(1, "cuts")

    async def fitted(self, visit: Visit, served: Served, keep_s: float) -> Served:
        """The answer in at most `max_bytes`. Reading one that large takes a while, which is not the loop's."""
        limit = self.max_bytes - len(visit.call.id) - 64
        if len(served.body) < _OFF_THE_LOOP_BYTES:
            cut = _cut(served.body, visit.call.method, limit)
        else:
            work = partial(_cut, served.body, visit.call.method, limit)
            cut = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        metrics.CUT.labels("cut" if isinstance(cut, Cut) else "refused").inc()
        if isinstance(cut, bytes):
            return self._refused(visit, cut)
        if cut is None:
            return worded(visit.call, self._uncuttable(visit, served))
        return msgspec.structs.replace(served, body=self._told(visit, cut, keep_s))

    async def read(self, visit: Visit, uri: str) -> Served | None:
        """The rest that a URI of ours names; None when there is none for this key."""
        rest = self.rests.find(uri, visit.principal.key_id)
        if rest is None:
            return None
        visit.remote = rest.remote
        raw = b'{"contents":' + rest.contents + b"}"
        if visit.call.modern:
            raw = results.to_modern(raw, SERVER_INFO, _READ_HINTS)
        served = Served(jsonrpc.result(visit.call.id, raw))
        if len(served.body) <= self.max_bytes:
            return served
        return await self.fitted(visit, served, rest.expires - self.rests.now())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _told(self, visit: Visit, cut: Cut, keep_s: float) -> bytes:
        call = visit.call
        uri = self._kept(visit, cut, keep_s) if keep_s > 0 else None
        words = _notice(visit, cut, uri, keep_s)
        if call.method == "resources/read":
            place = jsonrpc.encode(uri) if uri else jsonrpc.fields(cut.items[-1]).get("uri", b'"about:blank"')
            blocks: list[object] = [{"uri": Raw(place), "mimeType": "text/plain", "text": words}]
        else:
            blocks = [{"type": "text", "text": words}]
            if uri is not None and call.revision >= _LINKS_SINCE:
                name = "the rest of this answer"
                blocks.append({"type": "resource_link", "uri": uri, "name": name, "mimeType": "text/plain"})
        return jsonrpc.result(call.id, cutting.told(cut, call.method, blocks))

    def _kept(self, visit: Visit, cut: Cut, keep_s: float) -> str | None:
        uri = f"{SCHEME}//{self._worker}.{secrets.token_urlsafe(16)}"
        contents = [{"uri": uri, "mimeType": "text/plain", "text": Raw(rest)} for rest in cut.rests]
        expires = self.rests.now() + keep_s
        rest = Rest(visit.principal.key_id, visit.remote, jsonrpc.encode(contents), expires)
        return uri if self.rests.keep(uri, rest) else None

    def _refused(self, visit: Visit, raw: bytes) -> Served:
        """A JSON-RPC error of that size: the code stays, and the beginning of its words."""
        said = jsonrpc.error_body(raw)
        words = f"{said.message[:_MESSAGE_MAX_CHARS]} (the rest of this error of {visit.remote} was too large)"
        return refusal(visit.call, said.code, words)

    def _uncuttable(self, visit: Visit, served: Served) -> str:
        why = "no text that could be cut is what makes it so large"
        if not cutting.is_cut(visit.call.method):
            why = f"the answer to {visit.call.method} is never cut"
        return (
            f"{visit.remote} answered with {_size(len(served.body))}, more than the {_size(self.max_bytes)} that pass, and {why}."
            " Ask for less at once, or raise max_tool_response_size in the gateway's configuration"
        )


def keeper(uri: str) -> str:
    """The worker that keeps the rest of this name; empty for every other URI."""
    return uri.removeprefix(f"{SCHEME}//").partition(".")[0] if uri.startswith(SCHEME) else ""


def _cut(body: bytes, method: str, limit: int) -> Cut | bytes | None:
    """What is left of a result; an error as it is; None where nothing can be cut."""
    message = jsonrpc.decode(body)
    assert isinstance(message, jsonrpc.Response), "an answer of ours"
    if message.result is None:
        return message.error or b"{}"
    try:
        return cutting.cut(message.result, method, limit) if cutting.is_cut(method) else None
    except jsonrpc.Malformed:
        return None


def _notice(visit: Visit, cut: Cut, uri: str | None, keep_s: float) -> str:
    facts = cut.facts
    which = "one text" if facts.cut_blocks == 1 else f"{facts.cut_blocks} texts"
    words = (
        f"[This answer is not complete. {visit.remote} sent {_size(facts.original_bytes)}, of which the gateway passes on "
        f"{_size(facts.limit_bytes)}: {which} lost {_size(facts.cut_bytes)} at the end."
    )
    if uri is not None:
        words += f" For {keep_s:.0f} s the rest can be read as the resource {uri}"
    return words + "]"


def _size(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB" if count >= 1024 * 1024 else f"{count / 1024:.1f} KiB"
