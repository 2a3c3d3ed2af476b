"""Header values of Streamable HTTP 2026-07-28: the Base64 sentinel, and arguments mirrored as `Mcp-Param-*`.

Source: specification 2026-07-28, basic/transports/streamable-http "Value Encoding" and "Custom Headers from Tool Parameters".
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PREFIX, _SUFFIX = "=?base64?", "?="
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_SAFE_INTEGER = 2**53 - 1


def encode_value(value: str) -> str:
    """A header value that says `value`: plain where that is safe, else Base64 between the sentinel's marks."""
    looks_encoded = value.startswith(_PREFIX) and value.endswith(_SUFFIX)
    if _PLAIN.fullmatch(value) and not looks_encoded:
        return value
    return _PREFIX + base64.b64encode(value.encode()).decode() + _SUFFIX


def decode_value(value: str) -> str | None:
    """What a header value says, or None when its Base64 or UTF-8 is broken."""
    if not (value.startswith(_PREFIX) and value.endswith(_SUFFIX)):
        return value
    try:
        return base64.b64decode(value[len(_PREFIX) : -len(_SUFFIX)], validate=True).decode()
    except ValueError:  # not Base64, not ASCII, not UTF-8
        return None


class InvalidAnnotation(ValueError):
    """An `x-mcp-header` that breaks the rules: a client over HTTP must drop the tool that carries it."""


def annotated(schema: Any) -> dict[str, tuple[str, ...]]:
    """Each `x-mcp-header` of an input schema in lower case, and the path of `properties` to its argument.

    Raises InvalidAnnotation for one that is empty, no token, doubled, on a non-primitive, or not statically reachable.
    """
    found: dict[str, tuple[str, ...]] = {}
    reachable = 0
    for path, node in _properties(schema, ()):
        if "x-mcp-header" not in node:
            continue
        name = node["x-mcp-header"]
        reachable += 1
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidAnnotation(f"x-mcp-header at {'.'.join(path)} is not a header token: {name!r}")
        if node.get("type") not in ("integer", "string", "boolean"):
            raise InvalidAnnotation(f"x-mcp-header {name} is on a {node.get('type')!r}, not on a primitive")
        if name.lower() in found:
            raise InvalidAnnotation(f"x-mcp-header {name} is used twice")
        found[name.lower()] = path
    if sum(1 for _ in _annotations(schema)) != reachable:
        raise InvalidAnnotation("an x-mcp-header is not reachable through properties alone")
    return found


def mirrored(paths: Mapping[str, tuple[str, ...]], arguments: Any) -> dict[str, str]:
    """The `Mcp-Param-*` headers (names in lower case) that a call with `arguments` must carry."""
    headers: dict[str, str] = {}
    for name, path in paths.items():
        value = _at(arguments, path)
        if value is not None:
            headers[f"mcp-param-{name}"] = encode_value(_as_text(value))
    return headers


def agrees(header: str, value: Any) -> bool:
    """Whether a received `Mcp-Param-*` header says the same as the argument; integers compare as numbers."""
    header = header.strip(" \t")
    said = decode_value(header) if _PLAIN.fullmatch(header) or not header else None
    if said is None:
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Only what is a number in JSON: Python would also read "1_000", " 1" and digits of other scripts.
        return _NUMBER.fullmatch(said) is not None and float(said) == value and abs(value) <= _SAFE_INTEGER
    return said == _as_text(value)


def argument(paths: Mapping[str, tuple[str, ...]], name: str, arguments: Any) -> Any:
    """The argument that header `name` (without its prefix, lower case) mirrors; None when it is absent or null."""
    return _at(arguments, paths[name])


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(step)
    return arguments


def _properties(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    for name, node in properties.items():
        if isinstance(node, dict):
            yield (*path, name), node
            yield from _properties(node, (*path, name))


def _annotations(node: Any, *, is_schema: bool = True) -> Iterator[None]:
    """Every x-mcp-header keyword anywhere in a schema; a property that merely has that name is none."""
    if isinstance(node, list):
        for item in node:
            yield from _annotations(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "x-mcp-header" and is_schema:
                yield None
            elif key in ("properties", "$defs", "definitions", "patternProperties") and is_schema:
                yield from _annotations(value, is_schema=False)
            elif key not in ("const", "enum", "default", "examples") or not is_schema:
                yield from _annotations(value)
