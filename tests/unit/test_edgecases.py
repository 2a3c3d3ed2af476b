"""The list of edge cases and the tests say the same. Tests are read, not imported: a module that fails to import counts too."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.edgecases import EDGE_CASES

TESTS = Path(__file__).resolve().parents[1]


def test_the_guide_has_24_cases_each_listed_once():
    assert [case.number for case in EDGE_CASES] == list(range(1, 25))
    assert len({case.title for case in EDGE_CASES}) == 24


def test_no_test_names_an_unknown_case():
    known = {case.number for case in EDGE_CASES}
    assert [(where, number) for where, number in marks_in(TESTS) if number not in known] == []


def test_every_case_that_is_not_pending_has_a_test():
    proven = {number for _, number in marks_in(TESTS)}
    assert [case.title for case in EDGE_CASES if not case.pending and case.number not in proven] == []


def test_marks_are_found_wherever_they_can_stand(tmp_path):
    (tmp_path / "test_all_forms.py").write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.edge(1)]\n"
        "@pytest.mark.edge(2)\n"
        "def test_plain(): ...\n"
        "@pytest.mark.edge(3)\n"
        "class TestMany:\n"
        "    @pytest.mark.edge(number=4)\n"
        "    async def test_inside(self): ...\n"
        "CASES = [pytest.param(1, marks=pytest.mark.edge(5))]\n"
        "@pytest.mark.edge(unknown)\n"
        "def test_not_a_number(): ...\n"
    )
    assert [number for _, number in marks_in(tmp_path)] == [1, 2, 3, 4, 5, None]


def marks_in(folder: Path) -> Iterator[tuple[str, int | None]]:
    """Every `pytest.mark.edge(N)` as (where, N); None for what is not a plain number."""
    for path in sorted(folder.rglob("test_*.py")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") or part == "node_modules" for part in inside.parts):
            continue
        tree = ast.parse(path.read_text(), str(path))
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_mark(node))
        for call in sorted(calls, key=lambda call: call.lineno):
            yield f"{inside}:{call.lineno}", number_of(call)


def is_mark(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "pytest.mark.edge"


def number_of(call: ast.Call) -> int | None:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    match values:
        case [ast.Constant(value=int(number))]:
            return number
        case _:
            return None
