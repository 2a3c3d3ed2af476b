"""The credentials of a process, one for each remote that can have one, whichever sessions with it are open."""

import logging
from collections.abc import Callable, Container
from typing import Any

from django.conf import settings

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError
from remotes.config.snapshot import RemoteSpec
from remotes.tokens import store
from remotes.tokens.credential import Surroundings, TokenCredential
from remotes.tokens.vault import Vault
from remotes.upstream.credential import NO_CREDENTIAL, Credential

log = logging.getLogger("mcp.tokens")


class Credentials:
    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._held: dict[str, TokenCredential] = {}
        self._left: list[TokenCredential] = []

    def of(self, spec: RemoteSpec) -> Credential:
        """The same one for all sessions of a remote, and across revisions that leave its address and `auth` alone."""
        if not may_have_token(spec):
            return NO_CREDENTIAL
        fresh = TokenCredential(spec, self._around)
        held = self._held.get(spec.name)
        if held is not None and held.binding == fresh.binding:
            held.spec = spec
            return held
        if held is not None:
            self._left.append(held)
        self._held[spec.name] = fresh
        return fresh

    def keep(self, names: Container[str]) -> None:
        """Only these remotes are configured."""
        self._left += [self._held.pop(name) for name in list(self._held) if name not in names]

    async def tend(self) -> None:
        """Each second: renew what is due, and follow what other processes stored as soon as that can be read."""
        for one in self._held.values():
            one.renew_if_due()
        leaving, self._left = self._left, []
        for one in leaving:
            await one.close()
        if not self._held:
            return
        try:
            versions = await in_database(store.versions)
        except GatewayError as error:
            log.debug("stored tokens cannot be looked at: %s", error.message)
            return
        for one in self._held.values():
            one.tend(versions.get(one.spec.name, 0))

    def describe(self, name: str) -> dict[str, Any] | None:
        held = self._held.get(name)
        return held.describe() if held is not None else None

    async def close(self) -> None:
        for one in (*self._held.values(), *self._left):
            await one.close()


def may_have_token(spec: RemoteSpec) -> bool:
    """Whether tokens are for this remote at all: a process has its environment, an Authorization header speaks for itself."""
    return spec.transport != "stdio" and not any(name.lower() == "authorization" for name in spec.headers)


def for_gateway(clock: Clock, on_change: Callable[[str], None]) -> Credentials:
    return Credentials(Surroundings(Vault(settings.MCP_ENCRYPTION_KEYS), clock, on_change, renews_alone=True))


def for_probe(spec: RemoteSpec) -> Credential:
    """For one try, whatever became of the credential."""
    return Credentials(Surroundings(Vault(settings.MCP_ENCRYPTION_KEYS), SystemClock(), insists=True)).of(spec)
