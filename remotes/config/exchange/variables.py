"""How other programs write variables, as ours: `${VAR}`, `${VAR:-default}`.

What the other program would have sent as it stands must be sent as it stands here too: it is escaped. What it would have asked
a person for, or run a command for, becomes a variable to be set: nothing is ever run.

Pure.
"""

import re
from typing import Any

from remotes.config.interpolate import Expander

_OURS = re.compile(r"\$\{([A-Za-z_]\w*)(:-[^{}]*)?\}")
_REFERENCE = re.compile(r"\$\$\{|\$\{[^{}]*\}|\$\{")
_ANYTHING = Expander({}, lambda path: path)
_BRACED = re.compile(r"(?<!\$)\$\{([^{}]*)\}")
_BARE = re.compile(r"(?<![\w$])\$([A-Za-z_]\w*)")
_OPENCODE = re.compile(r"\{(env|file):([^{}]+)\}")
_CURLY = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_TEMPLATE = re.compile(r"(?<![{$])\{([A-Za-z_][\w.-]*)\}(?!\})")
# The programs whose `${…}` is no variable at all.
_LITERAL_BRACES = frozenset({"opencode", "zed", "docker", "registry", "openai", "anthropic", "codex"})


def named(word: str) -> str:
    """`api-key` and `stripe.key` as the names of variables: API_KEY, STRIPE_KEY."""
    name = re.sub(r"\W+", "_", word, flags=re.ASCII).strip("_").upper()
    return f"V_{name}" if not name or name[0].isdigit() else name


def rewritten(value: Any, format: str) -> Any:
    """Every text in it with our way to write a variable."""
    match value:
        case dict():
            return {key: rewritten(one, format) for key, one in value.items()}
        case list():
            return [rewritten(one, format) for one in value]
        case str():
            return _text(value, format)
        case _:
            return value


def names(value: Any) -> list[str]:
    """The variables that have no default, in order."""
    match value:
        case dict():
            return list(dict.fromkeys(name for one in value.values() for name in names(one)))
        case list():
            return list(dict.fromkeys(name for one in value for name in names(one)))
        case str():
            return [found[1] for found in _OURS.finditer(value.replace("$${", "")) if not found[2]]
        case _:
            return []


def _text(text: str, format: str) -> str:
    text = text.replace("${", "$${") if format in _LITERAL_BRACES else _BRACED.sub(_braced, text)
    if format == "gemini":
        text = _BARE.sub(r"${\1}", text)
    if format == "opencode":
        text = _OPENCODE.sub(
            lambda found: f"${{{found[2].strip() if found[1] == 'env' else 'file:' + found[2].strip()}}}", text
        )
    if format in ("librechat", "docker"):
        text = _CURLY.sub(_variable, text)
    text = _TEMPLATE.sub(_variable, text) if format == "registry" else text
    return _REFERENCE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    """What could not be filled in here, a `${` that is never closed say, is text."""
    is_known = found[0] == "$${" or not _ANYTHING.expand(found[0]).faults
    return found[0] if is_known else f"${found[0]}"


def _variable(found: re.Match[str]) -> str:
    return f"${{{named(found[1])}}}"


def _braced(found: re.Match[str]) -> str:
    """`${input:id}`, `${env:VAR}`, `${workspaceFolder}`; what nobody expands is kept as text."""
    inside = found[1]
    kind, colon, rest = inside.partition(":")
    if _OURS.fullmatch(found[0]) or (kind == "file" and rest.startswith("/")):
        return found[0]
    if kind == "env" and _OURS.fullmatch(f"${{{rest}}}"):
        return f"${{{rest}}}"
    if colon and kind.isidentifier() and not rest.startswith("-"):
        return f"${{{named(rest)}}}"
    return f"${found[0]}"
