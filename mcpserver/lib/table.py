"""A JSON document as text for people (`-o table`). Pure; knows no command and no field by name.

Everything printed passes `_clean`: names and messages come from remotes, and a terminal obeys what it prints.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_GAP = "  "
# What a window shows without folding lines, with the indentation of a section.
WIDTH = 118
_TEXT_MIN = 16


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
    if sum(_widths(_lines(items, columns))) + len(_GAP) * (len(columns) - 1) > WIDTH:
        left_out = [column for column in columns if _says_little(column, items)]
        columns = [column for column in columns if column not in left_out]
    lines = _lines(items, columns)
    widths = _fitted(_widths(lines))
    told = [
        _GAP.join(_cut(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    if named := [_clean(column) for column in left_out if any(isinstance(item.get(column), Mapping) for item in items)]:
        told.append(f"({', '.join(named)}: in the JSON)")
    return "\n".join(line.rstrip() for line in told)


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
    """The widest columns are narrowed, each as little as will do, until the line fits."""
    fitted = list(widths)
    over = sum(fitted) + len(_GAP) * (len(fitted) - 1) - WIDTH
    while over > 0 and max(fitted) > _TEXT_MIN:
        at = fitted.index(max(fitted))
        next_widest = max([width for width in fitted if width < fitted[at]], default=_TEXT_MIN)
        less = min(over, fitted[at] - max(next_widest, _TEXT_MIN)) or 1
        fitted[at] -= less
        over -= less
    return fitted


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


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
