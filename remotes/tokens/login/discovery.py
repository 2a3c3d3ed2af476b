"""From a remote's 401 to its authorization server (RFC 9728, RFC 8414, OpenID Connect Discovery).

What a remote says here is believed in so far as the specification says: its metadata must be about itself, the authorization
server's about the issuer that was named. Everything is asked without credentials, over TLS unless it is this machine.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import httpx2
import msgspec
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls as metadata_urls,
)
from mcp.client.auth.utils import (
    build_protected_resource_metadata_discovery_urls as resource_urls,
)
from mcp.client.auth.utils import (
    extract_resource_metadata_from_www_auth,
    extract_scope_from_www_auth,
    get_client_metadata_scopes,
    issuers_match,
    validate_metadata_issuer,
)
from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata
from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url
from pydantic import ValidationError

from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.protocol.versions import NEWEST_HANDSHAKE
from remotes.config.snapshot import RemoteSpec
from remotes.tokens import endpoint
from remotes.tokens.endpoint import Unreachable

# What a refresh token is asked for with, where that is a scope (OpenID Connect Core, 11).
_OFFLINE = "offline_access"


@dataclass(frozen=True, slots=True)
class Found:
    """The authorization server of a remote. `scope` is what the remote asks for, `resource` what the token is to be for."""

    metadata: OAuthMetadata
    resource: str
    scope: str
    device_url: str

    @property
    def issuer(self) -> str:
        return str(self.metadata.issuer)


class _Extra(msgspec.Struct):
    """RFC 8628's own field, which the SDK's model leaves out."""

    device_authorization_endpoint: str = ""


async def find(spec: RemoteSpec) -> Found:
    """Raises GatewayError with the step that failed."""
    challenge = await _challenge(spec)
    about = await _about(spec, challenge)
    metadata, device_url = await _metadata(spec, about)
    scope = _scope(extract_scope_from_www_auth(challenge), about, metadata)
    return Found(metadata, _resource(spec, about), scope, device_url)


def fault(name: str, why: str, hint: str = "") -> GatewayError:
    return GatewayError("login_failed", f"{name}: {why}", hint=hint, exit_code=Exit.KEY)


async def _challenge(spec: RemoteSpec) -> httpx2.Response:
    """What the remote says to a stranger, in the SDK's form."""
    try:
        reply = await endpoint.knock(spec, NEWEST_HANDSHAKE)
    except Unreachable as error:
        raise fault(spec.name, str(error), f"try it first: mcp remote test {spec.name}") from None
    return httpx2.Response(reply.status, headers={"WWW-Authenticate": reply.challenge} if reply.challenge else None)


async def _about(spec: RemoteSpec, challenge: httpx2.Response) -> ProtectedResourceMetadata | None:
    """The remote's metadata, where it has any; before 2025-06-18 there was none."""
    for url in resource_urls(extract_resource_metadata_from_www_auth(challenge), spec.url):
        raw = await _document(spec, url)
        try:
            about = ProtectedResourceMetadata.model_validate_json(raw) if raw is not None else None
        except ValidationError:
            about = None
        if about is None:
            continue
        if not check_resource_allowed(_own(spec), str(about.resource)):
            raise fault(spec.name, "its metadata is about another resource: it is not used")
        return about
    if challenge.status_code != 401:
        raise fault(spec.name, f"it asks for no login (HTTP {challenge.status_code})", f"mcp remote test {spec.name}")
    return None


async def _metadata(spec: RemoteSpec, about: ProtectedResourceMetadata | None) -> tuple[OAuthMetadata, str]:
    issuer = str(about.authorization_servers[0]) if about else None
    for url in metadata_urls(issuer, spec.url):
        raw = await _document(spec, url)
        if raw is None:
            continue
        try:
            metadata = OAuthMetadata.model_validate_json(raw)
            extra = msgspec.json.decode(raw, type=_Extra)
        except (ValidationError, msgspec.DecodeError):
            continue
        _judge(spec, metadata, issuer)
        addresses = (metadata.token_endpoint, metadata.registration_endpoint, extra.device_authorization_endpoint)
        for address in (*addresses, metadata.authorization_endpoint, metadata.revocation_endpoint):
            if address and endpoint.is_plain_http_abroad(str(address)):
                raise fault(spec.name, "its authorization server is not to be spoken with over TLS everywhere")
        return metadata, extra.device_authorization_endpoint
    raise fault(
        spec.name, "no authorization server can be found for it",
        "if it takes a fixed token, write `headers: {Authorization: Bearer ${TOKEN}}` into its entry",
    )  # fmt: skip


def _judge(spec: RemoteSpec, metadata: OAuthMetadata, issuer: str | None) -> None:
    """The document must be that of the issuer it was looked up for, or anybody's endpoints would get our code."""
    if issuer is None:
        if not issuers_match(str(metadata.issuer), _origin(spec)):
            raise fault(spec.name, "the metadata at its own address is that of another issuer")
        return
    try:
        validate_metadata_issuer(metadata, issuer)
    except OAuthFlowError:
        raise fault(spec.name, "its authorization server's metadata is that of another issuer") from None


def _scope(challenged: str | None, about: ProtectedResourceMetadata | None, metadata: OAuthMetadata) -> str:
    """What the remote asks for and no more: where it asks for nothing, nothing is named, whatever the server has to give."""
    scope = get_client_metadata_scopes(challenged, about) or ""
    is_offered = _OFFLINE in (metadata.scopes_supported or ()) and _OFFLINE not in scope.split()
    return f"{scope} {_OFFLINE}" if scope and is_offered else scope


async def _document(spec: RemoteSpec, url: str) -> bytes | None:
    """None where there is none; plain HTTP is for the remote's own address and this machine."""
    if endpoint.is_plain_http_abroad(url) and not url.startswith(_origin(spec) + "/"):
        return None
    try:
        reply = await endpoint.get(url, spec.reach)
    except Unreachable:
        return None
    return reply.body if reply.status == 200 else None


def _resource(spec: RemoteSpec, about: ProtectedResourceMetadata | None) -> str:
    return str(about.resource) if about else _own(spec)


def _own(spec: RemoteSpec) -> str:
    """The canonical address of the remote; what its query holds is nobody else's business."""
    parts = urlsplit(resource_url_from_server_url(spec.url))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def _origin(spec: RemoteSpec) -> str:
    parts = urlsplit(spec.url)
    return f"{parts.scheme}://{parts.netloc}"
