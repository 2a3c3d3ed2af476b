"""Who is calling, as a value that a request carries to its end."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["tool", "prompt", "resource"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified key. `fingerprint` is equal for keys that see the same catalogue: joined lists are cached by it."""

    key_id: str
    name: str
    fingerprint: str = ""

    def allows(self, kind: Kind, remote: str, name: str) -> bool:
        """The one predicate that filters calls, lists, reads, templates, completion and subscriptions alike."""
        return True
