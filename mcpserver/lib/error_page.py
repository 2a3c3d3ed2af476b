"""ERRORS.md beside this file: every code on one page, written from the lists that `mcp doctor explain` reads.

`python -m mcpserver.lib.error_page` writes it anew; a test compares.
"""

from pathlib import Path

from mcpserver.lib.explanations import EXPLAINED
from mcpserver.lib.refusals import REFUSALS

PATH = Path(__file__).with_name("ERRORS.md")
_HEAD = """# Error codes

Codes never change their meaning and are only added to. `mcp doctor explain CODE` says the same as this page, which
`python -m mcpserver.lib.error_page` writes.

## Commands, status and logs

`{"ok": false, "error": CODE, "message": …, "hint": …}`, and the exit code of the command.

| code | means | do | exit |
| --- | --- | --- | --- |
"""
_TO_CLIENTS = """
## What clients are told

JSON-RPC codes, with the HTTP status that they come with (sessions, then 2026-07-28), and HTTP statuses by themselves. What a
remote refuses keeps the remote's own code.

| code | means | do | HTTP |
| --- | --- | --- | --- |
"""


def page() -> str:
    lines = [_HEAD]
    lines += [f"| `{code}` | {one.means} | {one.do} | {_list(one.exits)} |\n" for code, one in EXPLAINED.items()]
    lines += [_TO_CLIENTS]
    lines += [f"| `{code}` | {one.means} | {one.do} | {_list(one.statuses)} |\n" for code, one in REFUSALS.items()]
    return "".join(lines)


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    PATH.write_text(page())
