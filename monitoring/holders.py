"""Who asks for a page with a key: found out before Django is entered, on the loop, where keys are checked.

A page is for everybody, so nobody is turned away here: a key that is not good, or cannot be checked just now, is no key.
"""

from typing import Any

from gateway.endpoint.gate import Gate
from gateway.endpoint.http import Receive, Scope, Send
from keys.principal import Principal
from mcpserver.protocol import inbound

_HOLDER = "mcp.holder"
# The pages that tell more to some than to others.
_TELLING = frozenset({"/health", "/health/", "/metrics", "/metrics/"})
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})


class Pages:
    """Django's pages, told whose key came with the request."""

    def __init__(self, pages: Any, gate: Gate) -> None:
        self._pages = pages
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in _TELLING or not any(name in _CREDENTIALS for name, _ in scope["headers"]):
            await self._pages(scope, receive, send)
            return
        headers, doubled = inbound.single(scope["headers"])
        found = await self._gate.admits(headers, doubled, self._gate.source(scope))
        holder = found if isinstance(found, Principal) else None
        await self._pages({**scope, _HOLDER: holder}, receive, send)


def sees_everything(request: Any) -> bool:
    """Whether a key came with it that nothing is hidden from."""
    holder: Principal | None = getattr(request, "scope", {}).get(_HOLDER)
    return holder is not None and not holder.grant.is_restricted
