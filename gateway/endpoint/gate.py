"""Who may come in at all: the right Host, an Origin that is ours, a key that is good. In this order, before any body is read.

Source: specification 2026-07-28, basic/transports/streamable-http "Security & Endpoint" (DNS rebinding);
RFC 6750 section 3 for WWW-Authenticate.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from django.http.request import validate_host

from gateway import metrics
from gateway.endpoint.http import JSON, Answer, Scope, refused
from keys.authenticate import Authenticator, Busy, presented
from keys.principal import Principal
from mcpserver.lib.proxies import Proxies
from mcpserver.protocol import codes
from mcpserver.protocol.inbound import Headers

_REMEMBERED = 1024
# Longer ones are no browser's: whoever sends them has no key yet, and shall not fill our memory.
_REMEMBERED_BYTES = 512
# From another worker of this machine, over the socket that nobody else can open: whom it was asked by.
RELAYED_FOR = b"mcp-relayed-for"
_CREDENTIALS = (b"authorization", b"x-api-key")
# One body for every reason: whoever has no good key learns nothing about why.
_UNAUTHORIZED = b'{"error":"unauthorized","message":"send a valid key: Authorization: Bearer KEY, or X-API-Key: KEY"}'


class Gate:
    def __init__(
        self, authenticator: Authenticator, *, hosts: Iterable[str], origins: Iterable[str], proxies: Proxies
    ) -> None:
        self._authenticator = authenticator
        self._hosts = list(hosts)
        self._proxies = proxies
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._seen: dict[tuple[bytes | None, bytes | None], Answer | None] = {}

    def turns_away(self, headers: Headers, doubled: bytes | None) -> Answer | None:
        """Why a request from this Host and Origin is not served, or None."""
        if doubled in (b"host", b"origin"):
            return refused(400, codes.INVALID_REQUEST, f"header {doubled.decode()} was sent twice")
        about = (headers.get(b"host"), headers.get(b"origin"))
        if about in self._seen:
            return self._seen[about]
        if sum(map(len, filter(None, about))) > _REMEMBERED_BYTES:
            return self._judge(*about)
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        verdict = self._seen[about] = self._judge(*about)
        return verdict

    def source(self, scope: Scope) -> str:
        """Who asks: for the queue before argon2, which one source must not fill, and for the audit."""
        client = scope.get("client")
        if not client:
            told = next((value for name, value in scope["headers"] if name == RELAYED_FOR), b"")
            return told.decode("latin-1")
        peer: str = client[0]
        return self._proxies.source(peer, scope["headers"]) if self._proxies else peer

    async def admits(self, headers: Headers, doubled: bytes | None, source: str) -> Principal | Answer:
        """The principal behind the key, or the refusal."""
        if doubled in _CREDENTIALS:  # which one was meant is not for us to guess
            return self._unauthorized(b'Bearer error="invalid_token"')
        key = presented((name, headers[name]) for name in _CREDENTIALS if name in headers)
        if key is None:
            return self._unauthorized(b"Bearer")
        principal = self._authenticator.known(key, source)
        if principal is None:
            try:
                principal = await self._authenticator.verify(key, source)
            except Busy:
                metrics.REFUSED.labels("key_queue").inc()
                return refused(503, codes.INTERNAL_ERROR, "too busy to verify keys", headers=((b"retry-after", b"1"),))
        return principal or self._unauthorized(b'Bearer error="invalid_token"')

    @staticmethod
    def _unauthorized(challenge: bytes) -> Answer:
        metrics.REFUSED.labels("key").inc()
        return Answer(401, _UNAUTHORIZED, (JSON, (b"www-authenticate", challenge)))

    def _judge(self, host: bytes | None, origin: bytes | None) -> Answer | None:
        if host is None or not validate_host(_name(host.decode("latin-1")), self._hosts):
            return refused(421, codes.INVALID_REQUEST, "this Host is not served here: add it to ALLOWED_HOSTS")
        if origin is not None and not self._ours(origin.decode("latin-1")):
            return refused(403, codes.INVALID_REQUEST, "this Origin is not allowed: add it to MCP_ALLOWED_ORIGINS")
        return None

    def _ours(self, origin: str) -> bool:
        """A page served from one of our own hosts, or one that the operator named; never `null`."""
        if origin.lower().rstrip("/") in self._origins:
            return True
        try:
            name = urlsplit(origin).hostname
        except ValueError:
            return False
        if name is None:
            return False
        return validate_host(f"[{name}]" if ":" in name else name, [one for one in self._hosts if one != "*"])


def _name(host: str) -> str:
    """Host without its port, in the form that ALLOWED_HOSTS has it."""
    name, _, port = host.rpartition(":")
    bare = name if name and port.isdigit() else host
    return bare.lower().rstrip(".")
