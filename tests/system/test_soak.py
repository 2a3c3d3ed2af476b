"""`./start soak`, scaled down: the whole of it runs for minutes, and is for a release."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.gateway import ROOT
from tests.system.tools import require

SCALED_DOWN = ["20", "--streams", "30", "--calls", "30", "--vanished", "60"]


@pytest.mark.edge(2)
@pytest.mark.edge(10)
def test_a_crowd_that_calls_listens_and_vanishes_leaves_memory_and_descriptors_flat(tmp_path: Path) -> None:
    require("ip")
    written = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *SCALED_DOWN, "--json", str(written)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(written.read_text())
    found = {figure["name"]: figure["value"] for figure in document["figures"]}
    assert (found["streams open, median"], found["calls failed"], found["streams lost"]) >= (40, 0, 0)
    assert sum(count for name, count in found.items() if name.startswith("streams vanished")) == 60
    assert found["calls answered"] > 200
