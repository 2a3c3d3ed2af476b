"""What is told of a request in the log: its id, who asked, and the one line that says how it ended.

Each HTTP request on the MCP paths has an `Access` from its first moment on, and its client gets the id back in a header. A call
is told of where it is served, with all that is known there; a request in which nothing was called (it was refused, it told
something, it opened a stream) at its end. What belongs to one HTTP request has its id: each call of a batch.
"""

import logging
import random
import time
from contextvars import ContextVar
from typing import Any

import msgspec

from mcpserver.lib import log

_log = logging.getLogger("mcp.access")

HEADER = b"x-request-id"
# A stranger, of whom we know no key, shall not push everybody else's lines out of the files.
STRANGERS_A_SECOND = 100
_WHAT_MAX = 256


class Access(msgspec.Struct, eq=False, gc=False):
    """One HTTP request. `what` it is called as long as its method is unknown; `said`: the body of its answer."""

    id: str
    began: float
    what: str
    source: str = ""
    key: str = ""
    method: str = ""
    era: str = ""
    transport: str = "http"
    status: int = 0
    said: bytes = b""
    is_told: bool = False
    is_gone: bool = False
    is_stream: bool = False


_current: ContextVar[Access] = ContextVar("access")


def new_id() -> str:
    """The time and forty random bits: unique over workers and restarts, in order, and it tells nobody how much goes on."""
    return f"{int(time.time()):x}-{random.getrandbits(40):010x}"


def begin(what: str) -> Access:
    """The request that is served from here on."""
    access = Access(new_id(), time.monotonic(), what)
    _current.set(access)
    return access


def current() -> Access:
    """The request that this is part of. Timers run as part of whichever request set them first: not there."""
    return _current.get()


def opened(access: Access) -> None:
    """The request has become a stream: told of now, and once more when it ends."""
    access.is_stream = True
    _tell(access, "opened")


def ended(access: Access, *, failed: bool = False) -> None:
    """The request is over. Where it was a call, that has been told already."""
    if not access.is_told:
        _tell(access, _outcome(access, failed=failed))


def refused(what: str, source: str, status: int, why: str) -> str:
    """A request that the server refused before it came here; its id."""
    access = Access(new_id(), time.monotonic(), what, source, status=status)
    _tell(access, "refused", {"why": why})
    return access.id


def _tell(access: Access, outcome: str, more: dict[str, Any] | None = None) -> None:
    if not access.key and not _strangers.has_room(time.monotonic()):
        return
    error = _error(access.said)
    fields: dict[str, Any] = {
        "method": (access.method or access.what)[:_WHAT_MAX],
        "key": access.key,
        "remote": "",
        "name": "",
        "era": access.era,
        "transport": access.transport,
        "outcome": outcome,
        "code": error.code,
        "source": access.source,
        "status": access.status,
    }
    if error.message:
        fields["why"] = error.message
    if access.is_gone:
        fields["client"] = "gone"
    ms = round((time.monotonic() - access.began) * 1000, 2)
    log.access(fields | (more or {}), request=access.id, ms=ms)


def _outcome(access: Access, *, failed: bool) -> str:
    if access.is_stream:
        return "closed"
    if failed or access.status in (500, 502, 504):
        return "failed"
    if not access.status:
        return "cancelled"
    return "refused" if access.status >= 400 or _error(access.said).code else "ok"


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Said(msgspec.Struct):
    """A JSON-RPC error, or the document of a 401."""

    error: _Error | str = ""
    message: str = ""


_read = msgspec.json.Decoder(_Said)


def _error(body: bytes) -> _Error:
    if b'"error"' not in body:
        return _Error()
    try:
        said = _read.decode(body)
    except msgspec.MsgspecError:
        return _Error()
    return said.error if isinstance(said.error, _Error) else _Error(message=said.message)


class _Strangers:
    """How many lines strangers have had in this second. What was left out is told with the first line after it."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def has_room(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._lines = int(now), 0
            if self._left_out:
                _log.warning("%d requests without a good key were refused and are not told of", self._left_out)
                self._left_out = 0
        self._lines += 1
        if self._lines > STRANGERS_A_SECOND:
            self._left_out += 1
            return False
        return True


_strangers = _Strangers()
