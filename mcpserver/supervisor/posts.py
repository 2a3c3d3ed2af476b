"""Places that always have a child: who holds each, who is to follow, and what an operator reads of it."""

from dataclasses import dataclass, field
from typing import Any

from mcpserver.supervisor.children import Child
from mcpserver.supervisor.plan import Record, Spec, State


@dataclass
class Post:
    """`guardian` is the sibling that accepts this post's connections while its own child cannot."""

    spec: Spec
    child: Child | None = None
    successor: Child | None = None
    guardian: Child | None = None
    record: Record = field(default_factory=Record)
    # When it was last given a new child because the old one had grown too large.
    outgrown_at: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether it has a ready child and nobody on the way."""
        return self.successor is None and self.is_accepting

    @property
    def is_accepting(self) -> bool:
        """Whether its own child takes its connections; one that drains has stopped to."""
        return self.child is not None and self.child.state is State.READY and not self.child.is_stalled

    def described(self, now: float) -> dict[str, Any]:
        child, record = self.child, self.record
        state = str(child.state) if child else str(State.WAITING)
        document: dict[str, Any] = {"state": state, "restarts": record.restarts}
        if child:
            document |= {"pid": child.pid, "uptime_s": round(now - child.started_at, 3)}
            document |= {"stalled": True} if child.is_stalled else {}
            document |= {name: fact for name, fact in child.facts.items() if name not in {"ok", "pid"}}
        elif record.next_start is not None:
            document["next_start_in_s"] = round(max(0.0, record.next_start - now), 3)
        if self.guardian is not None:
            document["served_by"] = self.guardian.spec.name
        if record.last_exit:
            document |= {"crashes_in_a_row": record.crashes_in_a_row, "last_exit": record.last_exit}
        if self.outgrown_at is not None:
            document["outgrown_ago_s"] = round(now - self.outgrown_at, 3)
        if record.last_error:
            document["last_error"] = dict(record.last_error)
        return document
