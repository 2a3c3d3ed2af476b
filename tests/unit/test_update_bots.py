"""Dependabot's configuration: accepted by its published schema, and every folder that it names has what it would update."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mcpserver.launch.development import LOCKS, ROOT

pytestmark = pytest.mark.edge(24)
FILE = ROOT / ".github" / "dependabot.yml"
UPDATES = yaml.safe_load(FILE.read_text())["updates"]
READS = {
    "pip": ("requirements.txt",),
    "npm": ("package.json", "package-lock.json"),
    "docker": ("Containerfile",),
    "docker-compose": ("compose.yaml",),
}


def folders(update: dict[str, object]) -> list[str]:
    named = update.get("directories") or [update["directory"]]
    assert isinstance(named, list)
    return [str(one).lstrip("/") for one in named]


def test_the_published_schema_accepts_it_and_would_find_a_misspelt_word(tmp_path: Path) -> None:
    program = shutil.which("check-jsonschema") or str(Path(sys.executable).with_name("check-jsonschema"))
    misspelt = tmp_path / "dependabot.yml"
    misspelt.write_text(FILE.read_text().replace("interval", "intervall"))
    ends = [
        subprocess.run([program, "--builtin-schema", "vendor.dependabot", str(path)], capture_output=True, check=False)
        for path in (FILE, misspelt)
    ]
    assert [end.returncode for end in ends] == [0, 1], ends


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: str(update["package-ecosystem"]))
def test_there_is_something_to_update_in_every_folder(update: dict[str, object]) -> None:
    for folder in folders(update):
        for name in READS[str(update["package-ecosystem"])]:
            assert (ROOT / folder / name).is_file(), (folder, name)


def test_every_lock_and_every_image_is_looked_after() -> None:
    named = {(str(one["package-ecosystem"]), folder) for one in UPDATES for folder in folders(one)}
    assert named >= {("pip", lock.relative_to(ROOT).parent.as_posix().removeprefix(".")) for lock in LOCKS}
    packages = [path.parent for path in ROOT.glob("tests/**/package-lock.json") if "node_modules" not in path.parts]
    assert named >= {("npm", path.relative_to(ROOT).as_posix()) for path in packages}
    assert {"docker", "docker-compose"} <= {system for system, _ in named}
