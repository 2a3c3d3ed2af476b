"""The text of another program's configuration as values: JSON with the comments and trailing commas that editors allow, TOML
or YAML, told apart by what is in it and never by a file's name.

Pure: any text is answered or refused with one clear error.
"""

import json
import re
import tomllib
from typing import Any

from mcpserver.lib.errors import Exit, GatewayError
from remotes.config import document

TEXT_MAX = 4 * 1024 * 1024
# A string, a comment, or a comma that only white space and comments part from its closing bracket.
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<comma>,)(?=(?:\s|//[^\n]*|/\*.*?\*/)*[}\]])""",
    re.DOTALL,
)
_TOML = re.compile(r"^\s*(?:\[\[?[A-Za-z_\"]|[A-Za-z_][\w.-]*\s*=)", re.MULTILINE)


def values(text: str) -> Any:
    """What the text says; GatewayError `unreadable` with the line where reading ended."""
    if len(text) > TEXT_MAX:
        raise _unreadable(f"it is larger than {TEXT_MAX} characters")
    text = text.removeprefix("\ufeff")
    start = _without_comments(text).lstrip()[:1]
    if start in ("{", "["):
        try:
            return json.loads(_without_comments(text))
        except (ValueError, RecursionError) as error:
            if start == "{" or not _TOML.search(text):
                raise _unreadable(f"it is not JSON: {error}") from None
    if _TOML.search(text) and not re.search(r"^\w[\w.-]*:(?:\s|$)", text, re.MULTILINE):
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise _unreadable(f"it is not TOML: {error}") from None
    found, findings = document.read(text, is_text=lambda path: path[-2:-1] in (("env",), ("envs",), ("headers",)))
    if found is None:
        first = findings[0]
        raise _unreadable(f"line {first.at.line if first.at else 1}: {first.message}")
    return found.value


def _without_comments(text: str) -> str:
    """Blanked out, so that places stay what they were."""
    return _TOKEN.sub(lambda found: found[0] if found["string"] else re.sub(r"[^\n]", " ", found[0]), text)


def _unreadable(what: str) -> GatewayError:
    hint = "give the configuration file of a client: JSON, TOML or YAML with its servers in it"
    return GatewayError("unreadable", f"this cannot be imported: {what}", hint=hint, exit_code=Exit.CONFIG)
