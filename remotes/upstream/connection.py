"""What every transport offers once it is open: who is there, and one request at a time or many."""

import logging
import time
from typing import Protocol

import msgspec
from msgspec import Raw

from mcpserver.protocol import jsonrpc
from mcpserver.protocol.versions import LOG_LEVELS, MODERN
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal

log = logging.getLogger("mcp.upstream")

# A remote that does it does it often; one line in so many seconds tells enough.
_MENDED_EVERY_S = 60.0
_mended_at: dict[str, float] = {}


class Greeting(msgspec.Struct, frozen=True):
    """What the handshake or discovery told. `capabilities` by name, undecoded."""

    transport: str
    revision: str
    capabilities: jsonrpc.Fields
    server_info: bytes = b"{}"
    instructions: str = ""

    @property
    def modern(self) -> bool:
        return self.revision == MODERN


class Listener(Protocol):
    """Who is told what a remote says outside any request."""

    def changed(self, kind: str) -> None:
        """A list changed: `tools`, `prompts` or `resources`."""

    def updated(self, uri: str) -> None:
        """A resource changed, or one below it, under the remote's own URI."""

    def completed(self, elicitation_id: str) -> None:
        """What a person was sent elsewhere for is done there (notifications/elicitation/complete)."""

    def task_changed(self, params: bytes) -> None:
        """A task has another status; the params of the notification hold the whole task."""

    def lost(self, failure: Failure) -> None:
        """The connection ended by itself."""


class Connection(Protocol):
    greeting: Greeting

    @property
    def usable(self) -> bool:
        """Whether a request may be sent now; once False it stays False."""

    @property
    def is_doubtful(self) -> bool:
        """Whether a question that comes now could be that of a call nobody waits for any more."""

    async def request(self, exchange: Exchange) -> Outcome:
        """Send and await the answer within the exchange's deadline. Being cancelled tells the remote."""

    async def notify(self, method: str, params: bytes | None = None) -> None:
        """Tell the remote something, where its era has a way; a failure shows in the next request."""

    async def close(self) -> None:
        """End it: what is in flight fails, the remote is told where its transport has a way."""


CHANGES = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}


LISTEN = "subscriptions/listen"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


def heard(listener: Listener, message: jsonrpc.Notification) -> bool:
    """Hand on what a remote says outside any request; False when it is something else."""
    kind = CHANGES.get(message.method)
    if kind is not None:
        listener.changed(kind)
    elif message.method == "notifications/resources/updated":
        if uri := _named(message, "uri"):
            listener.updated(uri)
    elif message.method == "notifications/elicitation/complete":
        if id := _named(message, "elicitationId"):
            listener.completed(id)
    elif message.method == "notifications/tasks/status":
        if _named(message, "taskId") and message.params is not None:
            listener.task_changed(message.params)
    else:
        return False
    return True


def _named(message: jsonrpc.Notification, field: str) -> str | None:
    try:
        return jsonrpc.text(jsonrpc.fields(message.params).get(field))
    except jsonrpc.Malformed:
        return None  # a notification has nobody to complain to


def lower_level(greeting: Greeting, current: str, exchange: Exchange) -> Exchange | None:
    """The request that brings a session's log level down to what this caller wants, or None when nothing is to be done.

    A session has one level for all its callers: it goes down to the most talkative one's and stays there.
    """
    wanted = exchange.log_level or ""
    if "logging" not in greeting.capabilities:
        return None
    if current and LOG_LEVELS.index(wanted) >= LOG_LEVELS.index(current):
        return None
    return Exchange("logging/setLevel", {"level": Raw(jsonrpc.encode(wanted))}, deadline=exchange.deadline)


def _tell_of_mending(name: str) -> None:
    now = time.monotonic()
    if now - _mended_at.get(name, -_MENDED_EVERY_S) >= _MENDED_EVERY_S:
        _mended_at[name] = now
        log.warning("%s sends text that is cut inside a character; it is passed on with U+FFFD there", name)


class _Error(msgspec.Struct):
    """What makes an `error` one: JSON-RPC 2.0, section 5.1."""

    code: int
    message: str


def as_outcome(name: str, response: jsonrpc.Response, *, modern: bool, status: int = 0, held: object = None) -> Outcome:
    """What a response means; an `error` that is none would otherwise be relayed as if it were."""
    if response.mended:
        _tell_of_mending(name)
    if response.error is None:
        return Answer(response.result or b"{}", modern, held)
    try:
        msgspec.json.decode(response.error, type=_Error)
    except jsonrpc.UNREADABLE:
        why = f"{name} sent no valid answer: its error has no code and message"
        return Failure(Fault.INVALID, "answer", why, response.error[:4096], status)
    return Refusal(response.error, status, held)


def greeting(transport: str, raw: bytes) -> Greeting:
    """Read an `initialize` result; raises Failed when it is none."""
    try:
        fields = jsonrpc.fields(raw, "the initialize result")
        revision = jsonrpc.text(fields.get("protocolVersion"))
        capabilities = jsonrpc.fields(fields.get("capabilities"), "capabilities")
    except jsonrpc.Malformed as error:
        raise Failed(Failure(Fault.INVALID, "handshake", error.message, raw[:4096])) from None
    if revision is None:
        raise Failed(Failure(Fault.INVALID, "handshake", "the initialize result names no protocolVersion", raw[:4096]))
    return Greeting(
        transport=transport,
        revision=revision,
        capabilities=capabilities,
        server_info=bytes(fields.get("serverInfo") or b"{}"),
        instructions=jsonrpc.text(fields.get("instructions")) or "",
    )


def discovered(transport: str, raw: bytes) -> Greeting | None:
    """Read a `server/discover` result; None when it is none, or offers no revision of this era."""
    try:
        fields = jsonrpc.fields(raw, "the discover result")
        capabilities = jsonrpc.fields(fields.get("capabilities"), "capabilities")
        versions = jsonrpc.strings(fields.get("supportedVersions"), "supportedVersions")
        meta = jsonrpc.fields(fields.get("_meta"), "_meta")
    except jsonrpc.Malformed:
        return None
    if MODERN not in versions:
        return None
    return Greeting(
        transport=transport,
        revision=MODERN,
        capabilities=capabilities,
        server_info=bytes(meta.get("io.modelcontextprotocol/serverInfo") or b"{}"),
        instructions=jsonrpc.text(fields.get("instructions")) or "",
    )
