"""Every bad file of the corpus gets its whole list of errors, with places and hints, and raises nothing.

A file that once went wrong becomes a new pair here: NAME.yaml, and NAME.json with what must be said about it. To write the
second one anew, look at it and keep it: `python -m tests.unit.remotes.config.test_bad_files NAME`.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from remotes.config import load

CORPUS = Path(__file__).parent / "bad"
NAMES = sorted(path.stem for path in CORPUS.glob("*.yaml"))


def errors_of(name):
    text = (CORPUS / f"{name}.yaml").read_bytes().decode()
    snapshot, problems = load.parse(text, {}, Path("/srv/gateway"))
    assert snapshot is None
    return [asdict(problem) for problem in problems]


def test_the_corpus_is_not_empty():
    assert len(NAMES) >= 25


@pytest.mark.edge(8)
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_is_answered_with_exactly_its_errors(name):
    assert errors_of(name) == json.loads((CORPUS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_error_points_into_the_file(name):
    lines = (CORPUS / f"{name}.yaml").read_text().split("\n")
    for error in errors_of(name):
        assert 1 <= error["line"] <= len(lines)
        assert error["column"] >= 1


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        found = json.dumps(errors_of(wanted), indent=2, ensure_ascii=False)
        (CORPUS / f"{wanted}.json").write_text(found + "\n")
