"""What an access token is asked for with, what the answer means, and when the next one is due.

Pure. Wall time comes in as a number. A clock that is wrong by minutes ends nothing here: the remote's 401 is what ends a token,
times only decide when to be early (RFC 6749 for requests and answers, RFC 8707 for `resource`).
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from remotes.config.snapshot import RemoteSpec

# A token is renewed this long before its end, or a fifth of its life where that is less, up to a fifth of that earlier by chance.
AHEAD_S = 300.0
_AHEAD_SHARE = 0.2
# A clock may be wrong by so much: only later than this after its end is a token not sent any more.
LEEWAY_S = 300.0
# A token that is refused this soon after it was issued would be followed by one that is refused too.
FRESH_S = 10.0
_LIFETIME_MAX_S = 10 * 365 * 86400.0
_TOKEN_MAX = 32 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
_WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,80}")

ClientAuth = Literal["", "none", "client_secret_basic", "client_secret_post"]
# Only a person can mend these; all else may pass (RFC 6749, 5.2; RFC 8707, 2).
_FINAL = frozenset(
    {
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "access_denied",
    }
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Without a refresh token and not a machine's own (client credentials), it gives no further token."""

    token_url: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    client_auth: ClientAuth = ""
    refresh_token: str = field(default="", repr=False)
    is_machine: bool = False
    scope: str = ""
    resource: str = ""
    revocation_url: str = ""

    @property
    def is_renewable(self) -> bool:
        return bool(self.refresh_token) or self.is_machine


@dataclass(frozen=True, slots=True)
class Token:
    """`id` tells it from any other without being it; `obtained_at` is Unix time."""

    id: str
    access: str = field(repr=False)
    scope: str
    obtained_at: float
    lifetime_s: float | None

    @property
    def expires_at(self) -> float | None:
        return None if self.lifetime_s is None else self.obtained_at + self.lifetime_s


@dataclass(frozen=True, slots=True)
class Holding:
    """Everything kept about one remote's token. `binding` says for which entry of the configuration it is."""

    binding: str
    grant: Grant
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """The authorization server said no for good; `error` is its word for it."""

    error: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """No token and no clear no: it may work in a moment. `error` is the server's word, if it had one."""

    why: str
    error: str = ""


class _Answer(msgspec.Struct):
    access_token: str
    token_type: str | None = None
    expires_in: int | float | str | None = None
    refresh_token: str | None = None
    scope: str | None = None


class _Error(msgspec.Struct):
    error: str


def binding(spec: RemoteSpec) -> str:
    """Equal for entries that a token may be used for alike: same address (without its query), same `auth`."""
    parts = urlsplit(spec.url)
    facts = [parts.scheme, parts.netloc.lower(), parts.path, asdict(spec.auth) if spec.auth else None]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def configured(spec: RemoteSpec) -> Grant | None:
    """The grant that the configuration gives; None where a login is to bring one."""
    auth = spec.auth
    if auth is None or not auth.token_url:
        return None
    return Grant(
        token_url=auth.token_url,
        client_id=auth.client_id,
        client_secret=auth.client_secret,
        refresh_token=auth.refresh_token,
        is_machine=not auth.refresh_token,
        scope=auth.scope,
        resource=auth.resource,
    )


def request(grant: Grant) -> dict[str, str]:
    """The form that asks for the next token."""
    if grant.refresh_token:
        form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
    else:
        form = {"grant_type": "client_credentials"}
    return form | with_what(grant.scope, grant.resource)


def with_what(scope: str, resource: str) -> dict[str, str]:
    """The parameters that say what a token is for, where that is said at all."""
    return {name: value for name, value in (("scope", scope), ("resource", resource)) if value}


def read_answer(
    status: int, raw: bytes, *, id: str, now: float, asked_scope: str
) -> tuple[Token, str] | Denied | Unclear:
    """What the token endpoint answered: the token with the refresh token that came along ("" for none), or why not."""
    if status in (200, 201):
        return _token(raw, id, now, asked_scope)
    if 400 <= status < 500 and status not in (408, 429):
        error = error_word(raw)
        if error in _FINAL:
            return Denied(error)
        return Unclear(f"it answered HTTP {status}" + (f" ({error})" if error else ""), error)
    if 300 <= status < 400:
        return Unclear(f"it answered HTTP {status}, a redirect, which is not followed")
    return Unclear(f"it answered HTTP {status}")


