"""Changing somebody's YAML file as they would: what differs is cut out or put in, every other byte stays as it is.

Comments, order, quotes, indentation, line ends and blank lines survive because nothing is written anew: the places come from
the parser's marks. What comes out is read again and must be the wanted value and nothing else, in the same order; an edit that
cannot be made so (an anchor that others refer to, a form that is not cut along) is refused and left to a person.

Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcpserver.lib.errors import GatewayError
from remotes.config import document, rendering, schema
from remotes.config.marks import Marked, Node

Value = Any


def rewritten(text: str, wanted: Mapping[str, Value]) -> str:
    """`text` with as little changed as makes it mean `wanted`; GatewayError `cannot_edit` where that cannot be done."""
    value = _meaning(text)
    if value is None:
        raise _refused(1, "the file as it is cannot be read without a finding")
    if same(value, wanted):
        return text
    work = _Splicing(Marked(text))
    work.change(work.marked.root, None, value, wanted)
    changed = work.spliced()
    if not same(_meaning(changed), wanted):
        raise _refused(work.first_line, "cutting there would change something else as well")
    return changed


def same(one: Value, other: Value) -> bool:
    """Equal in type, too (1 is neither true nor 1.0), and in the order of keys."""
    match one, other:
        case (Mapping(), Mapping()):
            return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        case (list() | tuple(), list() | tuple()):
            return len(one) == len(other) and all(map(same, one, other))
        case _:
            return type(one) is type(other) and bool(one == other)


def _meaning(text: str) -> Value:
    found, findings = document.read(text, is_text=schema.is_text)
    return None if found is None or findings else found.value


def _refused(line: int, why: str) -> GatewayError:
    return GatewayError(
        "cannot_edit",
        f"line {line} cannot be edited by a command: {why}",
        hint="edit the file by hand: it is watched and applied",
        line=line,
    )


@dataclass(slots=True)
class _Splicing:
    """Collects what to cut and put in; each splice is a range of the original and the text that takes its place."""

    marked: Marked
    splices: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def first_line(self) -> int:
        return self.marked.line_number(min((start for start, _, _ in self.splices), default=0))

    def spliced(self) -> str:
        text, parts, at = self.marked.text, [], 0
        for start, end, replacement in sorted(self.splices, key=lambda splice: splice[:2]):
            if start < at:
                raise _refused(self.marked.line_number(start), "two changes meet there")
            parts += [text[at:start], replacement]
            at = end
        return "".join([*parts, text[at:]])

    def put(self, start: int, end: int, replacement: str) -> None:
        self.splices.append((start, end, replacement))

    # Deciding, from what is there and what is wanted.

    def change(self, node: Node, key: Node | None, old: Value, new: Value) -> None:
        if same(old, new):
            return
        match node.kind, old, new:
            case "map", dict(), Mapping() if old and new and (key is None or _is_in_order(old, new)):
                self._change_map(node, old, new)
            case "list", list(), list() if old and new:
                self._change_list(node, old, new)
            case "map" | "list", dict() | list(), dict() | list() if (
                not node.is_flow and key and type(old) is type(new)
            ):
                self._empty_block(node, key, new)
            case "alias", dict() | list(), _:
                raise _refused(self.marked.line_number(node.start), "the value is written elsewhere, behind an alias")
            case _:
                self._replace(node, key, new)

    def _change_map(self, node: Node, old: dict[str, Value], new: Mapping[str, Value]) -> None:
        pairs = list(node.pairs)
        for key, value in pairs:
            if key.text in new:
                self.change(value, key, old[key.text], new[key.text])
        going = {index for index, (key, _) in enumerate(pairs) if key.text not in new}
        coming = {key: value for key, value in new.items() if key not in old}
        places = [(key.start, max(value.end, key.end)) for key, value in pairs]
        if node.is_flow:
            self._change_flow(node, places, going, coming)
            return
        self._cut_from_block(node, places, going)
        if coming:
            self._add_to_block_map(node, coming)

    def _change_list(self, node: Node, old: list[Value], new: list[Value]) -> None:
        kept = _common(old, new)
        tail = _common(old[kept:][::-1], new[kept:][::-1])
        if not kept and tail == len(old):
            tail = 0  # New in front of everything: it takes the first item's place.
        middle = node.children[kept : len(old) - tail]
        wanted = new[kept : len(new) - tail]
        for index, (child, value) in enumerate(zip(middle, wanted, strict=False)):
            self.change(child, None, old[kept + index], value)
        going = set(range(kept + len(wanted), kept + len(middle)))
        coming = wanted[len(middle) :]
        places = [(child.start, child.end) for child in node.children]
        if node.is_flow:
            self._cut_from_flow(places, going)
        else:
            self._cut_from_block(node, places, going)
        if coming:
            self._add_to_list(node, node.children[kept + len(middle) - 1], coming)

    # Replacing.

    def _empty_block(self, node: Node, key: Node, new: Value) -> None:
        """The comments between what goes stay."""
        entries = list(node.pairs) if node.kind == "map" else [(child, child) for child in node.children]
        places = [(first.start, max(last.end, first.end)) for first, last in entries]
        self._cut_from_block(node, places, set(range(len(places))))
        colon = self._colon(key)
        self.put(colon, colon, " " + rendering.flow(new))

    def _colon(self, key: Node) -> int:
        colon = self.marked.after(key.end, ":")
        if colon is None:
            raise _refused(self.marked.line_number(key.start), "the key has no colon of its own")
        return colon

    def _replace(self, node: Node, key: Node | None, new: Value) -> None:
        if key is None or key.in_flow:
            self.put(node.start, node.end, self._inline(node, new))
            return
        colon = self._colon(key)
        below = rendering.lines_below(new, margin=self._margin(key), step=self.marked.step)
        end_of_key_line = self.marked.end_of_line(colon)
        is_below = node.start > end_of_key_line or (node.kind in ("map", "list") and not node.is_flow)
        if is_below:
            self.put(end_of_key_line, node.end, "")
        elif below:
            self.put(colon, node.end, "")
        if below:
            at = node.end if is_below else self.marked.end_of_line(node.end)
            self.put(at, at, self._lines(below))
        elif is_below or node.start == node.end:
            self.put(colon, colon, " " + rendering.flow_in_block(new))
        else:
            self.put(node.start, node.end, self._inline(node, new))

    def _inline(self, node: Node, new: Value) -> str:
        if node.kind == "scalar" and not isinstance(new, (Mapping, list)):
            return rendering.scalar(new, like=node.style, in_flow=node.in_flow)
        return rendering.flow(new, as_json=node.style == '"' or _is_json(node))

    # Blocks: whole lines come and go.

    def _cut_from_block(self, node: Node, places: Sequence[tuple[int, int]], going: set[int]) -> None:
        for index in sorted(going):
            start, end = places[index]
            line = self.marked.line_start(start)
            before = self.marked.text[line:start].lstrip("\ufeff")
            if before.strip(" ") not in ({"-"} if node.kind == "list" else {""}):
                raise _refused(self.marked.line_number(start), "it shares its line with something else")
            column = len(before) - len(before.lstrip(" "))
            last = self.marked.end_with_comments(end, column)
            if line:
                self.put(self._before_blank_line(self._before_line(line), last), last, "")
            else:
                self.put(start, min(last + len(self.marked.line_end), len(self.marked.text)), "")

    def _before_line(self, line: int) -> int:
        text = self.marked.text
        return line - (2 if text[line - 2 : line] == "\r\n" else 1)

    def _before_blank_line(self, cut: int, last: int) -> int:
        """The blank line above goes too where another follows: else two would stand together."""
        line = self.marked.line_start(cut)
        below = self.marked.text[last : self.marked.end_of_line(last + len(self.marked.line_end))]
        is_between = line and not self.marked.text[line:cut].strip() and not below.strip()
        return self._before_line(line) if is_between else cut

    def _add_to_block_map(self, node: Node, coming: Mapping[str, Value]) -> None:
        keys = node.children[::2]
        margin = self._margin(keys[-1])
        at = self.marked.end_with_comments(max(node.end, keys[-1].end), len(margin))
        lines: list[str] = []
        for key, value in coming.items():
            if isinstance(value, Mapping) and value and self._is_spaced(node):
                lines.append("")
            lines += rendering.entry(key, value, margin=margin, step=self.marked.step)
        self.put(at, at, self._lines(lines))

    def _is_spaced(self, node: Node) -> bool:
        """Do blank lines stand between the entries already?"""
        if len(node.children) < 4:
            return False
        between = self.marked.text[node.children[-3].end : node.children[-2].start]
        return any(not line.strip() for line in between.splitlines()[1:-1])

    def _lines(self, lines: Sequence[str]) -> str:
        return "".join(self.marked.line_end + line for line in lines)

    def _margin(self, key: Node) -> str:
        if not self.marked.begins_line(key.start):
            raise _refused(self.marked.line_number(key.start), "it shares its line with something else")
        return self.marked.margin(key.start)

    # Flow: items and their commas.

    def _change_flow(
        self, node: Node, places: Sequence[tuple[int, int]], going: set[int], coming: Mapping[str, Value]
    ) -> None:
        staying = [index for index in range(len(places)) if index not in going]
        if not staying:
            self.put(node.start, node.end, rendering.flow(coming, as_json=_is_json(node)))
            return
        self._cut_from_flow(places, going)
        for key, value in coming.items():
            start, end = places[staying[-1]]
            self.put(end, end, self._flow_pair(node, start, key, value))

    def _flow_pair(self, node: Node, sibling: int, key: str, value: Value) -> str:
        as_json, in_lines = _is_json(node), self.marked.begins_line(sibling)
        named = rendering.scalar(key, like='"' if as_json else "", in_flow=True)
        if not in_lines:
            return f", {named}: {rendering.flow(value, as_json=as_json)}"
        margin = self.marked.margin(sibling)
        shown = rendering.flow(value, as_json=as_json)
        if as_json:
            outer = self.marked.text[self.marked.line_start(node.start) : node.start]
            step = margin.removeprefix(outer[: len(outer) - len(outer.lstrip(" \t"))])
            shown = rendering.indented_json(value, step=step, margin=margin, line_end=self.marked.line_end)
        return f",{self.marked.line_end}{margin}{named}: {shown}"

    def _add_to_list(self, node: Node, sibling: Node, coming: Sequence[Value]) -> None:
        if node.is_flow:
            as_json = any(child.style == '"' for child in node.children)
            in_lines = self.marked.begins_line(sibling.start)
            comma = "," + self.marked.line_end + self.marked.margin(sibling.start) if in_lines else ", "
            self.put(sibling.end, sibling.end, "".join(comma + rendering.flow(one, as_json=as_json) for one in coming))
            return
        line = self.marked.line_start(sibling.start)
        dash = self.marked.text[line : sibling.start]
        if dash.strip(" ") != "-":
            raise _refused(self.marked.line_number(sibling.start), "the item shares its line with something else")
        like = sibling.style if sibling.style in ("'", '"') else ""
        at = self.marked.end_with_comments(sibling.end, dash.index("-"))
        self.put(at, at, self._lines([dash + rendering.flow_in_block(one, like=like) for one in coming]))

    def _cut_from_flow(self, places: Sequence[tuple[int, int]], going: set[int]) -> None:
        for index in sorted(going):
            start, end = places[index]
            comma = self.marked.after(end, ",")
            is_beside = comma is not None and not self.marked.text[end : comma - 1].strip(" \t")
            self._cut_tidily(start, comma if comma is not None and is_beside else end)
            if comma is not None and not is_beside:
                self.put(comma - 1, comma, "")
        last = max((index for index in range(len(places)) if index not in going), default=None)
        if going and last is not None and last < len(places) - 1 and len(places) - 1 in going:
            comma = self.marked.after(places[last][1], ",")
            if comma is not None:
                self.put(comma - 1, self._behind_spaces(comma), "")

    def _behind_spaces(self, index: int) -> int:
        while self.marked.text[index : index + 1] in (" ", "\t"):
            index += 1
        return index

    def _cut_tidily(self, start: int, end: int) -> None:
        """With its whole line where it is alone in it, else with the spaces behind it."""
        text = self.marked.text
        line, last = self.marked.line_start(start), self.marked.end_of_line(end)
        if line and self.marked.begins_line(start) and not text[end:last].strip(" \t"):
            self.put(self._before_line(line), last, "")
            return
        self.put(start, self._behind_spaces(end), "")


def _common(one: Sequence[Value], other: Sequence[Value]) -> int:
    """How many items both begin with."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if not same(a, b)),
        min(len(one), len(other)),
    )


def _is_in_order(old: Mapping[str, Value], new: Mapping[str, Value]) -> bool:
    """Do the keys that stay keep their order, with every new one behind them?"""
    staying = [key for key in old if key in new]
    return list(new)[: len(staying)] == staying


def _is_json(node: Node) -> bool:
    return node.kind == "map" and any(key.style == '"' for key in node.children[::2])
