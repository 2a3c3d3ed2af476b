"""What is different between two configurations, place by place, with secrets masked on both sides.

Pure.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from remotes.config import editing, view
from remotes.config.document import Path
from remotes.config.load import path_text

_CREDENTIAL = re.compile("auth|key|token|secret|cookie|pass|cred|signature", re.IGNORECASE)


def between(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`{path, change: added|removed|changed, before, after}` for each; a whole remote that came or went is one."""
    shown_old, shown_new = view.written(dict(old)), view.written(dict(new))
    return [
        {
            "path": path_text(path),
            "change": change,
            **_shown("before", shown_old, path),
            **_shown("after", shown_new, path),
        }
        for path, change in _changes(old, new, ())
    ]


def literal_secrets(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Where the entry holds a credential as it is: it would be in every backup, revision and screen share of the file."""
    literal = {"mcpServers": {name: dict(entry)}}
    shown = view.written(literal)
    return [
        path_text(path) for path, _ in _changes(shown, literal, ()) if path[2:3] != ("headers",) or _is_telling(path)
    ]


def _is_telling(path: Path) -> bool:
    """Every literal header is hidden from sight; a region or a version is no credential all the same."""
    return bool(_CREDENTIAL.search(str(path[-1])))


def _changes(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield from () if editing.same(old, new) else [(path, "changed")]
        return
    for key in old:
        if key not in new:
            yield (*path, key), "removed"
        else:
            yield from _changes(old[key], new[key], (*path, key))
    for key in new:
        if key not in old:
            yield (*path, key), "added"


def _shown(side: str, value: Any, path: Path) -> dict[str, Any]:
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return {}
        value = value[part]
    return {side: value}
