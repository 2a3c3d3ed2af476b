"""What an HTTP remote's failures mean, in words that give nothing away."""

import asyncio
import contextlib
import re

from remotes.upstream import shortage
from remotes.upstream.http1 import HttpError, NotHttp, Response, Short, TooLarge, Unreachable
from remotes.upstream.outcome import Failure, Fault

EXCERPT_MAX_BYTES = 4096
_EXCERPT_S = 1.0
_SCOPE = re.compile(r'\bscope="([A-Za-z0-9:._/ -]{1,200})"')
_SECONDS = re.compile(r"[0-9]{1,9}")
_STEPS = {"dns": "the host name cannot be resolved", "tls": "no TLS connection"}


def classified(name: str, error: HttpError, phase: str) -> Failure:
    """What an error of the connection means for who asked: whether the remote can have seen the request."""
    match error:
        case Short():
            return Failure(Fault.BUSY, error.phase, str(error), retry_after_s=shortage.RETRY_AFTER_S)
        case Unreachable():
            what = _STEPS.get(error.phase, "no connection")
            return Failure(Fault.NOT_SENT, error.phase, f"{name}: {what} ({error})")
        case NotHttp():
            return Failure(Fault.INVALID, phase, f"{name} sent what is no HTTP answer ({error})")
        case TooLarge():
            return Failure(Fault.TOO_LARGE, phase, f"{name} sent {error}")
        case _:
            return Failure(Fault.BROKEN, phase, f"the connection to {name} {error}")


def unexpected_status(name: str, response: Response, excerpt: bytes) -> Failure:
    """An HTTP error as a Failure; 401 is told apart because a credential may mend it."""
    if response.status == 401:
        # What came with it is not repeated: it may quote the credential.
        why = f"{name} refused the gateway's credential (HTTP 401): check its headers in the configuration"
        return Failure(Fault.UNAUTHORIZED, "auth", why, status=401)
    if lacks_scope(response):
        return Failure(Fault.HTTP_STATUS, "auth", _scope_words(name, response), b"", 403)
    retry_after = response.header(b"retry-after")
    wait = float(retry_after) if _SECONDS.fullmatch(retry_after) else None
    said = f"{name} answered HTTP {response.status}"
    if 300 <= response.status < 400:
        said += ", a redirect, which is not followed: configure the address it leads to"
    return Failure(Fault.HTTP_STATUS, "http", said, excerpt[:EXCERPT_MAX_BYTES], response.status, wait)


def lacks_scope(response: Response) -> bool:
    """Whether this is the 403 of a token that is good and does not reach so far (RFC 6750, 3.1)."""
    return response.status == 403 and "insufficient_scope" in response.header(b"www-authenticate")


def _scope_words(name: str, response: Response) -> str:
    """What is missing comes from the remote and ends up in a command line: plain words alone are repeated."""
    said = _SCOPE.search(response.header(b"www-authenticate"))
    missing = f", which needs the scope {said[1]}" if said else ""
    again = f"mcp remote login {name}" + (f" --scope '{said[1]}'" if said else " --scope …")
    return f"the credential of {name} does not reach so far (HTTP 403){missing}: {again}"


async def read_excerpt(response: Response, most: int = EXCERPT_MAX_BYTES) -> bytes:
    """The beginning of a body nobody expected. The status has said enough: a body that drips is not waited for."""
    found = b""
    with contextlib.suppress(HttpError, TimeoutError):
        async with asyncio.timeout(_EXCERPT_S):
            while len(found) < most and (piece := await response.take()):
                found += piece
    return found[:most]
