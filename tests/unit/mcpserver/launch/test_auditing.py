import json
from typing import Any

import pytest

from mcpserver.launch.auditing import CLEAN, NOT_AUDITED, VULNERABLE, verdict

pytestmark = pytest.mark.edge(24)
WELL = {"name": "a", "version": "1", "vulns": []}
ILL = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "c", "skip_reason": "Could not connect"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([WELL], CLEAN, "clean: none of 1 packages has a known vulnerability"),
        ([WELL, ILL], VULNERABLE, "b 2: CVE-1, fixed in 2.1"),
        ([ILL, SKIPPED], VULNERABLE, "b 2: CVE-1, fixed in 2.1\nand 1 packages could not be audited"),
        ([WELL, SKIPPED], NOT_AUDITED, "could not audit 1 of 2 packages: c"),
        ([SKIPPED] * 7, NOT_AUDITED, "could not audit 7 of 7 packages: c, c, c, c, c …"),
        ([], NOT_AUDITED, "could not audit 0 of 0 packages: "),
    ],
)
def test_what_was_skipped_is_not_clean(packages: list[Any], code: int, words: str) -> None:
    found = verdict(json.dumps({"dependencies": packages, "fixes": []}))
    assert (found.exit_code, "\n".join(found.lines)) == (code, words)


@pytest.mark.parametrize(
    "report", ["", "No known vulnerabilities found", "[]", "null", '{"dependencies": [{"skip_reason": ""}]}']
)
def test_no_report_is_not_clean_either(report: str) -> None:
    assert verdict(report).exit_code == NOT_AUDITED
