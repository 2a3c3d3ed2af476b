"""The one error that leaves a service: a code for machines, a sentence for people, and what may be done next.

Raise it where the cause is known; `lib.command` and the endpoint translate it once, where it leaves.
"""

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of every command; documented in the README, only ever added to."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    KEY = 4
    NOT_FOUND = 5
    CONFLICT = 6
    NOT_RUNNING = 7
    INTERRUPTED = 130


class GatewayError(Exception):
    """`code` is stable and short ("not_found"); `facts` are extra JSON fields of the error document."""

    def __init__(self, code: str, message: str, *, hint: str = "", exit_code: Exit = Exit.FAILED, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.facts = facts

    def document(self) -> dict[str, Any]:
        """The JSON document a command prints for this error."""
        document: dict[str, Any] = {"ok": False, "error": self.code, "message": self.message}
        if self.hint:
            document["hint"] = self.hint
        return document | self.facts
