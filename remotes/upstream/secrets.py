"""A remote that quotes what it was sent, as error pages do, must not show its credential to whoever called it.

What the configuration gave a remote (headers, variables, what renews its token) is taken out of every failure and refusal before
that is told, logged or relayed. Results are not touched: what a tool answers is the tool's business. Pure.
"""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

import msgspec

from mcpserver.lib.redact import MASK
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.outcome import Failure, Outcome, Refusal

# Shorter values are words such as `1`, `true` or `utf-8`, and would take out half of every message.
_SECRET_MIN_CHARS = 8
_NOTHING: Mapping[str, str] = MappingProxyType({})


def masked(spec: RemoteSpec, outcome: Outcome, shown: Mapping[str, str] = _NOTHING) -> Outcome:
    """The outcome without what is known to be secret in it; a result as it is. `shown`: headers that were sent besides."""
    match outcome:
        case Failure():
            return masked_failure(spec, outcome, shown)
        case Refusal():
            error = _in_bytes(_secrets(spec, shown), outcome.error)
            return outcome if error == outcome.error else msgspec.structs.replace(outcome, error=error)
        case _:
            return outcome


def masked_failure(spec: RemoteSpec, failure: Failure, shown: Mapping[str, str] = _NOTHING) -> Failure:
    secrets = _secrets(spec, shown)
    message, detail = _in_text(secrets, failure.message), _in_text(secrets, failure.detail)
    excerpt = _in_bytes(secrets, failure.excerpt)
    if (message, detail, excerpt) == (failure.message, failure.detail, failure.excerpt):
        return failure
    return msgspec.structs.replace(failure, message=message, detail=detail, excerpt=excerpt)


def _secrets(spec: RemoteSpec, shown: Mapping[str, str]) -> list[str]:
    """Every value that was configured for one remote, or sent to it, and is long enough to be a credential; the longest first."""
    values = [*spec.headers.values(), *shown.values(), *spec.env.values()]
    values += (value for _, value in parse_qsl(urlsplit(spec.url).query))
    if spec.auth is not None:
        values += [spec.auth.client_secret, spec.auth.refresh_token]
    parts = {part for value in values for part in (value, value.rpartition(" ")[2])}  # a token without its scheme, too
    return sorted((part for part in parts if len(part) >= _SECRET_MIN_CHARS), key=len, reverse=True)


def _in_text(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _in_bytes(secrets: list[str], raw: bytes) -> bytes:
    for secret in secrets:
        raw = raw.replace(secret.encode("utf-8", "surrogateescape"), MASK.encode())
    return raw
