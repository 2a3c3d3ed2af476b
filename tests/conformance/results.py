"""What one run of the conformance tool found: read from the checks.json of each scenario, counted as the tool counts.

A scenario passes when none of its checks is a FAILURE; a WARNING (a SHOULD that is not kept) is told, and does not count.
Which scenarios a revision requires is read from the tool's own frozen sets.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

NODE = Path(__file__).resolve().parent / "node"
TOOL = NODE / "node_modules" / "@modelcontextprotocol" / "conformance"
STAMPED = re.compile(r"^(?:server-)?(?P<scenario>.+?)-\d{4}-\d{2}-\d{2}T[\d-]+Z$")
EXCERPT = 4000


@dataclass(frozen=True)
class Required:
    """What a revision asks of a server, or of a client."""

    scored: tuple[str, ...]
    unscored: tuple[str, ...]

    def without(self, prefix: str) -> Required:
        scored, unscored = (
            tuple(name for name in names if not name.startswith(prefix)) for names in (self.scored, self.unscored)
        )
        return Required(scored, unscored)

    @classmethod
    def by(cls, revision: str, leg: str = "server") -> Required:
        listed = yaml.safe_load((TOOL / "requirements" / f"{revision}.yaml").read_text())
        unscored = (entry["scenario"] for entry in listed["not_scored"] if entry["leg"] == leg)
        return cls(tuple(listed[leg]), tuple(unscored))


@dataclass
class Scenario:
    name: str
    failures: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    checks: int = 0

    @property
    def passed(self) -> bool:
        return self.checks > 0 and not self.failures

    def document(self) -> dict[str, Any]:
        return {"passed": self.passed, "checks": self.checks, "failures": self.failures, "warnings": self.warnings}


@dataclass
class Results:
    required: Required
    scenarios: dict[str, Scenario]

    @classmethod
    def read(cls, folder: Path, required: Required) -> Results:
        """A scenario without a file did not run, which is a failure."""
        scenarios = {name: Scenario(name) for name in (*required.scored, *required.unscored)}
        for path in folder.rglob("checks.json"):
            stamped = STAMPED.match(str(path.parent.relative_to(folder)))
            scenario = scenarios.get(stamped["scenario"]) if stamped else None
            if scenario is not None:
                _take(scenario, json.loads(path.read_text()))
        return cls(required, scenarios)

    def passed(self, names: tuple[str, ...]) -> int:
        return sum(self.scenarios[name].passed for name in names)

    @property
    def failed(self) -> list[str]:
        return [name for name, scenario in self.scenarios.items() if not scenario.passed]

    @property
    def warned(self) -> list[str]:
        return [name for name, scenario in self.scenarios.items() if scenario.warnings]

    def document(self) -> dict[str, Any]:
        scored, unscored = self.required.scored, self.required.unscored
        return {
            "scored": [self.passed(scored), len(scored)],
            "unscored": [self.passed(unscored), len(unscored)],
            "failed": self.failed,
            "warned": self.warned,
            "scenarios": {name: scenario.document() for name, scenario in self.scenarios.items()},
        }


def _take(scenario: Scenario, checks: list[dict[str, Any]]) -> None:
    for check in checks:
        scenario.checks += 1
        if check["status"] in ("FAILURE", "WARNING"):
            kept = scenario.failures if check["status"] == "FAILURE" else scenario.warnings
            details = json.dumps(check.get("details"), ensure_ascii=False)[:EXCERPT]
            kept.append({"check": check["id"], "said": check.get("errorMessage", ""), "details": details})
