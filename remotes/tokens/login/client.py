"""Which client we are at an authorization server, in the specification's order: configured, our own document, registered now.

What a server gave us is used at that server alone: the token and the client's credentials are stored together with its token URL.
"""

from dataclasses import dataclass

import httpx2
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError
from mcp.client.auth.oauth2 import check_registration_usable
from mcp.client.auth.utils import (
    handle_registration_response,
    is_valid_client_metadata_url,
    should_use_client_metadata_url,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, TokenEndpointAuthMethod
from pydantic import AnyUrl

from remotes.config.snapshot import RemoteSpec
from remotes.tokens import endpoint, grant
from remotes.tokens.endpoint import Unreachable
from remotes.tokens.grant import ClientAuth, Grant
from remotes.tokens.login.discovery import Found, fault

NAME = "MCP-Server"
_WAYS: tuple[TokenEndpointAuthMethod, ...] = ("none", "client_secret_basic", "client_secret_post")
_SECRET_WAYS: tuple[ClientAuth, ...] = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a login asks for."""

    scope: str
    redirect_uri: str
    metadata_url: str = ""
    grant_type: str = "authorization_code"


async def chosen(spec: RemoteSpec, found: Found, wish: Wish) -> Grant:
    """The client as a grant that has no token yet; raises GatewayError."""
    auth = spec.auth
    if auth is not None and auth.client_id:
        return _as_grant(found, wish, auth.client_id, auth.client_secret, "")
    if wish.metadata_url and not is_valid_client_metadata_url(wish.metadata_url):
        raise fault(spec.name, "the client's metadata document must be at an https:// address with a path")
    if should_use_client_metadata_url(found.metadata, wish.metadata_url):
        return _as_grant(found, wish, wish.metadata_url, "", "none")
    if found.metadata.registration_endpoint is not None:
        return await _registered(spec, found, wish)
    hint = "register one there by hand, and write `auth: {client_id: …}` (and `client_secret`) into its entry"
    if found.metadata.client_id_metadata_document_supported:
        hint = (
            f"host its metadata document, and name its address: mcp remote login {spec.name} --client-metadata-url URL"
        )
    raise fault(spec.name, "its authorization server registers no clients by itself", hint)


def _as_grant(found: Found, wish: Wish, client_id: str, secret: str, client_auth: ClientAuth) -> Grant:
    return Grant(
        token_url=str(found.metadata.token_endpoint),
        client_id=client_id,
        client_secret=secret,
        client_auth=client_auth,
        scope=wish.scope,
        resource=found.resource,
        revocation_url=str(found.metadata.revocation_endpoint or ""),
    )


async def _registered(spec: RemoteSpec, found: Found, wish: Wish) -> Grant:
    """RFC 7591. A native application: its redirect is to this machine."""
    asked = OAuthClientMetadata(
        client_name=NAME,
        redirect_uris=[AnyUrl(wish.redirect_uri)],
        grant_types=list(dict.fromkeys(("authorization_code", "refresh_token", wish.grant_type))),
        token_endpoint_auth_method=_way(found),
        scope=wish.scope or None,
    )
    body = asked.model_dump_json(by_alias=True, exclude_none=True).encode()
    url = str(found.metadata.registration_endpoint)
    try:
        reply = await endpoint.post(url, spec.reach, body, content_type="application/json")
        given = await handle_registration_response(httpx2.Response(reply.status, content=reply.body))
        check_registration_usable(given)
    except Unreachable as error:
        raise fault(spec.name, f"registering a client: its authorization server: {error}") from None
    except (OAuthRegistrationError, OAuthFlowError):
        word = grant.error_word(reply.body)
        said = f" ({word})" if word else ""
        hint = "register one there by hand, and write `auth: {client_id: …}` (and `client_secret`) into its entry"
        raise fault(
            spec.name, f"its authorization server registered no client: HTTP {reply.status}{said}", hint
        ) from None
    return _as_grant(found, wish, given.client_id, given.client_secret or "", _given_way(given))


def _given_way(given: OAuthClientInformationFull) -> ClientAuth:
    """How the server says that its secret is shown; it may have chosen another way than was asked for."""
    if not given.client_secret:
        return "none"
    return next((way for way in _SECRET_WAYS if way == given.token_endpoint_auth_method), "")


def _way(found: Found) -> TokenEndpointAuthMethod | None:
    """Without a secret where that is taken: there is then none to lose. None: the server decides."""
    taken = found.metadata.token_endpoint_auth_methods_supported
    return next((way for way in _WAYS if way in taken), None) if taken else None
