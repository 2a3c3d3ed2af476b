"""Two definitions of a tool side by side, for a person who decides: field by field, and as lines that went and came.

Everything in it was written by a remote, so what would hide on a screen is spelled out.

Pure.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mcpserver.protocol.invisible import spelled_out
from remotes.pinning import PINNED_FIELDS, members

# A comparison of more lines than this could take seconds; what is beyond is not compared, and said so.
LINES_MAX = 400
_CONTEXT = 2


def fields(old: str | None, new: str | None) -> list[dict[str, Any]]:
    """The fields that differ; null is one that is not there, or was not kept."""
    before, after = members(old), members(new)
    names = [*PINNED_FIELDS, *sorted((before.keys() | after.keys()) - set(PINNED_FIELDS))]
    return [
        {"field": name, "old": _shown(before, name), "new": _shown(after, name)}
        for name in names
        if before.get(name) != after.get(name)
    ]


def lines(old: str | None, new: str | None) -> list[str]:
    """A unified difference of both, without its head."""
    before, after = list(_lines(members(old))), list(_lines(members(new)))
    cut = max(len(before), len(after)) - LINES_MAX
    found = list(difflib.unified_diff(before[:LINES_MAX], after[:LINES_MAX], n=_CONTEXT, lineterm=""))[2:]
    return [*found, f"(the last {cut} lines are not compared)"] if cut > 0 else found


def _shown(definition: Mapping[str, object], name: str) -> str | None:
    if name not in definition:
        return None
    value = definition[name]
    return spelled_out(value if isinstance(value, str) else _written(value))


def _lines(definition: Mapping[str, object]) -> Iterator[str]:
    for name in [*PINNED_FIELDS, *sorted(definition.keys() - set(PINNED_FIELDS))]:
        if name in definition:
            value = definition[name]
            text = value if isinstance(value, str) else _written(value)
            for line in spelled_out(text).split("\n"):
                yield f"{name}: {line}"


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
