"""Streamable HTTP of 2026-07-28: each request stands alone, is mirrored in headers, and is cancelled by closing its stream."""

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.versions import NAMED
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import envelope
from remotes.upstream.budget import Budget
from remotes.upstream.connection import LISTEN, Listener
from remotes.upstream.credential import Credential
from remotes.upstream.envelope import Exchange
from remotes.upstream.http import Http
from remotes.upstream.origin import Origin, lines_of
from remotes.upstream.outcome import Failure, Fault, Outcome, Refusal

# Heads of requests that are kept ready, and the longest name in one (a resource's may be any URI that a client made up).
_HEADS_MAX = 512
_HEAD_NAME_MAX_BYTES = 256
# What a server of an earlier era says to a request without a session or a handshake.
_NOT_MODERN_STATUSES = (400, 404, 405)
_NOT_MODERN_CODES = (-32000, codes.INVALID_REQUEST)


class Stateless(Http):
    """Revision 2026-07-28."""

    def __init__(
        self, spec: RemoteSpec, origin: Origin, listener: Listener, budget: Budget, credential: Credential
    ) -> None:
        super().__init__(spec, origin, listener, budget, credential)
        self._doubted = False
        self._heads: dict[tuple[str, bytes], bytes] = {}

    @property
    def usable(self) -> bool:
        return not self._closed and not self._doubted

    def _head(self, exchange: Exchange) -> bytes:
        """The head of a request, made once for each thing that is asked for again and again."""
        named = bytes(exchange.params.get(NAMED.get(exchange.method, ""), b""))
        head = self._heads.get((exchange.method, named))
        if head is None:
            head = self._post_head + lines_of(envelope.routing_headers(exchange))
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            if len(named) <= _HEAD_NAME_MAX_BYTES:
                self._heads[exchange.method, named] = head
        return head

    async def request(self, exchange: Exchange) -> Outcome:
        number = next(self._numbers)
        message = envelope.message(exchange, number, modern=True)
        head = self._head(exchange)
        try:
            with self._origin.deadlines.at(exchange.deadline):
                outcome = await self._post(exchange, number, message, head, exchange.param_headers)
        except TimeoutError:  # leaving the request closes its connection, which is the cancellation
            return Failure(Fault.TIMEOUT, "answer", f"{self._spec.name} did not answer {exchange.method} in time")
        # A server may well lack subscriptions, in whatever words.
        self._doubted |= exchange.method != LISTEN and _of_an_earlier_era(outcome)
        return outcome

    async def notify(self, method: str, params: bytes | None = None) -> None:
        """No notification from a client is defined in this era over HTTP."""


def _of_an_earlier_era(outcome: Outcome) -> bool:
    """Whether no server of 2026-07-28 would answer so: then what listens there has changed, and is found out anew."""
    match outcome:
        case Failure(fault=Fault.HTTP_STATUS, status=status):
            return status in _NOT_MODERN_STATUSES
        case Refusal(error, 400):
            return jsonrpc.error_body(error).code in _NOT_MODERN_CODES
        case _:
            return False
