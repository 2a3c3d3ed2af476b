"""What must never be read outside: keys, tokens, passwords. What leaves for a log, a status or a bundle passes here.

Pure. It knows secrets by their shape and by the name in front of them, so it errs towards hiding: a harmless word after
`token=` is masked too. It cannot know a secret that looks like any other word; who holds such a value does not log it.
Every pattern is linear in its text: remotes and clients choose what is searched.
"""

import re
from collections.abc import Mapping
from typing import Any

MASK = "[redacted]"

# Deep enough for any document of ours; what lies deeper is hidden rather than searched.
_DEPTH_MAX = 12

_NAMES = r"authorization|cookie|password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|credentials?"
_NAME = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)

# One lower-case search per hint decides whether the patterns run at all: nearly every line is clean.
_HINTS = (
    "mcp_",
    "bearer",
    "basic ",
    "://",
    "eyj",
    "authorization",
    "cookie",
    "passw",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "privatekey",
    "private_key",
    "private-key",
    "credential",
    "key=",
    "sig=",
    "signature=",
    "code=",
)

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A header carries its secret to the end of the line, or of the quoted string that holds it.
    (re.compile(r"((?:authorization|cookie)[\"']?\s?[:=]\s?[\"']?)[^\"'\r\n]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(bearer|basic)\s{1,4}[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(rf"((?:{_NAMES})[\"']?\s?[:=]\s?[\"']?)[^\s&\"',;]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(://)[^\s/?#\"']{1,512}@"), rf"\1{MASK}@"),
    (re.compile(r"([?&](?:key|sig|signature|code)=)[^\s&\"'#]+", re.IGNORECASE), rf"\1{MASK}"),
    # A JWT: three base64url parts, the first an encoded `{"`.
    (re.compile(r"\beyJ[A-Za-z0-9_\-]{6,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?"), MASK),
)
# A gateway key, or what is left of one: the id stays, so that its owner can find it. Names such as
# mcp_connection_authentication look alike but for this: a secret mixes digits and capitals in.
_KEY = re.compile(r"(mcp_[0-9A-Za-z]{10}_)([0-9A-Za-z]{8,})")


def suspicious(text: str) -> bool:
    """Whether `text` may hold a secret. A cheap no for clean lines."""
    lowered = text.lower()
    return any(hint in lowered for hint in _HINTS)


def text(value: str) -> str:
    """`value` with every secret replaced by the mask."""
    if not suspicious(value):
        return value
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    return _KEY.sub(_masked_key, value)


def document(value: Any, depth: int = 0) -> Any:
    """A copy of a JSON-like value: strings masked by shape, fields masked by name."""
    if isinstance(value, str):
        return text(value)
    if depth >= _DEPTH_MAX and isinstance(value, Mapping | list | tuple):
        return MASK
    if isinstance(value, Mapping):
        return {key: _field(key, inner, depth) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [document(inner, depth + 1) for inner in value]
    return value


def _field(name: Any, value: Any, depth: int) -> Any:
    if isinstance(value, str | bytes | list | tuple) and value and _NAME.search(str(name)):
        return MASK
    return document(value, depth + 1)


def _masked_key(found: re.Match[str]) -> str:
    secret = found.group(2)
    return found.group() if secret.islower() and secret.isalpha() else f"{found.group(1)}{MASK}"
