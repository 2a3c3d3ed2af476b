"""A JSON document as text for people (`-o table`). Pure; knows no command and no field by name.

Everything printed passes `_clean`: names and messages come from remotes, and a terminal obeys what it prints.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

_GAP = "  "
# What a window shows without folding lines, less the indentation of a section.
WIDTH = 98
_TEXT_MIN = 16
# A long text goes on below in its column, so many lines.
_CELL_LINES = 6


def render(document: Mapping[str, Any]) -> str:
    """Plain values first, as aligned `key  value` lines; then lists of objects as tables, objects as sections."""
    plain = {key: value for key, value in document.items() if not _is_section(value)}
    blocks = [_pairs(plain)] if plain else []
    for key, value in document.items():
        if _is_section(value):
            blocks.append(f"{_clean(key).upper()}\n{_indented(_section(value))}")
    return "\n\n".join(blocks)


def _is_section(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return _is_list(value) and any(isinstance(item, Mapping) for item in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _section(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _rows([item if isinstance(item, Mapping) else {"value": item} for item in value])
    if all(isinstance(item, Mapping) for item in value.values()):
        return _rows([{"name": name, **item} for name, item in value.items()])
    return render(value)


def _rows(items: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for item in items for key in item))
    left_out: list[str] = []
    if _width(_widths(_lines(items, columns))) > WIDTH:
        left_out = [column for column in columns if _says_little(column, items)]
        columns = [column for column in columns if column not in left_out]
    lines = _lines(items, columns)
    widths = _fitted(_widths(lines))
    told = [_row(line, widths) for line in lines] if _width(widths) <= WIDTH else [_records(items, columns)]
    if named := [_clean(column) for column in left_out if any(isinstance(item.get(column), Mapping) for item in items)]:
        told.append(f"({', '.join(named)}: in the JSON)")
    return "\n".join(told)


def _records(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """One below the other, where there are too many columns for a line; without what is empty."""
    told = [{column: item.get(column) for column in columns if _cell(item.get(column)) != "-"} for item in items]
    return "\n\n".join(_record(item) for item in told)


def _record(values: Mapping[str, Any]) -> str:
    width = max((len(_clean(key)) for key in values), default=0)
    lines: list[str] = []
    for key, value in values.items():
        said = textwrap.wrap(
            _cell(value), WIDTH - width - len(_GAP), break_long_words=False, break_on_hyphens=False
        ) or [""]
        lines += [
            f"{_clean(key).ljust(width)}{_GAP}{said[0]}",
            *(" " * (width + len(_GAP)) + line for line in said[1:]),
        ]
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    folded = [_folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return "\n".join(
        _GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip_longest(*folded, fillvalue="")
    )


def _folded(cell: str, width: int) -> list[str]:
    """Texts go on below, between two words; a word that is too long (an address, a checksum) is cut."""
    if " " not in cell:
        return [cell if len(cell) <= width else f"{cell[: width - 1]}…"]
    return textwrap.wrap(cell, width, break_on_hyphens=False, max_lines=_CELL_LINES, placeholder=" …") or [""]


def _lines(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    return [[_clean(column).upper() for column in columns]] + [
        [_cell(item.get(column)) for column in columns] for item in items
    ]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]


def _says_little(column: str, items: Sequence[Mapping[str, Any]]) -> bool:
    """Documents of their own, and what is empty everywhere: the first to go where a table is too wide."""
    values = [item.get(column) for item in items]
    return any(isinstance(value, Mapping) for value in values) or all(_cell(value) == "-" for value in values)


def _fitted(widths: Sequence[int]) -> list[int]:
    """The widest columns are narrowed, each as little as will do, until the line fits; the first has the names, and stays."""
    first, *fitted = widths
    over = _width(widths) - WIDTH
    while over > 0 and max(fitted, default=0) > _TEXT_MIN:
        at = fitted.index(max(fitted))
        next_widest = max([width for width in fitted if width < fitted[at]], default=_TEXT_MIN)
        less = min(over, fitted[at] - max(next_widest, _TEXT_MIN)) or 1
        fitted[at] -= less
        over -= less
    return [first, *fitted]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _pairs(values: Mapping[str, Any]) -> str:
    width = max(len(_clean(key)) for key in values)
    return "\n".join(f"{_clean(key).ljust(width)}{_GAP}{_cell(value)}".rstrip() for key, value in values.items())


def _cell(value: Any) -> str:
    if value is None or value == "" or value in ([], {}, ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{_clean(key)}={_cell(item)}" for key, item in value.items())
    if _is_list(value):
        return ", ".join(_cell(item) for item in value)
    return _clean(value)


def _clean(value: Any) -> str:
    """One line that no terminal obeys: control and direction characters are shown as escapes."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
