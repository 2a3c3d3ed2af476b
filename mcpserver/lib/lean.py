"""Loading a package without what it would load besides, only because that happens to be installed.

A worker pays for what it imports with its memory, for as long as it lives. Nothing is taken away from anybody: what is loaded
already stays, and what was hidden can be imported afterwards as ever.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Hidden(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self._names:
            raise ModuleNotFoundError(f"{fullname} is not loaded here", name=fullname)
        return None


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Imports inside find these as if they were not installed. For the start of a process, while it has one thread."""
    hidden = _Hidden(frozenset(names))
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)
