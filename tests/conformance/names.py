"""The conformance tool knows tools and prompts by their own names, the gateway by `{mcp}__{name}`: both ways, in messages.

A message in which nothing is renamed keeps its bytes.
"""

from __future__ import annotations

import json
from typing import Any

NAMED = frozenset({"tools/call", "prompts/get"})  # the methods whose params.name, and Mcp-Name header, is such a name
LISTS = ("tools", "prompts")


class Names:
    """The renaming for one remote; none for a server that is spoken to directly."""

    def __init__(self, remote: str | None) -> None:
        self.prefix = f"{remote}__" if remote else ""

    def request(self, body: bytes) -> tuple[bytes, str | None]:
        """A client's message for the gateway, and its method."""
        message = parsed(body)
        if not isinstance(message, dict):
            return body, None
        method, params = message.get("method"), message.get("params")
        place = self._place(method, params)
        if place is not None and isinstance(place.get("name"), str):
            place["name"] = self.prefix + place["name"]
            return dumped(message), method
        return body, method if isinstance(method, str) else None

    def header(self, method: str | None, value: bytes) -> bytes:
        """The value of Mcp-Name, white space around it kept."""
        name = value.strip()
        return value.replace(name, self.prefix.encode() + name, 1) if method in NAMED and name else value

    def answer(self, body: bytes) -> bytes:
        """A message of the gateway for the client: lists name what they hold without the remote."""
        message = parsed(body)
        result = message.get("result") if isinstance(message, dict) else None
        renamed = False
        for items in [result.get(key) for key in LISTS] if isinstance(result, dict) else []:
            for item in items if isinstance(items, list) else []:
                if isinstance(item, dict) and str(item.get("name")).startswith(self.prefix):
                    item["name"] = item["name"].removeprefix(self.prefix)
                    renamed = True
        return dumped(message) if renamed else body

    def event(self, event: bytes) -> bytes:
        """One event of a stream, without the blank line that ends it."""
        lines = event.split(b"\n")
        for number, line in enumerate(lines):
            if line.startswith(b"data:"):
                lead = line[: len(line) - len(line[5:].lstrip(b" "))]
                lines[number] = lead + self.answer(line[len(lead) :])
        return b"\n".join(lines)

    @staticmethod
    def _place(method: Any, params: Any) -> dict[str, Any] | None:
        if not isinstance(params, dict):
            return None
        if method in NAMED:
            return params
        reference = params.get("ref")
        if method == "completion/complete" and isinstance(reference, dict) and reference.get("type") == "ref/prompt":
            return reference
        return None


def parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def dumped(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
