"""Reading what the conformance tool wrote: a scenario that left nothing behind has not passed."""

import json
from pathlib import Path

from tests.conformance.results import Required, Results

REQUIRED = Required(("ping", "tools-list", "tools-call"), ("tasks", "auth/dpop"))


def wrote(folder: Path, scenario: str, *statuses: str) -> None:
    path = folder / f"{scenario}-2026-11-22T13-05-11-618Z"
    path.mkdir(parents=True)
    checks = [{"id": f"c{number}", "status": status} for number, status in enumerate(statuses)]
    (path / "checks.json").write_text(json.dumps(checks))


def test_only_a_failure_makes_a_scenario_fail(tmp_path: Path) -> None:
    wrote(tmp_path, "server-ping", "SUCCESS", "WARNING", "INFO", "SKIPPED")
    wrote(tmp_path, "server-tools-list", "SUCCESS", "FAILURE")
    wrote(tmp_path, "server-tasks", "SUCCESS")
    wrote(tmp_path, "server-of-another-set", "FAILURE")
    results = Results.read(tmp_path, REQUIRED)
    assert results.failed == ["tools-list", "tools-call", "auth/dpop"]
    assert results.warned == ["ping"]
    assert results.document()["scored"] == [1, 3]
    assert results.document()["unscored"] == [1, 2]


def test_scenarios_in_a_folder_of_their_own_are_found_too(tmp_path: Path) -> None:
    wrote(tmp_path, "auth/dpop", "SUCCESS")
    assert "auth/dpop" not in Results.read(tmp_path, REQUIRED).failed
    assert REQUIRED.without("auth/") == Required(("ping", "tools-list", "tools-call"), ("tasks",))
