"""The arguments of a tool as a person types them: KEY=VALUE, or one JSON object."""

import json
import sys
from pathlib import Path
from typing import Any

from mcpserver.lib.command import usage_error


def pairs(given_pairs: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in given_pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise usage_error(f"an argument is written KEY=VALUE: {pair}", hint="or all of them as JSON: --args '{…}'")
        if key in given:
            raise usage_error(f"the argument {key} is given twice")
        given[key] = _value(key, text)
    return given


def _value(key: str, text: str) -> Any:
    """JSON where it is, so that numbers are numbers; `"1"` in quotes is a text. What JSON cannot say is a text too."""
    if not _is_unicode(text):
        raise usage_error(f"the argument {key} is not UTF-8 text")
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value if _is_unicode(json.dumps(value, ensure_ascii=False)) else text


def document(source: str) -> dict[str, Any]:
    text = _read(source)
    if not _is_unicode(text):
        raise usage_error("--args is not UTF-8 text")
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise usage_error(f"--args is not JSON: {error}") from None
    if not _is_unicode(json.dumps(value, ensure_ascii=False)):
        raise usage_error("--args holds half a character: a \\ud800 to \\udfff that stands alone")
    if not isinstance(value, dict):
        raise usage_error("--args must be a JSON object: the names of the arguments and their values")
    return value


def _read(source: str) -> str:
    try:
        if source == "-":
            return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        if source.startswith("@"):
            return Path(source[1:]).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise usage_error(f"--args: {source[1:]} cannot be read: {error.strerror}") from None
    return source


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
