"""The picture of `mcpstatus --watch` in the README: `python -m tests.picture < frame > monitoring/watch.svg`.

`frame` is one page as the terminal got it: `script -qfc "mcpstatus --watch" frame`, any page of it. Standard library only.
"""

import re
import sys
from collections.abc import Iterator
from html import escape

WIDE, HIGH, MARGIN = 8.4, 18, 14
COLOURS = {"32": "#4ec969", "33": "#e5c05c", "31": "#f2766b", "2": "#8b949e", "1": "#ffffff"}
_SHADE = re.compile(r"\x1b\[([0-9]+)m(.*?)\x1b\[0m", re.DOTALL)
_OTHER = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


def last_page(recorded: str) -> list[str]:
    """The last whole page of what a terminal got."""
    page = recorded.split("\x1b[H")[-2 if recorded.count("\x1b[H") > 1 else -1].partition("\x1b[J")[0]
    return [line.rstrip("\r").removesuffix("\x1b[K") for line in page.split("\n")]


def pieces(line: str) -> Iterator[tuple[str, str]]:
    """Text and the colour it has."""
    at = 0
    for found in _SHADE.finditer(line):
        yield _OTHER.sub("", line[at : found.start()]), ""
        yield found[2], found[1]
        at = found.end()
    yield _OTHER.sub("", line[at:]), ""


def svg(lines: list[str]) -> str:
    columns = max(sum(len(text) for text, _ in pieces(line)) for line in lines)
    width, height = columns * WIDE + 2 * MARGIN, len(lines) * HIGH + 2 * MARGIN
    rows = []
    for number, line in enumerate(lines):
        column, spans = 0, ""
        for text, colour in pieces(line):
            shade = f' fill="{COLOURS[colour]}"' if colour else ""
            spans += f'<tspan x="{MARGIN + column * WIDE:.1f}"{shade}>{escape(text)}</tspan>' if text.strip() else ""
            column += len(text)
        rows.append(f'<text y="{MARGIN + (number + 0.8) * HIGH:.1f}" xml:space="preserve">{spans}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
    style = "<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#e6edf3}</style>"
    return "\n".join([head, style, '<rect width="100%" height="100%" rx="8" fill="#0d1117"/>', *rows, "</svg>\n"])


if __name__ == "__main__":
    sys.stdout.write(svg(last_page(sys.stdin.read())))
