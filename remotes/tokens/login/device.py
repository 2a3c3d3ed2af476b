"""The device flow (RFC 8628): the person agrees on any machine, with a code that is typed there."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from mcpserver.lib.clock import Clock
from remotes.config.snapshot import RemoteSpec
from remotes.tokens import asking, endpoint, grant
from remotes.tokens.endpoint import Unreachable
from remotes.tokens.grant import Denied, Grant, Token, Unclear
from remotes.tokens.login.discovery import Found, fault

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S, _INTERVAL_MAX_S = 5.0, 60.0


class _Started(msgspec.Struct):
    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None = None
    interval: float = _INTERVAL_S


async def consented(
    spec: RemoteSpec, found: Found, client: Grant, show: Callable[[str], None], clock: Clock
) -> tuple[Token, str]:
    """The token, and the refresh token or "". How long a person may take is the caller's deadline. Raises GatewayError."""
    started = await _started(spec, found, client)
    where = started.verification_uri_complete or started.verification_uri
    show(f"{where}\nand enter the code {started.user_code}")
    interval = min(max(started.interval, 1.0), _INTERVAL_MAX_S)
    form = {"grant_type": GRANT_TYPE, "device_code": started.device_code, **grant.with_what("", client.resource)}
    while True:
        await asyncio.sleep(interval)
        match answer := await asking.exchanged(client, form, spec.reach, clock):
            case Unclear(error="slow_down"):
                interval = min(interval + _INTERVAL_S, _INTERVAL_MAX_S)
            case Unclear(error="authorization_pending" | ""):
                continue  # not yet, or not reached just now
            case Unclear(error=error) | Denied(error):
                raise fault(spec.name, f"the consent was not given ({error})")
            case _:
                return answer


async def _started(spec: RemoteSpec, found: Found, client: Grant) -> _Started:
    if not found.device_url:
        raise fault(
            spec.name, "its authorization server has no device flow", "leave --device out, and use --no-browser"
        )
    form = grant.with_what(client.scope, client.resource)
    try:
        reply = await endpoint.post_form(found.device_url, spec.reach, form, client)
        started = msgspec.json.decode(reply.body, type=_Started) if reply.status == 200 else None
    except Unreachable as error:
        raise fault(spec.name, f"its authorization server: {error}") from None
    except msgspec.DecodeError:
        started = None
    if started is None or not _is_showable(started):
        word = grant.error_word(reply.body) or f"HTTP {reply.status}"
        raise fault(spec.name, f"its authorization server does not begin the device flow ({word})")
    return started


def _is_showable(started: _Started) -> bool:
    """It is printed to a terminal, and opened by a person."""
    texts = (started.user_code, started.verification_uri, started.verification_uri_complete or "")
    if not all(text.isascii() and text.isprintable() and len(text) <= 2048 for text in texts):
        return False
    return all(urlsplit(text).scheme in ("https", "http") for text in texts[1:] if text)
