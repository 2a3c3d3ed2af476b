"""Names as clients see them: `{mcp}__{tool}`, in characters and lengths that every known client takes.

An exposed name is looked up in the catalogue's table and never parsed back: what comes before `__` is not trusted to be a
remote's name, and a shortened name holds no way back to the original.
"""

import hashlib
import re

REMOTE = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
REMOTE_MAX = 24
SEPARATOR = "__"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST = 6


def full(remote: str, name: str) -> str:
    """The name as it would be if names could be of any length."""
    return remote + SEPARATOR + _UNSAFE.sub("_", name)


def exposed(remote: str, name: str, longest: int) -> str:
    """The name under which clients see `name` of `remote`: at most `longest` characters, the same at every start.

    Shortened names keep their beginning and end in `_` and six hex digits of the SHA-256 of the whole.
    """
    whole = full(remote, name)
    if len(whole) <= longest:
        return whole
    digest = hashlib.sha256(f"{remote}{SEPARATOR}{name}".encode()).hexdigest()[:_DIGEST]
    return f"{whole[: longest - _DIGEST - 1]}_{digest}"


def distinct_uri(remote: str, uri: str) -> str:
    """A URI of a remote whose own form another remote has already taken: the remote's name joins its scheme (RFC 3986 3.1)."""
    scheme_part = re.sub(r"[^a-z0-9-]", "-", remote)
    if not scheme_part[0].isalpha():
        scheme_part = f"r-{scheme_part}"
    return f"{scheme_part}+{uri}"
