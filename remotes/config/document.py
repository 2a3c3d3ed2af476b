"""A YAML text as plain values, and where each of them stands in the text.

Why not `yaml.safe_load`: it takes the last of two equal keys in silence, reads `22:22` as 1342 and `no` as false, follows
aliases without end, and forgets the lines. Here scalars are read as YAML 1.2 and JSON read them, every key is a string and
occurs once, every bound is a number below, and no tag is ever acted upon. JSON is YAML: a pasted JSON document reads too.

Pure: text in, values and findings out; any text at all is answered, never raised at.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

TEXT_MAX_BYTES = 1024 * 1024
# A thousand remotes with thirty values each are 30,000; an alias counts for all that it repeats.
VALUES_MAX = 100_000
# The schema is five levels deep.
DEPTH_MAX = 32
# Beyond this, one mistake (a wrong quote) is the likely cause of all.
FINDINGS_MAX = 200

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where something begins, both counted from 1."""

    line: int
    column: int


START = Position(1, 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to report about the value at `path` (or its key); `at` is only given where no value could be made."""

    path: Path
    code: str
    message: str
    hint: str = ""
    on_key: bool = False
    at: Position | None = None


@dataclass(frozen=True, slots=True)
class Document:
    value: object
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)

    def locate(self, finding: Finding) -> Position:
        """Where to point: at the value, at its key when that is what is wrong, else at what surrounds it."""
        if finding.at is not None:
            return finding.at
        places = self.keys if finding.on_key else self.values
        if finding.path in places:
            return places[finding.path]
        for length in range(len(finding.path), -1, -1):
            path = finding.path[:length]
            if found := self.keys.get(path) or self.values.get(path):
                return found
        return START


def read(text: str, *, is_text: Callable[[Path], bool]) -> tuple[Document | None, list[Finding]]:
    """Read `text`; where `is_text(path)`, an unquoted `8080` or `true` stays the text that was written.

    No document means that nothing further can be said; findings beside a document leave the rest of it readable.
    """
    findings = list(_unreadable(text))
    if findings:
        return None, findings
    try:
        root, findings = _compose(text)
        if root is None:
            return None, findings or [Finding((), "empty", "the file is empty", _HINT_EMPTY, at=START)]
        reader = _Reader(is_text, findings)
        value = reader.value(root, (), 0)
    except _Stop as stop:
        return None, [stop.finding]
    except yaml.YAMLError as error:
        return None, [_syntax(error, text)]
    return Document(value, reader.keys, reader.values), findings[:FINDINGS_MAX]


_HINT_EMPTY = "begin with `mcpServers:` and one entry per remote; ./start writes a commented example"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
# Eighteen digits are more than any setting needs, and keep int() and float() away from numbers made to be slow.
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18}|[0-9]{1,18}(?=[eE]))(?:[eE][-+]?[0-9]{1,2})?")


class _Stop(Exception):
    """Reading cannot go on; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


@dataclass(slots=True)
class _Node:
    """A scalar, or a list or mapping whose children follow each other (a mapping's: key, value, key, value)."""

    kind: str
    at: Position
    text: str = ""
    is_plain: bool = False
    is_open: bool = False
    children: list["_Node"] = field(default_factory=list)


def _unreadable(text: str) -> Iterator[Finding]:
    if len(text) > TEXT_MAX_BYTES or len(text.encode(errors="replace")) > TEXT_MAX_BYTES:
        yield Finding((), "too_large", f"the file is larger than {TEXT_MAX_BYTES} bytes", at=START)
    elif bad := _FORBIDDEN.search(text, 1 if text.startswith("\ufeff") else 0):
        message = f"the character U+{ord(bad[0]):04X} is not allowed in YAML"
        yield Finding(
            (), "bad_character", message, "save the file as plain UTF-8 text", at=_position(text, bad.start())
        )


def _position(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


def _compose(text: str) -> tuple[_Node | None, list[Finding]]:
    """Build the tree from events, with a stack of our own: the library's composer recurses as deep as the text says."""
    findings: list[Finding] = []
    anchors: dict[str, _Node] = {}
    roots: list[_Node] = []
    stack: list[_Node] = []
    count = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        mark = event.start_mark
        at = _at(mark) if mark else START
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop().is_open = False
            continue
        if isinstance(event, yaml.DocumentStartEvent) and roots:
            raise _Stop(
                Finding((), "several_documents", "a second document begins here", "keep one `---` at most", at=at)
            )
        if not isinstance(event, yaml.NodeEvent):
            continue
        count += 1
        if count > VALUES_MAX:
            raise _Stop(_too_many(at))
        node = _node(event, at, anchors, findings)
        (stack[-1].children if stack else roots).append(node)
        if node.is_open and not isinstance(event, yaml.AliasEvent):
            stack.append(node)
            if len(stack) > DEPTH_MAX:
                raise _Stop(_too_deep(at))
    return (roots[0] if roots else None), findings


def _node(event: yaml.NodeEvent, at: Position, anchors: dict[str, _Node], findings: list[Finding]) -> _Node:
    if isinstance(event, yaml.AliasEvent):
        return _aliased(event.anchor or "", at, anchors)
    tag = getattr(event, "tag", None)
    if tag is not None and len(findings) < FINDINGS_MAX:
        shown = tag.replace("tag:yaml.org,2002:", "!!")[:60]
        message = f"the tag `{shown}` is not accepted: nothing in this file is ever run or built"
        findings.append(Finding((), "tag", message, "remove what begins with `!`", at=at))
    if isinstance(event, yaml.ScalarEvent):
        # An event without a style word was written plain; so is an empty value.
        node = _Node("scalar", at, text=event.value, is_plain=event.style in (None, ""))
    else:
        node = _Node("map" if isinstance(event, yaml.MappingStartEvent) else "list", at, is_open=True)
    if event.anchor is not None:
        anchors[event.anchor] = node
    return node


def _aliased(anchor: str, at: Position, anchors: dict[str, _Node]) -> _Node:
    node = anchors.get(anchor)
    if node is None:
        message = f"`*{anchor[:60]}` refers to nothing"
        raise _Stop(Finding((), "alias", message, "quote the value if the `*` belongs to it", at=at))
    if node.is_open:
        raise _Stop(Finding((), "alias", f"`*{anchor[:60]}` contains itself", at=at))
    return node


class _Reader:
    """Turns nodes into values; the count goes on through aliases, so that a few lines cannot become a billion values."""

    def __init__(self, is_text: Callable[[Path], bool], findings: list[Finding]) -> None:
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self._is_text = is_text
        self._findings = findings
        self._count = 0

    def value(self, node: _Node, path: Path, depth: int) -> object:
        self._count += 1
        if self._count > VALUES_MAX:
            raise _Stop(_too_many(node.at))
        if depth > DEPTH_MAX:
            raise _Stop(_too_deep(node.at))
        self.values[path] = node.at
        match node.kind:
            case "scalar":
                return self._scalar(node, path)
            case "list":
                return [self.value(child, (*path, index), depth + 1) for index, child in enumerate(node.children)]
            case _:
                return self._mapping(node, path, depth)

    def _scalar(self, node: _Node, path: Path) -> object:
        value = _resolved(node)
        return value if value is None or not self._is_text(path) else node.text

    def _mapping(self, node: _Node, path: Path, depth: int) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key, child in zip(node.children[::2], node.children[1::2], strict=True):
            if fault := self._key_fault(key, path, mapping):
                self._findings.append(fault)
                continue
            self.keys[(*path, key.text)] = key.at
            mapping[key.text] = self.value(child, (*path, key.text), depth + 1)
        return mapping

    def _key_fault(self, key: _Node, path: Path, mapping: dict[str, object]) -> Finding | None:
        if key.kind != "scalar":
            hint = "a value with braces or brackets in it needs quotes"
            return Finding(path, "bad_key", "a key must be text, not a list or a mapping", hint, at=key.at)
        if not isinstance(_resolved(key), str):
            shown = key.text[:60] or "(nothing)"
            return Finding(path, "bad_key", f"the key {shown} is not text", f'write "{key.text[:60]}"', at=key.at)
        if key.is_plain and key.text == "<<":
            return Finding(path, "merge_key", "`<<` is not supported", "repeat the fields in this entry", at=key.at)
        if key.text in mapping:
            first = self.keys[(*path, key.text)]
            message = f"`{key.text[:60]}` is given twice, first in line {first.line}"
            return Finding((*path, key.text), "duplicate_key", message, "keep one of them", at=key.at)
        return None


def _resolved(node: _Node) -> object:
    """An unquoted scalar by the JSON-like rules of YAML 1.2; dates, `no`, `22:22` and `0x10` stay text."""
    text = node.text
    if not node.is_plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _too_many(at: Position) -> Finding:
    return Finding((), "too_many_values", f"more than {VALUES_MAX} values, what aliases repeat included", at=at)


def _too_deep(at: Position) -> Finding:
    return Finding((), "too_deep", f"nested deeper than {DEPTH_MAX} levels", at=at)


def _syntax(error: yaml.YAMLError, text: str) -> Finding:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    if mark is None:
        return Finding((), "syntax", f"not valid YAML: {problem}", at=START)
    # The cause often stands in the line above the one where reading stopped.
    lines = text.splitlines()
    near = lines[max(mark.line - 1, 0) : mark.line + 1]
    if mark.line >= len(lines) or (mark.line == len(lines) - 1 and mark.column >= len(lines[-1])):
        return _ends_early(getattr(error, "context_mark", None) or mark, len(lines))
    return Finding((), "syntax", f"not valid YAML: {problem}", _syntax_hint(problem, near), at=_at(mark))


def _ends_early(mark: Any, count: int) -> Finding:
    """Pointing behind the last line helps nobody: the value that is not closed begins at `mark`."""
    at = Position(min(mark.line + 1, max(count, 1)), mark.column + 1)
    hint = "close the quote or bracket that opens here; was the file cut off?"
    return Finding((), "syntax", "not valid YAML: the file ends in the middle of a value", hint, at=at)


def _at(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _syntax_hint(problem: str, near: list[str]) -> str:
    if "alphabetic or numeric" in problem:
        return "text that begins with `*` or `&` needs quotes around it"
    if "Unicode character escape" in problem:
        return "write the character itself instead of two \\u escapes"
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in near):
        return "indent with spaces, not with tabs"
    if any(line.lstrip().startswith("//") for line in near):
        return "comments begin with `#` here"
    if any(re.search(r":\s+[^\"'\s].*:\s", line) for line in near):
        return "a value that contains `: ` needs quotes around it"
    return "check indentation, quotes and brackets here and in the line above"
