"""What a key may use, and how much of it. Pure; the same value filters calls, lists, reads, templates, completion and tasks.

Everything has one name here, `{mcp}__{name}`: tools and prompts as clients see them, and as their remote calls them; resources
with their URI. `*` stands for any text, `?` for one character, upper and lower case differ. What `deny` matches is never there;
where there is an `allow`, only what it matches is. A URI is compared as the text that it is: `%2e` and `..` are not resolved, so
whoever must be kept from a remote's resources is kept from all of them.
"""

import fnmatch
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Literal

from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.protocol.naming import REMOTE, REMOTE_MAX, SEPARATOR

Kind = Literal["tool", "prompt", "resource"]

PATTERNS_MAX = 100
PATTERN_MAX_CHARS = 256
RATE_MAX = 1_000_000
CONNECTIONS_MAX = 10_000
# Verdicts that one grant remembers; names are the remotes', so there may be many.
_VERDICTS_MAX = 20_000
_BUILT_AT_FULL = 1024

_PATTERN = re.compile(r"[^\s\x00-\x1f\x7f]+")
_WILD = re.compile(r"[*?]")


@dataclass(frozen=True, slots=True)
class Grant:
    """An empty tuple restricts nothing, None is the gateway's own limit. `rates` are requests a minute by remote."""

    mcps: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_connections: int | None = None
    rate: int | None = None
    rates: tuple[tuple[str, int], ...] = ()

    @property
    def is_restricted(self) -> bool:
        """Whether there is anything that this key does not see."""
        return bool(self.mcps or self.allow or self.deny)

    @property
    def is_limited(self) -> bool:
        """Whether its requests are counted."""
        return self.rate is not None or bool(self.rates)

    @property
    def fingerprint(self) -> str:
        """Equal for keys that see the same catalogue."""
        if not self.is_restricted:
            return ""
        seen = repr((sorted(self.mcps), sorted(self.allow), sorted(self.deny)))
        return hashlib.sha256(seen.encode()).hexdigest()[:16]

    def rate_for(self, remote: str) -> int | None:
        return next((rate for name, rate in self.rates if name == remote), None)

    def document(self) -> dict[str, Any]:
        """As commands print it, and as it is stored."""
        return {
            "mcps": list(self.mcps),
            "allow": list(self.allow),
            "deny": list(self.deny),
            "max_connections": self.max_connections,
            "rate": self.rate,
            "rates": dict(self.rates),
        }


FIELDS = tuple(field.name for field in fields(Grant))
EVERYTHING = Grant()


@dataclass(frozen=True, slots=True)
class Sight:
    """A grant made ready to judge names: one look into a dictionary for whatever was asked before."""

    mcps: frozenset[str]
    allow: re.Pattern[str] | None
    deny: re.Pattern[str] | None
    literal_allow: tuple[str, ...]
    whole_deny: tuple[str, ...]
    _verdicts: dict[tuple[Kind, str, str, str], bool] = field(default_factory=dict, compare=False, repr=False)

    def allows(self, kind: Kind, remote: str, name: str, exposed: str) -> bool:
        asked = (kind, remote, name, exposed)
        verdict = self._verdicts.get(asked)
        if verdict is None:
            if len(self._verdicts) >= _VERDICTS_MAX:
                self._verdicts.clear()
            verdict = self._verdicts[asked] = self._judge(kind, remote, name, exposed)
        return verdict

    def denies(self, remote: str, name: str) -> bool:
        return self.deny is not None and self.deny.match(remote + SEPARATOR + name) is not None

    def reaches(self, remote: str) -> bool:
        """Whether anything of this remote may be seen, as far as its name alone tells."""
        if self.mcps and remote not in self.mcps:
            return False
        start = remote + SEPARATOR
        if any(start.startswith(literal) for literal in self.whole_deny):
            return False
        return self.allow is None or any(
            literal.startswith(start) or start.startswith(literal) for literal in self.literal_allow
        )

    def _judge(self, kind: Kind, remote: str, name: str, exposed: str) -> bool:
        if self.mcps and remote not in self.mcps:
            return False
        names = [remote + SEPARATOR + name]
        # A resource's URI is the remote's own choice: it must not pass for a name under another remote.
        if exposed and kind != "resource":
            names.append(exposed)
        if self.deny is not None and any(self.deny.match(one) for one in names):
            return False
        return self.allow is None or any(self.allow.match(one) for one in names)


