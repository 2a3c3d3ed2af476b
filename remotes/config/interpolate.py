"""`${VAR}` in the values of a configuration: credentials stay in the environment or in files, the YAML names them.

    ${VAR}  ${env:VAR}     the variable; unset or empty makes the remote misconfigured, nothing else
    ${VAR:-text}           the variable, or this text when it is unset or empty
    ${file:/path}          the content of a file without its last line end (Docker secrets, systemd credentials)
    $${                    a literal ${

A bare $VAR is never touched. It is done on parsed strings only, so that no value can add YAML; once, so that no value can
name another variable; and a literal `${VAR}` is never sent anywhere.

Pure: environment and file reading are handed in.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# None: the file cannot be read.
ReadFile = Callable[[str], str | None]

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_FILE = re.compile(r"file:(?P<path>/.+)", re.DOTALL)
# An upper-case word that somebody meant to be replaced.
_BARE = re.compile(r"(?<![\w$])\$([A-Z][A-Z0-9_]{2,})\b")


@dataclass(frozen=True, slots=True)
class Expanded:
    """`text` with every reference replaced (by nothing, where missing). `sources` are the names of all that was replaced."""

    text: str
    sources: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expander:
    environment: Mapping[str, str]
    read_file: ReadFile

    def expand(self, text: str) -> Expanded:
        if "${" not in text:
            return Expanded(text)
        sources: list[str] = []
        missing: list[str] = []
        faults: list[str] = []

        def replaced(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            inside = match["inside"]
            if inside is None:
                faults.append("a `${` without its `}`, or one inside another")
                return ""
            source, value = self._look_up(inside)
            if source is None:
                faults.append(f"`${{{inside[:60]}}}` is not understood")
                return ""
            sources.append(source)
            if value is None:
                missing.append(source)
            return value or ""

        return Expanded(_REFERENCE.sub(replaced, text), *(map(tuple, (sources, missing, faults))))

    def _look_up(self, inside: str) -> tuple[str | None, str | None]:
        """The name of what is referred to (None: not a reference that we know) and its value (None: missing)."""
        if variable := _VARIABLE.fullmatch(inside):
            value = self.environment.get(variable["name"]) or variable["default"]
            return variable["name"], value
        if file := _FILE.fullmatch(inside):
            content = self.read_file(file["path"])
            return f"file:{file['path']}", content.removesuffix("\n").removesuffix("\r") or None if content else None
        return None, None


def refers(text: str) -> bool:
    """Does `text` hold a reference (rather than only escapes)?"""
    return any(match[0] != "$${" for match in _REFERENCE.finditer(text))


def bare_variable(text: str) -> str | None:
    """The first `$VAR` without braces, which is sent as it stands: worth a warning."""
    match = _BARE.search(text)
    return match[1] if match else None
