"""The authorization code flow with PKCE (OAuth 2.1, RFC 7636, RFC 8707, RFC 9207)."""

from collections.abc import Callable
from urllib.parse import urlencode

from mcp.client.auth import OAuthFlowError
from mcp.client.auth.oauth2 import PKCEParameters
from mcp.client.auth.utils import validate_authorization_response_iss

from mcpserver.lib.clock import Clock
from remotes.config.snapshot import RemoteSpec
from remotes.tokens import asking, grant
from remotes.tokens.grant import Denied, Grant, Token, Unclear
from remotes.tokens.login.discovery import Found, fault
from remotes.tokens.login.redirect import Answer, Redirect


async def consented(
    spec: RemoteSpec, found: Found, client: Grant, redirect: Redirect, show: Callable[[str], None], clock: Clock
) -> tuple[Token, str]:
    """The token, and the refresh token or ""; `show` gets the address where a person agrees. Raises GatewayError."""
    if "S256" not in (found.metadata.code_challenge_methods_supported or ()):
        raise fault(spec.name, "its authorization server does not say that it knows PKCE with S256: no login there")
    pkce = PKCEParameters.generate()
    show(_address(found, client, redirect, pkce))
    code = _code(spec, found, await redirect.answer())
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect.uri,
        "code_verifier": pkce.code_verifier,
        **grant.with_what("", client.resource),
    }
    answer = await asking.exchanged(client, form, spec.reach, clock)
    match answer:
        case Denied(error):
            raise fault(spec.name, f"its authorization server took the consent and gave no token ({error})")
        case Unclear(why):
            raise fault(spec.name, f"its authorization server took the consent and gave no token: {why}")
    return answer


def _address(found: Found, client: Grant, redirect: Redirect, pkce: PKCEParameters) -> str:
    asked = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect.uri,
        "state": redirect.state,
        "code_challenge": pkce.code_challenge,
        "code_challenge_method": "S256",
        **grant.with_what(client.scope, client.resource),
    }
    if "offline_access" in client.scope.split():
        asked["prompt"] = "consent"  # OpenID Connect Core, 11
    base = str(found.metadata.authorization_endpoint)
    return f"{base}{'&' if '?' in base else '?'}{urlencode(asked)}"


def _code(spec: RemoteSpec, found: Found, answer: Answer) -> str:
    """The issuer is checked before anything else is believed, errors included."""
    try:
        validate_authorization_response_iss(answer.get("iss"), found.metadata)
    except OAuthFlowError:
        raise fault(
            spec.name, "the answer is not from the authorization server that was asked: it is not used"
        ) from None
    if "code" not in answer:
        word = answer["error"] if answer["error"].replace("_", "").isalnum() else "an error"
        raise fault(spec.name, f"the consent was not given ({word[:60]})")
    return answer["code"]
