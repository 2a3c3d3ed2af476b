"""All machines of a cluster in one document: this one as its workers answer now, the others as they last said of themselves.

Pure. A machine that has not spoken for a while is not left out but said to be unreachable, with the time since: its streams and
calls count for nothing then, and what it knew of remotes is not what holds now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcpserver.lib.limits import Limits
from monitoring import health, status

# Workers speak every two seconds, and wait five when Redis was away.
UNREACHABLE_AFTER_S = 15.0

Document = dict[str, Any]

# What is the same wherever one asks: counted or judged over all machines. The rest is of the machine that is asked.
_OF_ALL = ("connections", "in_flight", "waiting", "mcps", "errors", "latency", "warnings")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine. `workers`: what each of them said, `age_s` ago at the latest; `silent`: how many of them say nothing."""

    name: str
    age_s: float
    workers: Sequence[Mapping[str, Any]]
    silent: int = 0
    is_local: bool = False
    is_supervised: bool = False

    @property
    def is_reachable(self) -> bool:
        return self.age_s <= UNREACHABLE_AFTER_S

    @property
    def address(self) -> str | None:
        return (self.workers[0].get("cluster") or {}).get("address") if self.workers else None


def elsewhere(said: Sequence[tuple[str, float, Mapping[str, Any]]], own: str | None, name_chars: int) -> list[Node]:
    """The other machines, out of what each worker said, youngest first. One that came back under another name, at the same
    address, is not missed."""
    by_name: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for instance, age_s, document in said:
        by_name.setdefault(instance[:name_chars], []).append((age_s, document))
    found = [_node(name, spoken) for name, spoken in by_name.items() if name != own]
    served = {one.address for one in found if one.is_reachable}
    return [one for one in found if one.is_reachable or one.address is None or one.address not in served]


def _node(name: str, spoken: Sequence[tuple[float, Mapping[str, Any]]]) -> Node:
    """Of a machine that is there, who says nothing has been replaced, or hangs: the others say how many there should be."""
    fresh = [document for age_s, document in spoken if age_s <= UNREACHABLE_AFTER_S]
    expected = max((int((one.get("cluster") or {}).get("of_workers") or 0) for one in fresh), default=0)
    workers = fresh or [document for _, document in spoken]
    return Node(name, spoken[0][0], workers, silent=max(0, expected - len(fresh)) if fresh else 0)


def across(here: Document | None, others: Sequence[Node]) -> Document | None:
    """What this machine's workers say, with what adds up over all machines added up; None while none of them answers."""
    reachable = [worker for node in others if node.is_reachable for worker in node.workers]
    if here is None or not reachable:
        return here
    together = status.merged([here, *reachable]) or {}
    return here | {name: together[name] for name in _OF_ALL}


def documents(nodes: Sequence[Node], limits: Limits) -> Document:
    """Each machine by its name, this one first."""
    return {node.name: _described(node, limits) for node in sorted(nodes, key=lambda one: not one.is_local)}


def warnings(nodes: Sequence[Node]) -> list[health.Warning]:
    found = [
        health.Warning("node_unreachable", f"the machine {_called(node)} was last heard of {node.age_s:.0f} s ago")
        for node in nodes
        if not node.is_reachable
    ]
    return found + [
        health.Warning(
            "silent_worker",
            f"{node.silent} of {node.silent + len(node.workers)} workers of the machine {_called(node)} say nothing",
        )
        for node in nodes
        if node.silent and not node.is_local
    ]


def _called(node: Node) -> str:
    return f"{node.name} ({node.address})" if node.address else node.name


def _described(node: Node, limits: Limits) -> Document:
    said = status.merged(node.workers) or {}
    shared = (node.workers[0].get("cluster") or {}) if node.workers else {}
    return {
        "status": _word(node, said, limits),
        "local": node.is_local,
        "reachable": node.is_reachable,
        "age_s": round(node.age_s, 1),
        "address": shared.get("address"),
        "host": shared.get("host"),
        "redis": shared.get("redis"),
        "version": said.get("version"),
        "uptime_s": round(float(said.get("uptime_s") or 0), 1),
        "draining": bool(said.get("draining")),
        "workers": len(node.workers),
        "silent_workers": node.silent,
        "connections": said.get("connections"),
        "in_flight": said.get("in_flight", 0),
        "waiting": said.get("waiting", 0),
        "errors": said.get("errors"),
        "latency": said.get("latency"),
        "process": said.get("process"),
        "config": said.get("config"),
        "mcps": status.described(said.get("mcps") or {}, {}),
    }


def _word(node: Node, said: Document, limits: Limits) -> str:
    if not node.is_reachable:
        return "unreachable"
    if not node.workers:
        return "unhealthy" if node.silent or node.is_supervised else "stopped"
    pending = tuple((said.get("config") or {}).get("pending_error") or ())
    return health.judge(
        health.Facts(
            limits=limits,
            started=True,
            draining=bool(said.get("draining")),
            authenticates=bool(said.get("authenticates", True)),
            shedding=tuple(said.get("shedding") or ()),
            remotes={name: str(one.get("status")) for name, one in (said.get("mcps") or {}).items()},
            config=health.Config(pending=pending),
            dependencies={"redis": "down"} if (node.workers[0].get("cluster") or {}).get("redis") == "down" else {},
        )
    )
