"""Plain values as YAML to be put into somebody's file: the way a person would write them, and read alike by everyone.

Our reader takes YAML 1.2, most other programs 1.1, some only JSON. So text is left unquoted only where all of them agree that
it is text: `no`, `22:22`, `1e3` and `~` are quoted. Where the neighbours are JSON, so is what is added.

Pure.
"""

import json
import re
from collections.abc import Mapping, Sequence

# A list longer than this goes below its key, an item to a line.
LINE_MAX = 100

# Begins like a word, a path or a variable and ends with no space; see `_is_plain`.
_PLAIN = re.compile(r"[A-Za-z_/$](?:[ -~]*[!-~])?")
_PLAIN_IN_FLOW = re.compile(r"[A-Za-z_/][A-Za-z0-9_./=+-]*")
_STRUCTURE = re.compile(r":(?: |$)| #")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
# What JSON lets stand and YAML folds, forbids or strips.
_TO_ESCAPE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def scalar(value: object, *, like: str = "", in_flow: bool = False) -> str:
    """Text, number, switch or nothing. `like`: the quote of what stood there before, kept where it can be."""
    if not isinstance(value, str):
        return json.dumps(value)
    if like == '"' or not _is_printable(value):
        return _double(value)
    if like == "'":
        return "'" + value.replace("'", "''") + "'"
    return value if _is_plain(value, in_flow=in_flow) else _double(value)


def flow(value: object, *, as_json: bool = False) -> str:
    """Any value on one line."""
    like = '"' if as_json else ""
    match value:
        case Mapping():
            pairs = (
                f"{scalar(key, like=like, in_flow=True)}: {flow(one, as_json=as_json)}" for key, one in value.items()
            )
            return "{" + ", ".join(pairs) + "}"
        case list() | tuple():
            return "[" + ", ".join(flow(one, as_json=as_json) for one in value) + "]"
        case _:
            return scalar(value, like=like, in_flow=True)


def indented_json(value: object, *, step: str, margin: str, line_end: str) -> str:
    """JSON over several lines, all but the first after `margin`."""
    lines = json.dumps(value, indent=step or None, ensure_ascii=False).split("\n")
    return (line_end + margin).join(map(_escaped_behind_margin, lines))


def entry(key: str, value: object, *, margin: str, step: str) -> list[str]:
    """`key: value` in block style, as the lines of a mapping whose keys stand after `margin`."""
    head = f"{margin}{scalar(key)}:"
    below = lines_below(value, margin=margin, step=step)
    return [head, *below] if below else [f"{head} {flow_in_block(value)}"]


def lines_below(value: object, *, margin: str, step: str) -> list[str]:
    """What goes below the key that stands after `margin`; nothing when the value fits behind it."""
    if isinstance(value, Mapping) and value:
        return [line for key, one in value.items() for line in entry(key, one, margin=margin + step, step=step)]
    if isinstance(value, Sequence) and not isinstance(value, str) and len(flow(value)) > LINE_MAX:
        return [f"{margin}{step}- {flow_in_block(one)}" for one in value]
    return []


def flow_in_block(value: object, *, like: str = "") -> str:
    """A value behind its key or dash in block style."""
    return flow(value) if isinstance(value, (Mapping, list, tuple)) else scalar(value, like=like)


def _escaped_behind_margin(line: str) -> str:
    inner = line.lstrip(" \t")
    return line[: len(line) - len(inner)] + _TO_ESCAPE.sub(_escaped, inner)


def _is_plain(text: str, *, in_flow: bool) -> bool:
    pattern = _PLAIN_IN_FLOW if in_flow else _PLAIN
    return bool(pattern.fullmatch(text)) and not _STRUCTURE.search(text) and text.lower() not in _WORDS


def _is_printable(text: str) -> bool:
    return not _TO_ESCAPE.search(text)


def _double(text: str) -> str:
    return _TO_ESCAPE.sub(_escaped, json.dumps(text, ensure_ascii=False))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
