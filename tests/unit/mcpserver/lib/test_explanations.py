"""Every error code that the code can utter is explained, and nothing else is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mcpserver.lib import error_page
from mcpserver.lib.errors import Exit
from mcpserver.lib.explanations import EXPLAINED
from mcpserver.lib.refusals import REFUSALS
from mcpserver.protocol import codes
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


def exits() -> Iterator[tuple[str, int, str]]:
    """Code, the exit code that an error says by name, and where."""
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and node.args and _name(node.func) == "GatewayError"):
                    continue
                said = next((one.value for one in node.keywords if one.arg == "exit_code"), None)
                if said is not None and not isinstance(said, ast.Attribute):
                    continue  # decided elsewhere
                number = int(Exit[said.attr]) if isinstance(said, ast.Attribute) else int(Exit.FAILED)
                yield from ((code, number, f"{path}:{node.lineno}") for code in _texts(node.args[0]))


def test_the_exit_codes_are_those_of_the_code() -> None:
    found = list(exits())
    assert len(found) > 80
    assert [(code, number, where) for code, number, where in found if number not in EXPLAINED[code].exits] == []
    named = {(code, number) for code, number, _ in found}
    several = {code: set(one.exits) for code, one in EXPLAINED.items() if len(one.exits) > 1}
    assert {code: numbers for code, numbers in several.items() if {n for c, n in named if c == code} != numbers} == {}


def test_the_page_is_written_from_the_lists() -> None:
    assert error_page.PATH.read_text() == error_page.page(), "write it: python -m mcpserver.lib.error_page"
    assert "(mcpserver/lib/ERRORS.md)" in (ROOT / "README.md").read_text()


def test_every_number_that_clients_may_get_is_explained() -> None:
    numbers = {str(value) for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    assert {code for code in REFUSALS if code.startswith("-")} == numbers
    statuses = {str(number) for one in REFUSALS.values() for number in one.statuses if number >= 400}
    assert statuses <= set(REFUSALS)
    for code, status in codes.MODERN_STATUS.items():
        assert status in REFUSALS[str(code)].statuses
    answered = set(re.findall(r"\b(?:refused|Answer|Full|Refusal|_broken_off)\((?:[a-z_]+, )?([45]\d\d)\b", source()))
    assert answered == {code for code in REFUSALS if not code.startswith("-")}


def source() -> str:
    return "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))


# Made from parts, or by a subclass.
COMPUTED = {"busy"}


def test_an_explanation_says_what_it_is_and_what_to_do() -> None:
    for code, one in EXPLAINED.items():
        assert one.means.endswith("."), code
        assert one.do.endswith("."), code
