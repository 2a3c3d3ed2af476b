"""Known vulnerabilities of what is locked: pip-audit's findings, and whether it found them at all.

pip-audit ends with 0 when its source cannot be reached and every package was skipped: that is no clean bill. Standard library
only.
"""

import json
from dataclasses import dataclass

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Verdict:
    exit_code: int
    lines: tuple[str, ...]


def verdict(report: str) -> Verdict:
    """What `pip-audit --format json` printed, judged. Whatever is unclear was not audited."""
    try:
        packages = json.loads(report)["dependencies"]
        vulnerable = [
            f"{one['name']} {one['version']}: {_told(each)}" for one in packages for each in one.get("vulns") or ()
        ]
        skipped = [one["name"] for one in packages if "skip_reason" in one]
    except (ValueError, KeyError, TypeError):
        return Verdict(NOT_AUDITED, ("could not audit: pip-audit gave no report",))
    if vulnerable:
        unseen = (f"and {len(skipped)} packages could not be audited",) if skipped else ()
        return Verdict(VULNERABLE, (*vulnerable, *unseen))
    if skipped or not packages:
        named = ", ".join(skipped[:5]) + (" …" if len(skipped) > 5 else "")
        return Verdict(NOT_AUDITED, (f"could not audit {len(skipped)} of {len(packages)} packages: {named}",))
    return Verdict(CLEAN, (f"clean: none of {len(packages)} packages has a known vulnerability",))


def _told(vulnerability: dict[str, object]) -> str:
    fixed = vulnerability.get("fix_versions")
    repaired = f", fixed in {', '.join(map(str, fixed))}" if isinstance(fixed, list) and fixed else ""
    return f"{vulnerability.get('id')}{repaired}"
