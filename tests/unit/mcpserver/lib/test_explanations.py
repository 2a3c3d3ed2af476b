"""Every error code that the code can utter is explained, and nothing else is."""

import ast
from collections.abc import Iterator
from pathlib import Path

from mcpserver.lib.explanations import EXPLAINED
from remotes.upstream.outcome import Fault

ROOT = Path(__file__).resolve().parents[4]
APPS = ("gateway", "keys", "remotes", "mcpserver", "monitoring")


def uttered() -> dict[str, str]:
    """Code → where: the first argument of an error, and the `error` of a document."""
    found: dict[str, str] = {}
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            for code in _codes(ast.parse(path.read_text())):
                found.setdefault(code, str(path.relative_to(ROOT)))
    return found


def _codes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _name(node.func) == "GatewayError":
            yield from _texts(node.args[0])
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "error":
                    yield from _texts(value)


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def test_every_code_is_explained_and_every_explanation_has_its_code() -> None:
    said = set(uttered()) | {str(fault) for fault in Fault}
    assert said - set(EXPLAINED) == set()
    assert set(EXPLAINED) - said - COMPUTED == set()


# Made from parts, or by a subclass.
COMPUTED = {"busy"}


def test_an_explanation_says_what_it_is_and_what_to_do() -> None:
    for code, one in EXPLAINED.items():
        assert one.means.endswith("."), code
        assert one.do.endswith("."), code
