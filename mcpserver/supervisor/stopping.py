"""The end of a supervisor: why it ends, who left by itself and who had to be killed, and what everybody is told of it."""

from dataclasses import dataclass, field
from typing import Any

from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.supervisor.children import Child
from mcpserver.supervisor.door import Reply


@dataclass
class Stopping:
    """`error`: why nothing could be started; whoever waits for the start is told."""

    began_at: float
    error: dict[str, Any] | None = None
    exit_code: int = 0
    replies: list[Reply] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    def left(self, child: Child) -> None:
        (self.killed if child.was_killed else self.drained).append(child.spec.name)

    def document(self, now: float) -> dict[str, Any]:
        """What `stop` prints."""
        took_s = round(now - self.began_at, 3)
        return {"ok": True, "drained": self.drained, "killed": self.killed, "took_s": took_s}

    def outcome(self) -> int:
        """The exit code; raises GatewayError with the reason where there is one."""
        if self.error is None:
            return self.exit_code or (Exit.FAILED if self.killed else Exit.DONE)
        known = {int(code) for code in Exit}
        exit_code = Exit(self.exit_code) if self.exit_code in known else Exit.FAILED
        words = ("ok", "error", "message", "hint", "schema")
        raise GatewayError(
            self.error["error"],
            self.error["message"],
            hint=self.error.get("hint", ""),
            exit_code=exit_code or Exit.FAILED,
            **{name: value for name, value in self.error.items() if name not in words},
        )
