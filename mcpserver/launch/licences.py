"""What the locked packages are licensed under, and whether that is a licence we ship with: `./start licences` writes the list.

Reads what the packages say of themselves, once they are installed. A licence that is not among the allowed ones, or that nobody
can make out, is an error, not a line in a table. Standard library only.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import PackageMetadata
from pathlib import Path

# Permissive ones, and two that ask for something only of who changes the package itself (LGPL, MPL): none is changed here.
ALLOWED = frozenset(
    {
        "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "LGPL-3.0-only", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "TCL",
        "Unlicense", "ZPL-2.1",
    }
)  # fmt: skip
# How they are called by who does not use SPDX's words.
_CALLED = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
}
# Those that say nothing in their metadata, or too little; read in the licence file that they bring.
_KNOWN = {"asgiref": "BSD-3-Clause", "automat": "MIT", "prompt-toolkit": "BSD-3-Clause", "sqlparse": "BSD-3-Clause"}
_PINNED = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^ ;]+)([^\\\n]*)\\$")
_HEAD = """# Licences of what is installed

Written by `./start licences` from what the packages say of themselves; `requirements.txt` and, with traces,
`deploy/otel/requirements.txt` lock them. What is for other systems than Linux is not in it. Allowed are
{allowed}.

| package | licence | |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    licence: str
    """In SPDX's words; what the package says where it is none of them."""
    is_extra: bool = False

    @property
    def is_allowed(self) -> bool:
        """One of several to choose from (OR) is enough; of several parts (AND) all must be."""
        return any(
            all(part.strip(" ()") in ALLOWED for part in choice.split(" AND ")) for choice in self.licence.split(" OR ")
        )


def spdx(about: PackageMetadata) -> str:
    """What a package's metadata says: the field that is made for it, else classifiers, else free words."""
    if "License-Expression" in about:
        return about["License-Expression"]
    told = [one.rpartition(" :: ")[2] for one in about.get_all("Classifier") or () if one.startswith("License")]
    if not told and "License" in about:
        told = about["License"].strip().splitlines()[:1]
    return " OR ".join(sorted({_CALLED.get(one.lower(), one) for one in told})) or "unknown"


def pinned(lock: str) -> dict[str, dict[str, str]]:
    """Name to each version that is locked, with the marker that says where."""
    found: dict[str, dict[str, str]] = {}
    for name, version, marker in _PINNED.findall(lock):
        found.setdefault(name, {})[version] = marker.strip()
    return found


def packages(core: str, whole: str) -> list[Package]:
    """What of the lock `whole` is installed here; what is not in the lock `core` is an extra.

    Raises PackageNotFoundError or ValueError where something else is installed than what is locked.
    """
    in_core, found = pinned(core), []
    for name, versions in sorted(pinned(whole).items()):
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            if all(versions.values()):  # for other systems, or other Pythons
                continue
            raise
        if about["Version"] not in versions:
            raise ValueError(f"{name} {about['Version']} is installed, and {' or '.join(versions)} is locked")
        found.append(Package(name, _KNOWN.get(name) or spdx(about), name not in in_core))
    return found


def page(found: Iterable[Package]) -> str:
    lines = [f"| {one.name} | {one.licence} | {'traces' * one.is_extra} |" for one in found]
    return _HEAD.format(allowed=", ".join(sorted(ALLOWED))) + "\n".join(lines) + "\n"


def main(root: Path) -> int:
    try:
        found = packages((root / "requirements.txt").read_text(), (root / "deploy/otel/requirements.txt").read_text())
    except (ValueError, metadata.PackageNotFoundError) as error:
        print(f"something else is installed than what is locked: {error}", file=sys.stderr)
        return 1
    (root / "deploy" / "LICENCES.md").write_text(page(found))
    refused = [one for one in found if not one.is_allowed]
    for one in refused:
        print(f"{one.name}: {one.licence} is not an allowed licence", file=sys.stderr)
    print(f"{len(found)} packages: deploy/LICENCES.md")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(__file__).resolve().parents[2]))
