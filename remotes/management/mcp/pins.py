"""`mcp tools diff` and `approve`: what remotes changed in their tools, and the operator's word on it. Needs no gateway."""

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib.command import Subcommand, actor
from mcpserver.lib.errors import GatewayError
from mcpserver.protocol import naming
from remotes import difference, pinning, pins, selectors
from remotes.config.snapshot import Snapshot
from remotes.management.mcp.sources import configured, named, not_found
from remotes.models import ToolPin
from remotes.pinning import Standing

_SHOWN_MAX = 50


class ToolsDiff(Subcommand):
    help = "Show the tools that are not as they were approved: what each said then and says now."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("name", metavar="NAME", nargs="?", help="one tool, as clients see it")
        which.add_argument("--mcp", metavar="NAME", help="only those of this remote")

    def run(self, *, name: str | None, mcp: str | None) -> dict[str, Any]:
        snapshot = configured()
        rows = _chosen(snapshot, name, mcp)
        if name is not None and not rows:
            self.say(f"{name} is as it was approved")
        if len(rows) > _SHOWN_MAX:
            self.say(f"these are the first {_SHOWN_MAX} of {len(rows)}")
        return {"tools": [_compared(row, snapshot) for row in rows[:_SHOWN_MAX]], "total": len(rows)}


class ToolsApprove(Subcommand):
    help = "Take tools for approved as they are now; the running gateway lets them through within two seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("name", metavar="NAME", nargs="?", help="one tool, as clients see it")
        which.add_argument("--mcp", metavar="NAME", help="all of this remote")
        which.add_argument("--all", action="store_true", help="all of every remote")
        parser.add_argument(
            "--sha256", metavar="HEX", default="", help="only as it was shown: the beginning of diff's sha256.seen"
        )

    def run(self, *, name: str | None, mcp: str | None, all: bool, sha256: str) -> dict[str, Any]:
        snapshot = configured()
        by_remote: dict[str, list[str]] = {}
        for row in _chosen(snapshot, name, mcp):
            by_remote.setdefault(row.remote, []).append(row.tool)
        approved = [
            one | {"name": _exposed(snapshot, remote, one["upstream_name"])}
            for remote, tools in by_remote.items()
            for one in pins.approve(remote, tools, actor=actor(), sha256=sha256)
        ]
        if not approved:
            self.say("nothing waits for approval: see what is pinned with mcp tools list --all")
        return {"approved": approved}


def _chosen(snapshot: Snapshot, name: str | None, mcp: str | None) -> list[ToolPin]:
    """The pins that wait for a decision, of one tool, one remote, or all of the configuration."""
    if mcp is not None:
        named(mcp, snapshot)
    waiting = [row for row in pins.pending(mcp) if row.remote in snapshot.remotes]
    if name is None:
        return waiting
    found = [row for row in waiting if _exposed(snapshot, row.remote, row.tool) == name]
    if not found:
        _refuse_unknown(snapshot, name)
    return found


def _refuse_unknown(snapshot: Snapshot, name: str) -> None:
    known = [
        _exposed(snapshot, remote, tool)
        for remote, tools in selectors.tool_pins().items()
        if remote in snapshot.remotes
        for tool in tools
    ]
    if name not in known:
        raise _unknown(name, known)


def _unknown(name: str, known: list[str]) -> GatewayError:
    return not_found("pinned tool", name, known, "see them with: mcp tools list")


def _exposed(snapshot: Snapshot, remote: str, tool: str) -> str:
    spec = snapshot.remotes[remote]
    return naming.exposed(remote, spec.aliases.get(tool, tool), snapshot.gateway.max_tool_name)


def _compared(row: ToolPin, snapshot: Snapshot) -> Mapping[str, Any]:
    old = pinning.unpacked(row.definition)
    new = pinning.unpacked(row.seen_definition)
    change = _change(row)
    return {
        "name": _exposed(snapshot, row.remote, row.tool),
        "mcp": row.remote,
        "upstream_name": row.tool,
        "change": str(change),
        "withheld": snapshot.remotes[row.remote].pin == "hold" and change is not Standing.REMOVED,
        "approved_at": row.approved_at,
        "approved_by": row.approved_by or None,
        "seen_at": row.seen_at,
        "sha256": {"approved": row.sha256 or None, "seen": row.seen_sha256 or None},
        "fields": difference.fields(old, new),
        "diff": difference.lines(old, new),
    }


def _change(row: ToolPin) -> Standing:
    if row.seen_sha256 == pinning.GONE:
        return Standing.REMOVED
    return Standing.NEW if row.sha256 == pinning.UNAPPROVED else Standing.CHANGED
