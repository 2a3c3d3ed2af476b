"""Logging in to a remote and out of it: the verbs behind the commands. The token is in the table afterwards, and nowhere else."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from mcp.client.auth.utils import union_scopes

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.command import usage_error
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import Exit, GatewayError
from remotes.config.snapshot import RemoteSpec
from remotes.tokens import endpoint, grant, store
from remotes.tokens.credentials import may_have_token
from remotes.tokens.endpoint import Unreachable
from remotes.tokens.grant import Holding, Token
from remotes.tokens.login import client, code, device, discovery, redirect
from remotes.tokens.login.client import Wish
from remotes.tokens.vault import Vault


@dataclass(frozen=True, slots=True)
class How:
    """`listens`: a port of this machine waits for the browser. `pastes`: standard input may hold the address instead."""

    redirect_uri: str
    by_device: bool = False
    listens: bool = True
    pastes: bool = False
    scope: str = ""
    metadata_url: str = ""
    timeout_s: float = 300.0


async def login(
    spec: RemoteSpec, how: How, *, show: Callable[[str], None], actor: str, clock: Clock | None = None
) -> dict[str, Any]:
    """Status, end and scope of the new token. `show` gets what a person is to open. GatewayError with what failed."""
    _require_token_remote(spec)
    _require_loopback(how)
    vault = Vault(settings.MCP_ENCRYPTION_KEYS)
    vault.check()
    try:
        async with asyncio.timeout(how.timeout_s):
            holding = await _consented(spec, how, vault, show, clock or SystemClock())
    except TimeoutError:
        why = f"nobody agreed within {how.timeout_s:g} s"
        hint = "try again, or give more --timeout"
        raise GatewayError("timeout", f"{spec.name}: {why}", hint=hint, exit_code=Exit.KEY) from None
    token = holding.token
    assert token is not None
    await in_database(store.put, spec.name, vault.seal(holding), token, actor)
    return {"name": spec.name, "status": "logged_in"} | grant.described(token)


async def logout(name: str, spec: RemoteSpec | None, *, actor: str) -> dict[str, Any]:
    """Forget the token; its authorization server is asked to end it, as far as it can be asked."""
    row = await in_database(store.read, name)
    is_revoked = False
    if row.sealed and spec is not None:
        is_revoked = await _revoked(spec, row.sealed)
    was_there = await in_database(store.forget, name, actor)
    return {"name": name, "status": "logged_out", "was_logged_in": was_there, "revoked": is_revoked}


async def _consented(spec: RemoteSpec, how: How, vault: Vault, show: Callable[[str], None], clock: Clock) -> Holding:
    found = await discovery.find(spec)
    scope = await _scope(spec, how, found, vault)
    auth = spec.auth
    metadata_url = how.metadata_url or (auth.client_metadata_url if auth else "")
    listens = how.listens and not how.by_device
    async with redirect.opened(how.redirect_uri, listens=listens) as back:
        wish = Wish(scope, back.uri, metadata_url, device.GRANT_TYPE if how.by_device else "authorization_code")
        chosen = await client.chosen(spec, found, wish)
        if how.by_device:
            token, refresh_token = await device.consented(spec, found, chosen, show, clock)
        else:
            if how.pastes:
                back.read_pasted(only=not how.listens)
            token, refresh_token = await code.consented(spec, found, chosen, back, show, clock)
    # Later requests name no scope: what was granted may be less, and goes on.
    kept = replace(chosen, scope="", refresh_token=refresh_token)
    return Holding(grant.binding(spec), kept, token)


async def _scope(spec: RemoteSpec, how: How, found: discovery.Found, vault: Vault) -> str:
    """What the remote asks for or the operator says, with what the last login was granted: a step up loses nothing."""
    configured = spec.auth.scope if spec.auth else ""
    before = await _token_before(spec, vault)
    return union_scopes(before.scope if before else "", how.scope or configured or found.scope) or ""


async def _token_before(spec: RemoteSpec, vault: Vault) -> Token | None:
    row = await in_database(store.read, spec.name)
    if not row.sealed:
        return None
    try:
        holding, _ = vault.open(row.sealed)
    except GatewayError:
        return None
    return holding.token if holding.binding == grant.binding(spec) else None


async def _revoked(spec: RemoteSpec, sealed: str) -> bool:
    """RFC 7009. What cannot be asked ends by itself."""
    try:
        held = Vault(settings.MCP_ENCRYPTION_KEYS).open(sealed)[0]
        url, token = held.grant.revocation_url, held.grant.refresh_token or (held.token.access if held.token else "")
        if not url or not token:
            return False
        hint = "refresh_token" if held.grant.refresh_token else "access_token"
        form = {"token": token, "token_type_hint": hint}
        return (await endpoint.post_form(url, spec.reach, form, held.grant)).status == 200
    except (GatewayError, Unreachable):
        return False


def _require_token_remote(spec: RemoteSpec) -> None:
    if spec.missing:
        named = ", ".join(one.variable for one in spec.missing)
        raise GatewayError("misconfigured", f"{spec.name} is misconfigured: {named} is not set", exit_code=Exit.CONFIG)
    if spec.transport == "stdio":
        raise usage_error(f"{spec.name} is a program started here: its credentials belong into its `env`")
    if not may_have_token(spec):
        raise usage_error(
            f"{spec.name} has an Authorization header in its entry, which a login would contradict",
            hint="remove that header from the configuration first",
        )


def _require_loopback(how: How) -> None:
    parts = urlsplit(how.redirect_uri)
    if how.listens and not how.by_device and (parts.scheme != "http" or parts.hostname not in redirect.LOOPBACK):
        raise usage_error(
            "a browser can come back to this machine alone: http://127.0.0.1:PORT/path",
            hint="for another address add --no-browser, and paste where it leads",
        )
