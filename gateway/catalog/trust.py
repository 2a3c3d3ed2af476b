"""What an operator should know of a remote's words: tools that are not as approved, characters that hid, texts that were cut."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gateway.catalog.catalog import Catalog
from remotes.config.snapshot import RemoteSpec
from remotes.pinning import Standing

_NAMED_MAX = 5


def facts(catalog: Catalog, spec: RemoteSpec) -> dict[str, Any]:
    """For the status of one remote."""
    counted = Counter(catalog.standing(spec.name).values())
    kept = catalog.kept(spec.name)
    notes = kept.listing.notes if kept is not None and kept.listing is not None else None
    return {
        "pins": {
            "mode": spec.pin,
            **{str(how): counted[how] for how in Standing},
            "withheld": len(catalog.withheld(spec.name)),
        },
        "descriptions": {
            "hidden_characters": notes.stripped if notes else 0,
            "hidden_characters_left": notes.left if notes else 0,
            "cut": notes.cut if notes else 0,
        },
    }


def doubts(catalog: Catalog, name: str) -> Iterator[str]:
    """In sentences."""
    standing, withheld = catalog.standing(name), catalog.withheld(name)
    look = f"look with: mcp tools diff --mcp {name}"
    changed = [tool for tool, how in standing.items() if how is Standing.CHANGED]
    if changed:
        state = ", withheld" if changed[0] in withheld else ""
        yield f"{name}: {_named(changed)} changed since approved{state}; {look}"
    new = [tool for tool, how in withheld.items() if how is Standing.NEW]
    if new:
        yield f"{name}: {_named(new)} new and not approved, withheld; {look}"
    kept = catalog.kept(name)
    notes = kept.listing.notes if kept is not None and kept.listing is not None else None
    if notes is not None and notes.stripped:
        yield f"{name}: {notes.stripped} hidden characters were taken out of its descriptions"
    if notes is not None and notes.left:
        yield f"{name}: {notes.left} hidden characters in names and values of its schemas, which are left as they are"
    if notes is not None and notes.cut:
        yield f"{name}: {notes.cut} descriptions longer than 8 KiB were cut"


def _named(tools: list[str]) -> str:
    """Control and bidirectional characters escaped: a remote chose the names."""
    more = f" and {len(tools) - _NAMED_MAX} more" if len(tools) > _NAMED_MAX else ""
    return ", ".join(ascii(tool[:60]) for tool in tools[:_NAMED_MAX]) + more