def _token(raw: bytes, id: str, now: float, asked_scope: str) -> tuple[Token, str] | Unclear:
    try:
        answer = msgspec.json.decode(raw, type=_Answer)
    except (msgspec.DecodeError, RecursionError):
        return Unclear("its answer holds no token")
    if answer.token_type is not None and answer.token_type.lower() != "bearer":
        return Unclear("its tokens are not of the type Bearer")
    refresh = answer.refresh_token or ""
    if not _is_token(answer.access_token) or (refresh and not _is_token(refresh)):
        return Unclear("its token holds characters that no header can carry, or is too long")
    scope = asked_scope if answer.scope is None else answer.scope
    return Token(id, answer.access_token, scope[:1000], now, _lifetime_s(answer.expires_in)), refresh


def _is_token(text: str) -> bool:
    return len(text) <= _TOKEN_MAX and _TOKEN.fullmatch(text) is not None


def _lifetime_s(said: float | str | None) -> float | None:
    """Some servers write the number as text. What cannot be a lifetime is none: then the 401 decides."""
    try:
        seconds = float(said) if said is not None else 0.0
    except ValueError:
        return None
    return min(seconds, _LIFETIME_MAX_S) if 0 < seconds < float("inf") else None


def error_word(raw: bytes) -> str:
    """The `error` of an OAuth error answer, where it is a plain word."""
    try:
        word = msgspec.json.decode(raw, type=_Error).error
    except (msgspec.DecodeError, RecursionError):
        return ""
    return word if _WORD.fullmatch(word) else ""


def followed(holding: Holding, token: Token, refresh_token: str) -> Holding:
    """What is kept after a renewal: a refresh token that was rotated replaces its predecessor, for good."""
    grant = replace(holding.grant, refresh_token=refresh_token or holding.grant.refresh_token)
    # An answer that names no scope means the same as before (RFC 6749, 6).
    scope = token.scope or (holding.token.scope if holding.token else "")
    return replace(holding, grant=grant, token=replace(token, scope=scope))


def left_s(token: Token, now: float) -> float | None:
    """Seconds to its end; a clock that was set back cannot make it longer than its life. None: unknown."""
    expires_at = token.expires_at
    if expires_at is None or token.lifetime_s is None:
        return None
    return min(expires_at - now, token.lifetime_s)


def due_in_s(token: Token, now: float, chance: float) -> float | None:
    """Seconds until it should be renewed, with `chance` in 0…1 to spread what would come at once; None: never by time."""
    left = left_s(token, now)
    if left is None or token.lifetime_s is None:
        return None
    ahead = min(AHEAD_S, token.lifetime_s * _AHEAD_SHARE)
    return max(0.0, left - ahead * (1 + _AHEAD_SHARE * chance))


def is_over(token: Token, now: float) -> bool:
    """Whether it ended so long ago that no clock's error explains it."""
    left = left_s(token, now)
    return left is not None and left < -LEEWAY_S


def is_fresh(token: Token, age_s: float) -> bool:
    """Whether it was issued just now, `age_s` ago: asking for another one helps nobody."""
    return age_s < (FRESH_S if token.lifetime_s is None else min(FRESH_S, token.lifetime_s / 2))


def to_stored(holding: Holding) -> bytes:
    return msgspec.json.encode(holding)


def from_stored(raw: bytes) -> Holding:
    """Raises msgspec.DecodeError for what another version of this program wrote."""
    return msgspec.json.decode(raw, type=Holding)


def described(token: Token | None) -> dict[str, Any]:
    """What people may know of it."""
    ends = token.expires_at if token else None
    said = datetime.fromtimestamp(ends, UTC).isoformat(timespec="seconds") if ends is not None else None
    return {"expires_at": said, "scope": token.scope if token else ""}
