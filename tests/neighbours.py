"""Files whose tests share a started gateway run in one process of xdist, so that it is started once and not in each of them.

Nothing depends on it but the time a run takes: a file that is not recognised runs by itself, and starts what it needs.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]
# The fixtures of tests/component/conftest.py, which last as long as the process, by what they start.
SHARED = {"gateway": ("gateway", "tight"), "asking": ("gw", "hasty")}


class Neighbours(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return shared(file) or file


@cache
def shared(file: str) -> str:
    """What a file's tests share with those of others; "" for nothing."""
    text = (ROOT / file).read_text()
    for ground, fixtures in SHARED.items():
        if any(f"{name}: Gateway" in text and f"def {name}(" not in text for name in fixtures):
            return ground
    return ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return Neighbours(config, log) if config.getvalue("dist") == "loadfile" else None
