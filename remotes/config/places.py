"""Where a value is in a configuration, as a person types it: `mcpServers.time.args[0]`, `gateway["odd key"]`.

Pure: values in, values changed in place, GatewayError for what cannot be there.
"""

import json
import re
from typing import Any

from mcpserver.lib.command import nearest, usage_error
from mcpserver.lib.errors import Exit, GatewayError
from remotes.config.document import Path
from remotes.config.load import path_text

_PART = re.compile(r"""\.?(?P<word>[^.\[\]"]+)|\[(?P<index>[0-9]{1,6})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")


def parse(text: str) -> Path:
    """The parts of a place; usage errors say how it is written."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or (found["word"] and bool(at) != found[0].startswith(".")):
            raise _unreadable(text)
        parts.append(_part(found, text))
        at = found.end()
    if not parts:
        raise _unreadable(text)
    return tuple(parts)


def _part(found: re.Match[str], text: str) -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    try:
        return str(json.loads(found["quoted"])) if found["quoted"] else found["word"]
    except ValueError:
        raise _unreadable(text) from None


def _unreadable(text: str) -> GatewayError:
    hint = 'write it as mcpServers.NAME.timeout, mcpServers.NAME.args[0] or mcpServers.NAME.env["odd name"]'
    return usage_error(f"this is no place in a configuration: {text}", hint=hint)


def put(value: dict[str, Any], path: Path, new: Any) -> None:
    """Set it, with the mappings that lead there; an index may be that of an item, or the next one."""
    inner: Any = value
    for index, (part, following) in enumerate(zip(path, [*path[1:], None], strict=True)):
        if isinstance(inner, list) and isinstance(part, int) and part <= len(inner):
            if part == len(inner):
                inner.append(None)
        elif not isinstance(inner, dict) or not isinstance(part, str):
            raise _nothing(path[: index + 1], [])
        if following is None:
            inner[part] = new
            return
        if (inner[part] if isinstance(part, int) else inner.get(part)) is None:
            inner[part] = [] if isinstance(following, int) else {}
        inner = inner[part]


def remove(value: dict[str, Any], path: Path) -> None:
    """Take it away, and nothing else; GatewayError `not_found` where there is nothing."""
    inner: Any = value
    for index, part in enumerate(path):
        known = list(range(len(inner))) if isinstance(inner, list) else list(inner) if isinstance(inner, dict) else []
        if part not in known:
            raise _nothing(path[: index + 1], [str(one) for one in known])
        if index == len(path) - 1:
            del inner[part]
            return
        inner = inner[part]


def _nothing(path: Path, known: list[str]) -> GatewayError:
    meant = nearest(str(path[-1]), known)
    hint = f"did you mean {path_text((*path[:-1], meant))}?" if meant else "see what there is with: mcpconfig show"
    return GatewayError("not_found", f"there is no {path_text(path)}", hint=hint, exit_code=Exit.NOT_FOUND)
