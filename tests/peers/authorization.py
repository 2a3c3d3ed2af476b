"""A real authorization server in a thread of its own, over real HTTP: the official SDK's routes where it has them.

What the SDK has not is added as its specification says: the device grant (RFC 8628), client credentials, client-ID metadata
documents and the `iss` of RFC 9207. Refresh tokens are rotated; one that comes twice ends its whole family. A test turns the
knobs (`lifetime_s`, `outage`, `approves`, …) and reads what happened (`asked`, `access`, `ended`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import build_metadata, create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class Device:
    client_id: str
    scopes: list[str]
    asked: int = 0


@dataclass
class Desk(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """The server's state and its knobs."""

    url: str = ""
    lifetime_s: int | None = 3600
    rotates: bool = True
    outage: bool = False
    answer: tuple[int, bytes] | None = None
    approves: bool = True
    wrong_iss: bool = False
    patience: int = 2  # polls of a device until the person has agreed
    pause_s: float = 0.0
    lacks: tuple[str, ...] = ()  # fields left out of the metadata
    clients: dict[str, OAuthClientInformationFull] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: dict[str, AuthorizationCode] = field(default_factory=dict)
    refresh: dict[str, tuple[RefreshToken, str]] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    access: dict[str, tuple[AccessToken, str]] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    asked: list[dict[str, str]] = field(default_factory=list)

    # What tests say and read.

    def client(self, **more: Any) -> OAuthClientInformationFull:
        """A client that is registered beforehand."""
        facts = {
            "client_id": "known",
            "client_secret": "its-secret",
            "token_endpoint_auth_method": "client_secret_basic",
        }
        grants = ["authorization_code", "refresh_token", "client_credentials", DEVICE]
        info = OAuthClientInformationFull.model_validate(facts | {"grant_types": grants} | more)
        self.clients[info.client_id] = info
        return info

    def login(self, *, client_id: str = "known", scopes: tuple[str, ...] = ("tools",)) -> OAuthToken:
        """A token pair as after a login, without the login."""
        return self._issue(client_id, list(scopes), secrets.token_hex(4))

    def accepts(self, header: str) -> bool:
        """What a resource server asks: is this a token of ours that is still good?"""
        found = self.access.get(header.removeprefix("Bearer "))
        if found is None or found[1] in self.ended:
            return False
        return found[0].expires_at is None or found[0].expires_at > time.time()

    def revoke_access(self) -> None:
        """Every access token ends before its time; refresh tokens live on."""
        self.access.clear()

    def count(self, grant: str) -> int:
        return sum(form.get("grant_type") == grant for form in self.asked)

    @property
    def secrets(self) -> set[str]:
        """Everything that must be seen nowhere."""
        known = {info.client_secret for info in self.clients.values() if info.client_secret}
        return known | set(self.access) | set(self.refresh) | set(self.used) | set(self.codes) | set(self.devices)

    # The SDK's provider.

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        if client_id in self.documents:
            document = self.documents[client_id]
            assert document["client_id"] == client_id
            return OAuthClientInformationFull.model_validate(document)
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        if not self.approves:
            raise AuthorizeError("access_denied", "the person said no")
        code = AuthorizationCode(
            code=secrets.token_urlsafe(24), client_id=client.client_id, scopes=params.scopes or [],
            expires_at=time.time() + 60, code_challenge=params.code_challenge, redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly, resource=params.resource,
        )  # fmt: skip
        self.codes[code.code] = code
        iss = "http://127.0.0.1:1" if self.wrong_iss else self.url
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state, iss=iss)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        assert authorization_code.resource, "the specification demands the resource (RFC 8707)"
        return self._issue(client.client_id, authorization_code.scopes, secrets.token_hex(4))

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        if refresh_token in self.used:
            self.ended.add(self.used[refresh_token])  # it was stolen, or somebody is confused: nobody may go on
            return None
        found = self.refresh.get(refresh_token)
        return found[0] if found and found[1] not in self.ended else None

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        family = self.refresh[refresh_token.token][1]
        if self.rotates:
            self.used[refresh_token.token] = family
            del self.refresh[refresh_token.token]
        return self._issue(client.client_id, scopes, family, rotated=self.rotates)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access[token][0] if token in self.access else None

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        found = self.access.get(token.token) or self.refresh.get(token.token)
        if found is not None:
            self.ended.add(found[1])

    def _issue(self, client_id: str, scopes: list[str], family: str, *, rotated: bool = True) -> OAuthToken:
        ends = None if self.lifetime_s is None else int(time.time()) + self.lifetime_s
        access = f"at-{secrets.token_urlsafe(24)}"
        self.access[access] = AccessToken(token=access, client_id=client_id, scopes=scopes, expires_at=ends), family
        refresh = None
        if rotated:
            refresh = f"rt-{secrets.token_urlsafe(24)}"
            self.refresh[refresh] = RefreshToken(token=refresh, client_id=client_id, scopes=scopes), family
        return OAuthToken(
            access_token=access, expires_in=self.lifetime_s, refresh_token=refresh, scope=" ".join(scopes) or None
        )

    # What the SDK's server has not.

    async def metadata(self, request: Request) -> Response:
        registration, revocation = ClientRegistrationOptions(enabled=True), RevocationOptions(enabled=True)
        document = build_metadata(AnyHttpUrl(self.url), None, registration, revocation).model_dump(mode="json")
        document |= {
            "issuer": self.url,
            "device_authorization_endpoint": f"{self.url}/device",
            "grant_types_supported": [*document["grant_types_supported"], DEVICE, "client_credentials"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_post", "client_secret_basic"],
            "client_id_metadata_document_supported": bool(self.documents),
            "authorization_response_iss_parameter_supported": True,
        }
        return JSONResponse({k: v for k, v in document.items() if v is not None and k not in self.lacks})

    async def device(self, request: Request) -> Response:
        form = await request.form()
        if await self.get_client(str(form["client_id"])) is None:
            return JSONResponse({"error": "invalid_client"}, 401)
        code = f"dc-{secrets.token_urlsafe(24)}"
        self.devices[code] = Device(str(form["client_id"]), str(form.get("scope", "")).split())
        facts = {"device_code": code, "user_code": "WDJB-MJHT", "verification_uri": f"{self.url}/agree"}
        return JSONResponse(facts | {"expires_in": 60, "interval": 1})

    async def revoke(self, request: Request) -> Response:
        """RFC 7009; the SDK's own refuses clients without a secret."""
        form = await request.form()
        token = str(form["token"])
        found = self.access.get(token) or self.refresh.get(token)
        if found is not None and found[0].client_id == form.get("client_id"):
            self.ended.add(found[1])
        return Response()

    async def own_grants(self, form: dict[str, str], request: Request) -> Response | None:
        match form.get("grant_type"):
            case "client_credentials":
                info, secret = self._presented(form, request)
                if info is None or info.client_secret != secret:
                    return JSONResponse({"error": "invalid_client"}, 401)
                token = self._issue(info.client_id, form.get("scope", "").split(), secrets.token_hex(4), rotated=False)
                return JSONResponse(token.model_dump(exclude_none=True))
            case grant if grant == DEVICE:
                return self._polled(form)
        return None

    def _presented(self, form: dict[str, str], request: Request) -> tuple[OAuthClientInformationFull | None, str]:
        """As the client was registered to show its secret, and no other way."""
        info = self.clients.get(form.get("client_id", ""))
        if info is None or info.token_endpoint_auth_method == "client_secret_post":
            return info, form.get("client_secret", "")
        scheme, _, pair = request.headers.get("authorization", "").partition(" ")
        return info, unquote(base64.b64decode(pair).decode().partition(":")[2]) if scheme == "Basic" else ""

    def _polled(self, form: dict[str, str]) -> Response:
        device = self.devices.get(form["device_code"])
        if device is None or device.client_id != form["client_id"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        device.asked += 1
        if device.asked <= self.patience:
            return JSONResponse({"error": "authorization_pending"}, 400)
        if not self.approves:
            return JSONResponse({"error": "access_denied"}, 400)
        return JSONResponse(self._issue(device.client_id, device.scopes, secrets.token_hex(4)).model_dump())


def application(desk: Desk) -> Starlette:
    url = AnyHttpUrl(desk.url)
    registration, revocation = ClientRegistrationOptions(enabled=True), RevocationOptions(enabled=True)
    routes = create_auth_routes(desk, url, client_registration_options=registration, revocation_options=revocation)
    token = next(route for route in routes if route.path == "/token")

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        form = {name: str(value) for name, value in (await request.form()).items()}
        desk.asked.append(form)
        if desk.pause_s:
            await asyncio.sleep(desk.pause_s)
        own: Response | None = JSONResponse({"error": "temporarily_unavailable"}, 503) if desk.outage else None
        if desk.answer is not None:
            own = Response(desk.answer[1], desk.answer[0], media_type="application/json")
        own = own or await desk.own_grants(form, request)
        await (own(scope, receive, send) if own is not None else token.app(scope, _again(body), send))

    ours = [
        Route("/.well-known/oauth-authorization-server", desk.metadata),
        Route("/token", _Asgi(asked), methods=["POST"]),
        Route("/device", desk.device, methods=["POST"]),
        Route("/revoke", desk.revoke, methods=["POST"]),
    ]
    return Starlette(routes=[*ours, *routes])


class _Asgi:
    """An ASGI callable that Starlette does not take for a request handler."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def _again(body: bytes) -> Any:
    """A body that was read already, for the next reader."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


@contextlib.contextmanager
def in_thread(app: Any, listener: socket.socket) -> Iterator[None]:
    """Serve `app` until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def authorization_server(**knobs: Any) -> Iterator[Desk]:
    listener = socket.create_server(("127.0.0.1", 0))
    desk = Desk(url=f"http://127.0.0.1:{listener.getsockname()[1]}", **knobs)
    with in_thread(application(desk), listener):
        yield desk


@contextlib.contextmanager
def resource_server(desk: Desk, application: Any) -> Iterator[str]:
    """`application` behind the desk's tokens, saying where to get one (RFC 9728); yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    place = "/.well-known/oauth-protected-resource/mcp"
    about = {"resource": f"{origin}/mcp", "authorization_servers": [desk.url], "scopes_supported": ["tools"]}

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
        elif scope["path"] == place:
            await JSONResponse(about)(scope, receive, send)
        elif desk.accepts(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")):
            await application(scope, receive, send)
        else:
            challenge = {"WWW-Authenticate": f'Bearer resource_metadata="{origin}{place}", scope="tools"'}
            await JSONResponse({"error": "invalid_token"}, 401, challenge)(scope, receive, send)

    with in_thread(guarded, listener):
        yield f"{origin}/mcp"
