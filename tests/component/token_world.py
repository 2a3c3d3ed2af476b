"""An authorization server, a remote that takes its tokens, and the gateway's side of it, for the tests of tokens."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from cryptography.fernet import Fernet

from mcpserver.lib.clock import SystemClock
from remotes.config.snapshot import AuthSpec, RemoteSpec
from remotes.tokens.credential import Surroundings, TokenCredential
from remotes.tokens.vault import Vault
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from tests.component.upstreams import CAP, Request, Script, Served, Wire, http, modern, served
from tests.peers.authorization import Desk

KEY = Fernet.generate_key().decode()


def guarded(desk: Desk, script: Script, *, challenge: str = "Bearer") -> Script:
    """The script behind a 401 for whoever has no good token; it quotes what it got, as careless servers do."""

    async def check(request: Request, wire: Wire) -> None:
        shown = request.headers.get("authorization", "")
        if desk.accepts(shown):
            await script(request, wire)
        else:
            quoted = f"no good: {shown}".encode()
            await wire.answer(quoted, status=401, kind="text/plain", headers=f"WWW-Authenticate: {challenge}\r\n")

    return check


def around(*keys: str, **changed: Any) -> Surroundings:
    return Surroundings(Vault(keys or (KEY,)), SystemClock(), **({"renews_alone": True} | changed))


def refreshing(desk: Desk, server: Served, **changed: Any) -> RemoteSpec:
    """A remote whose configuration holds a refresh token."""
    desk.client()
    refresh_token = str(changed.pop("refresh_token", None) or desk.login().refresh_token)
    auth = AuthSpec(f"{desk.url}/token", "known", "its-secret", refresh_token, changed.pop("scope", ""))
    return http(server, auth=auth, **changed)


@contextlib.asynccontextmanager
async def gateway(spec: RemoteSpec, surroundings: Surroundings | None = None) -> AsyncIterator[Upstream]:
    """What a worker has of one remote."""
    credential = TokenCredential(spec, surroundings or around())
    one = Upstream(spec, budget=Budget(8 * (CAP), read_max_bytes=CAP), max_in_flight=64, credential=credential)
    try:
        yield one
    finally:
        await one.close()
        await credential.close()


def credential_of(one: Upstream) -> TokenCredential:
    held = one._credential
    assert isinstance(held, TokenCredential)
    return held


def assert_untold(desk: Desk, *texts: object) -> None:
    """None of the server's secrets is in any of `texts`."""
    told = "\n".join(str(text) for text in texts)
    assert not [secret for secret in desk.secrets if secret in told]


def lines(records: list[logging.LogRecord]) -> str:
    return "\n".join(f"{record.getMessage()} {record.exc_text or ''} {record.__dict__}" for record in records)


__all__ = [
    "KEY",
    "around",
    "assert_untold",
    "credential_of",
    "gateway",
    "guarded",
    "lines",
    "modern",
    "refreshing",
    "served",
]
