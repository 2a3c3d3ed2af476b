"""No text of a remote or a client is ever run as a regular expression: a `pattern` of a schema is data that is relayed."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}


def written_here(node: ast.expr) -> bool:
    """A literal, or one made of literals and of names in capitals, which are constants of ours."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id):
            return id.lstrip("_").isupper()
        case ast.JoinedStr(values):
            return all(written_here(value) for value in values)
        case ast.FormattedValue(value):
            return written_here(value)
        case ast.BinOp(left, _, right):
            return written_here(left) and written_here(right)
        case ast.Call(ast.Attribute(ast.Constant(), "join"), [argument]):
            return written_here(argument)
        case _:
            return False


def patterns(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(ast.Attribute(ast.Name("re"), name)) if name in RUN:
                yield node


def test_every_regular_expression_on_the_mcp_path_was_written_here():
    files = [path for app in ("gateway", "remotes", "mcpserver/protocol") for path in (ROOT / app).rglob("*.py")]
    found = [(path, call) for path in files for call in patterns(path)]
    assert len(found) > 20
    foreign = [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in found if not written_here(call.args[0])]
    assert foreign == []
