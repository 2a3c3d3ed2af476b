"""HTTP to authorization servers: guarded as remotes are, no redirects, capped, within a deadline; raises nothing but Unreachable.

Every address here can come from a remote (its metadata names them), so each is judged as written and as resolved. A client's
secret and a refresh token go into the body or the Authorization header of a token request, to the token endpoint alone.
"""

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlsplit

from mcpserver.protocol import jsonrpc
from remotes.config.addresses import Reach, url_fault
from remotes.config.snapshot import RemoteSpec
from remotes.tokens.grant import Grant
from remotes.upstream import http1
from remotes.upstream.envelope import CLIENT_INFO
from remotes.upstream.origin import Origin

BODY_MAX = 256 * 1024
TIMEOUT_S = 10.0


class Unreachable(Exception):
    """Why there is no answer, in words that name no address: it could hold a secret."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = field(repr=False)
    challenge: str = ""


async def get(url: str, reach: Reach) -> Reply:
    """A document, such as metadata."""
    return await _send("GET", url, reach, {"Accept": "application/json"})


async def knock(spec: RemoteSpec, revision: str) -> Reply:
    """What a remote says to somebody without a token: its status and challenge. Its own headers go along, to itself alone."""
    if spec.transport == "sse":
        return await _send("GET", spec.url, spec.reach, {**spec.headers, "Accept": "text/event-stream"}, reads=False)
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": CLIENT_INFO}
    body = jsonrpc.request(b"1", "initialize", jsonrpc.encode(params))
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return await _send("POST", spec.url, spec.reach, {**spec.headers, **headers}, body, reads=False)


async def post(
    url: str, reach: Reach, body: bytes, *, content_type: str, headers: Mapping[str, str] | None = None
) -> Reply:
    return await _send(
        "POST", url, reach, {"Accept": "application/json", **(headers or {}), "Content-Type": content_type}, body
    )


async def post_form(url: str, reach: Reach, form: Mapping[str, str], grant: Grant) -> Reply:
    """A form with the client's own authentication in it."""
    fields, headers = _authenticated(form, grant)
    body = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in fields.items())
    return await post(url, reach, body.encode(), content_type="application/x-www-form-urlencoded", headers=headers)


def is_plain_http_abroad(url: str) -> bool:
    """HTTP without TLS to another machine: an authorization server found by discovery must not be asked so."""
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def _authenticated(form: Mapping[str, str], grant: Grant) -> tuple[dict[str, str], dict[str, str]]:
    """RFC 6749, 2.3.1. Where the way is not known, HTTP Basic: every server that issues secrets must take it. The id alone is no
    second way of showing a secret, and some servers want it in the form."""
    fields = {**form, "client_id": grant.client_id}
    if not grant.client_secret:
        return fields, {}
    if grant.client_auth == "client_secret_post":
        return {**fields, "client_secret": grant.client_secret}, {}
    pair = f"{quote(grant.client_id, safe='')}:{quote(grant.client_secret, safe='')}"
    return fields, {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


async def _send(
    method: Literal["GET", "POST"],
    url: str,
    reach: Reach,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    reads: bool = True,
) -> Reply:
    fault = url_fault(url, reach)
    if fault is not None:
        raise Unreachable(f"its address cannot be used: {fault.message}")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _answered(Origin(url, reach), method, headers, body, reads)
    except TimeoutError:
        raise Unreachable(f"it did not answer within {TIMEOUT_S:g} s") from None
    except http1.TooLarge:
        raise Unreachable(f"it sent more than {BODY_MAX} bytes") from None
    except (http1.HttpError, ValueError) as error:
        raise Unreachable(f"it cannot be reached ({error})") from None


async def _answered(origin: Origin, method: str, headers: Mapping[str, str], body: bytes | None, reads: bool) -> Reply:
    try:
        response = await origin.send(origin.head(method, headers), {}, body)
        with contextlib.closing(response):
            raw = await response.read(BODY_MAX) if reads else b""
        return Reply(response.status, raw, response.header(b"www-authenticate"))
    finally:
        origin.close()
