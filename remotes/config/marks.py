"""A YAML text as a tree that knows, to the character, where each value begins and ends: what an edit cuts along.

Beside `document`, which says what a text means, this says where it stands. It is asked only about texts that `document` has
read without a finding, so keys are text, occur once, and there are neither tags nor merges.

Pure.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_BETWEEN = re.compile("(?:[ \t\r\n\x85\u2028\u2029]+|#[^\r\n\x85\u2028\u2029]*)*")


@dataclass(slots=True)
class Node:
    """`end` is behind the last character of the value itself, never behind what follows it."""

    kind: Literal["scalar", "map", "list", "alias"]
    start: int
    end: int
    # Of a scalar: its quote, `|`, `>`, or nothing when it is plain.
    style: str = ""
    text: str = ""
    is_flow: bool = False
    # Stands inside braces or brackets.
    in_flow: bool = False
    children: list["Node"] = field(default_factory=list)

    @property
    def pairs(self) -> Iterator[tuple["Node", "Node"]]:
        """A mapping's keys with their values."""
        return zip(self.children[::2], self.children[1::2], strict=True)


class Marked:
    """The text, its tree, and questions about lines and separators."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = _tree(text)
        self._lines = [0, *(match.end() for match in LINE_END.finditer(text))]
        found = LINE_END.search(text)
        self.line_end = found[0] if found else "\n"
        self.step = self._step()

    def line_start(self, index: int) -> int:
        """Where the line that holds `index` begins."""
        return self._lines[bisect_right(self._lines, index) - 1]

    def end_of_line(self, index: int) -> int:
        """Where the line that holds `index` ends, before its line end."""
        found = LINE_END.search(self.text, index)
        return found.start() if found else len(self.text)

    def line_number(self, index: int) -> int:
        return bisect_right(self._lines, index)

    def margin(self, index: int) -> str:
        """What stands before `index` in its line, if that is nothing but white space; else nothing."""
        before = self.text[self.line_start(index) : index]
        return before.lstrip("\ufeff") if not before.lstrip("\ufeff").strip(" \t") else ""

    def begins_line(self, index: int) -> bool:
        return not self.text[self.line_start(index) : index].lstrip("\ufeff").strip(" \t")

    def after(self, index: int, character: str) -> int | None:
        """Behind the `character` that comes next after white space and comments; None if something else does."""
        found = _BETWEEN.match(self.text, index)
        at = found.end() if found else index
        return at + 1 if self.text[at : at + 1] == character else None

    def end_with_comments(self, index: int, column: int) -> int:
        """The end of the line at `index`, or of the last comment below it that stands deeper than `column`: it belongs there."""
        end = position = self.end_of_line(index)
        while found := LINE_END.match(self.text, position):
            position = self.end_of_line(found.end())
            line = self.text[found.end() : position]
            plain = line.lstrip(" ")
            if plain and (not plain.startswith("#") or len(line) - len(plain) <= column):
                break
            end = position if plain else end
        return end

    def _step(self) -> str:
        """What the file indents by: what its first nested mapping does."""
        for _, value in self.root.pairs if self.root.kind == "map" else ():
            if value.kind == "map" and not value.is_flow and value.children:
                margin = self.margin(value.children[0].start)
                return margin.removeprefix(self.margin(self.root.children[0].start)) or "  "
        return "  "


def _tree(text: str) -> Node:
    """The library counts characters, but not the byte order mark."""
    offset = 1 if text.startswith("\ufeff") else 0
    roots: list[Node] = []
    stack: list[Node] = []
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            node = stack.pop()
            # The end of a block is only noticed where the next thing begins, comments later.
            node.end = _index(event.end_mark, offset) if node.is_flow else node.children[-1].end
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, text, offset)
            node.in_flow = bool(stack) and stack[-1].is_flow
            (stack[-1].children if stack else roots).append(node)
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(node)
    return roots[0]


def _node(event: yaml.NodeEvent, text: str, offset: int) -> Node:
    start, end = _index(event.start_mark, offset), _index(event.end_mark, offset)
    match event:
        case yaml.AliasEvent():
            return Node("alias", start, end)
        case yaml.ScalarEvent():
            style = event.style or ""
            if style in ("|", ">"):
                # It has swallowed the blank lines below.
                end = start + len(text[start:end].rstrip(" \r\n\x85\u2028\u2029"))
            return Node("scalar", start, end, style, event.value)
        case yaml.MappingStartEvent():
            return Node("map", start, end, is_flow=bool(event.flow_style))
        case _:
            return Node("list", start, end, is_flow=bool(getattr(event, "flow_style", False)))


def _index(mark: Any, offset: int) -> int:
    return int(mark.index) + offset
