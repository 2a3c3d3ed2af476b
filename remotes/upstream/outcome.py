"""What can come of a request to a remote. A caller matches on it; nothing here is raised.

Pure values: the breaker, the retry policy and the caller's error text are decided from these alone.
"""

from enum import StrEnum

import msgspec


class Fault(StrEnum):
    """Why there is no answer. The words reach operators through status and logs."""

    NOT_SENT = "not_sent"  # provably never reached the remote: refused, unreachable, DNS, TLS, process not started
    TIMEOUT = "timeout"
    BROKEN = "broken"  # the connection ended after the request was sent
    INVALID = "invalid"  # what came is no answer to what was asked
    TOO_LARGE = "too_large"
    HTTP_STATUS = "http_status"  # an HTTP error that is not one of MCP's
    UNAUTHORIZED = "unauthorized"
    BUSY = "busy"
    CROWDED = "crowded"  # we had no memory for the answer in time; the remote may well have done its work
    DEGRADED = "degraded"  # it is left alone for a while: its circuit is open, nothing was sent


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The remote's `result`, byte for byte; `modern` says in which era it is written.

    Whoever keeps the bytes keeps `held`: the memory that they take is given back with it (`budget`).
    """

    result: bytes
    modern: bool
    held: object = None


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The remote's `error`, byte for byte; `status` is the HTTP status it came with, 0 on other transports."""

    error: bytes
    status: int = 0
    held: object = None


class Failure(msgspec.Struct, frozen=True):
    """No usable answer. `phase` is where it went wrong (connect, handshake, send, answer); `excerpt` what came, if anything.

    `message` may be shown to callers; `detail` is for operators alone: it may hold paths and a remote's own last words.
    `before_request`: it came while connecting or shaking hands for a request that was not sent any more.
    """

    fault: Fault
    phase: str
    message: str
    excerpt: bytes = b""
    status: int = 0
    retry_after_s: float | None = None
    detail: str = ""
    before_request: bool = False

    @property
    def is_unsent(self) -> bool:
        """Whether the remote provably has not seen the request."""
        return self.before_request or self.fault in (Fault.NOT_SENT, Fault.BUSY, Fault.DEGRADED)

    @property
    def told(self) -> str:
        """Everything, for status and logs."""
        return f"{self.message}: {self.detail}" if self.detail else self.message


Outcome = Answer | Refusal | Failure


class Failed(Exception):
    """Carries a Failure out of the depths of a transport; `Connection.request` turns it back into a value."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


# What is shorter than this is as likely a word of the answer as a secret.
_SECRET_MIN = 8


def untold(failure: Failure, sent: tuple[str, ...]) -> Failure:
    """The failure without the credentials that were `sent` in headers: error pages quote what they got."""
    excerpt = failure.excerpt
    for value in sent:
        for secret in (value, value.rpartition(" ")[2]):
            if len(secret) >= _SECRET_MIN and excerpt:
                excerpt = excerpt.replace(secret.encode("utf-8", "surrogateescape"), b"[redacted]")
    return failure if excerpt is failure.excerpt else msgspec.structs.replace(failure, excerpt=excerpt)
