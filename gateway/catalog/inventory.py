"""Every tool that is known of, and for each that clients do not see, or see under another name, the reason."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.catalog.catalog import Catalog
from gateway.catalog.joined import Joined
from gateway.catalog.listing import Entry, Hidden, Why
from gateway.catalog.pins import KnownPins
from keys.principal import Principal
from mcpserver.protocol import jsonrpc, naming
from remotes import status
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.pinning import GONE, Standing

Row = dict[str, Any]


class _Told(msgspec.Struct):
    description: str = ""


def offered(joined: Joined, catalog: Catalog, snapshot: Snapshot, principal: Principal) -> list[Row]:
    """The tools that a key sees."""
    standing = {name: catalog.standing(name) for name in snapshot.remotes}
    silent = {name: _unreachable(catalog, name) for name in snapshot.remotes}
    rows = []
    for entry in joined.entries("tools/list"):
        if not principal.allows("tool", entry.remote, entry.own, entry.exposed):
            continue
        how = standing.get(entry.remote, {}).get(entry.own)
        row = _described(entry, snapshot.remotes.get(entry.remote))
        rows.append(row | {"pin": how and str(how), "unreachable": silent.get(entry.remote)})
    return rows


def hidden(joined: Joined, catalog: Catalog, snapshot: Snapshot, pins: KnownPins) -> list[Row]:
    """The tools that no client sees: shadowed, disabled, malformed, withheld, gone, or of a remote that was not reached yet."""
    rows = [
        _described(tool, snapshot.remotes.get(tool.remote)) | {"shadowed_by": f"{by.own} of {by.remote}"}
        for tool, by in joined.shadowed
    ]
    for name, spec in snapshot.remotes.items():
        kept = catalog.kept(name)
        listing = kept.listing if kept is not None else None
        if listing is None:
            why = status.refusal(spec) or _unreachable(catalog, name) or "it was not reached yet"
            rows += (_row(name, own, spec, snapshot) | {"unreachable": why} for own in _listed_before(pins, name))
            continue
        withheld = catalog.withheld(name)
        for entry in listing.entries.get("tools/list", ()):
            if entry.own in withheld:
                rows.append(_described(entry, spec) | {"withheld": True, "pin": str(withheld[entry.own])})
        rows += (_explained(tool, spec, snapshot) for tool in listing.hidden)
        gone = (own for own, how in catalog.standing(name).items() if how is Standing.REMOVED)
        rows += (_row(name, own, spec, snapshot) | {"pin": str(Standing.REMOVED)} for own in gone)
    return rows


def _explained(tool: Hidden, spec: RemoteSpec, snapshot: Snapshot) -> Row:
    row = _row(tool.remote, tool.own, spec, snapshot)
    if tool.why is Why.DISABLED:
        return row | {"disabled": True, "disabled_by": tool.detail}
    return row | {"malformed": tool.detail}


def _listed_before(pins: KnownPins, name: str) -> Iterator[str]:
    return (own for own, pin in (pins.of(name) or {}).items() if pin.seen != GONE)


def _unreachable(catalog: Catalog, name: str) -> str | None:
    kept = catalog.kept(name)
    if kept is None or (kept.failure is None and kept.remembered_at is None):
        return None
    why = kept.failure.told if kept.failure is not None else "it was not reached yet"
    return why if kept.remembered_at is None else f"{why}; listed as of {kept.remembered_at:%Y-%m-%d %H:%M:%S} UTC"


def _described(entry: Entry, spec: RemoteSpec | None) -> Row:
    try:
        description = msgspec.json.decode(entry.raw, type=_Told).description
    except jsonrpc.UNREADABLE:
        description = ""
    return _empty(entry.exposed, entry.remote, entry.own, spec) | {"description": description}


def _row(name: str, own: str, spec: RemoteSpec, snapshot: Snapshot) -> Row:
    exposed = naming.exposed(name, spec.aliases.get(own, own), snapshot.gateway.max_tool_name) if own else ""
    return _empty(exposed, name, own, spec)


def _empty(exposed: str, remote: str, own: str, spec: RemoteSpec | None) -> Row:
    """Every column, with nothing to tell but what the names themselves say."""
    alias = spec.aliases.get(own) if spec is not None else None
    whole = naming.full(remote, alias or own)
    return {
        "name": exposed,
        "mcp": remote,
        "upstream_name": own,
        "description": "",
        "disabled": False,
        "disabled_by": None,
        "shadowed_by": None,
        "alias": alias,
        "too_long": bool(exposed) and whole != exposed,
        "full_name": whole if exposed and whole != exposed else None,
        "malformed": None,
        "pin": None,
        "withheld": False,
        "unreachable": None,
    }