@lru_cache(maxsize=_BUILT_AT_FULL)
def sight(mcps: tuple[str, ...], allow: tuple[str, ...], deny: tuple[str, ...]) -> Sight:
    """Keys that may use the same share one, with what it has judged already."""
    return Sight(
        frozenset(mcps),
        _compiled(allow),
        _compiled(deny),
        tuple(_WILD.split(pattern, maxsplit=1)[0] for pattern in allow),
        tuple(
            pattern.rstrip("*") for pattern in deny if pattern.endswith("*") and not _WILD.search(pattern.rstrip("*"))
        ),
    )


def read(document: Mapping[str, Any]) -> Grant:
    """What was stored; raises GatewayError for what this version does not know: less would mean more access."""
    try:
        unknown = set(document) - set(FIELDS)
        mcps, allow, deny = (_texts(document.get(name) or []) for name in ("mcps", "allow", "deny"))
        rates = tuple(sorted((document.get("rates") or {}).items()))
        grant = Grant(mcps, allow, deny, document.get("max_connections"), document.get("rate"), rates)
    except (TypeError, AttributeError):
        raise _usage("a grant is not readable") from None
    if unknown:
        raise _usage(f"a grant holds what this version does not know: {', '.join(sorted(unknown))}")
    return checked(grant)


def changed(grant: Grant, changes: Mapping[str, Any]) -> Grant:
    """`changes` by field; raises GatewayError `usage` for what cannot be meant."""
    return checked(replace(grant, **changes))


def checked(grant: Grant) -> Grant:
    for name in (*grant.mcps, *(name for name, _ in grant.rates)):
        if not REMOTE.fullmatch(name) or len(name) > REMOTE_MAX:
            raise _usage(f"{name[:80]!r} cannot be the name of a remote", hint="see them with: mcp remote list")
    for patterns in (grant.mcps, grant.allow, grant.deny):
        if len(patterns) > PATTERNS_MAX:
            raise _usage(f"{len(patterns)} entries are too many: at most {PATTERNS_MAX}")
    for pattern in (*grant.allow, *grant.deny):
        _check_pattern(pattern)
    _check_number("connections", grant.max_connections, CONNECTIONS_MAX)
    for rate in (grant.rate, *(rate for _, rate in grant.rates)):
        _check_number("requests a minute", rate, RATE_MAX)
    return grant


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError
    return tuple(value)


def _check_pattern(pattern: str) -> None:
    if len(pattern) > PATTERN_MAX_CHARS or not _PATTERN.fullmatch(pattern):
        raise _usage(f"{pattern[:80]!r} is not a pattern", hint="write names with * and ?, such as 'stripe__*'")
    if "*" not in pattern and SEPARATOR not in pattern:
        hint = f"patterns match whole names, mcp__name: did you mean '{pattern}__*' or '*__{pattern}'?"
        raise _usage(f"{pattern!r} would never match", hint=hint)


def _check_number(what: str, number: int | None, most: int) -> None:
    if number is None:
        return
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
        raise _usage(f"{number!r} {what}: 1 to {most} can be allowed", hint="to end a key: mcpkey revoke NAME")


def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    # fnmatch's own classes, [a-z], are not offered: brackets stand for themselves.
    return re.compile("|".join(fnmatch.translate(pattern.replace("[", "[[]")) for pattern in patterns))


def _usage(message: str, *, hint: str = "") -> GatewayError:
    return GatewayError("usage", message, hint=hint, exit_code=Exit.USAGE)
