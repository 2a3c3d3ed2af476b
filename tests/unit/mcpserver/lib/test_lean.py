import importlib
import sys

import pytest

from mcpserver.lib import lean


@pytest.fixture
def unloaded() -> str:
    """Something that is installed and not loaded."""
    sys.modules.pop("nturl2path", None)
    return "nturl2path"


def test_what_is_hidden_is_not_found_and_is_there_again_afterwards(unloaded: str) -> None:
    with lean.without(unloaded), pytest.raises(ImportError):
        importlib.import_module(unloaded)
    assert importlib.import_module(unloaded).__name__ == unloaded


def test_what_is_loaded_already_stays_and_others_are_found_as_ever(unloaded: str) -> None:
    with lean.without("json"):
        assert importlib.import_module("json") is sys.modules["json"]
        assert importlib.import_module(unloaded).__name__ == unloaded


def test_a_failure_inside_leaves_nothing_behind() -> None:
    before = list(sys.meta_path)
    with pytest.raises(ZeroDivisionError), lean.without("nothing"):
        raise ZeroDivisionError
    assert sys.meta_path == before
