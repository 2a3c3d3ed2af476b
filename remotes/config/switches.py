"""Remotes and their tools switched on and off in the values of a configuration, with whichever of the known fields the entry
has already: an entry pasted from another program keeps its own words.

Pure: the values are changed in place.
"""

from typing import Any


def switch(entry: dict[str, Any], *, on: bool) -> None:
    """A remote. What says so already is left alone."""
    if "disabled" in entry:
        if is_on(entry) is not on or "enabled" in entry:
            entry["disabled"] = not on
        if "enabled" in entry:
            entry["enabled"] = on
    elif is_on(entry) is not on:
        entry["enabled"] = on


def is_on(entry: dict[str, Any]) -> bool:
    enabled, disabled = entry.get("enabled"), entry.get("disabled")
    return bool(_truth(enabled) if enabled is not None else not _truth(disabled))


def switch_tool(entry: dict[str, Any], tool: str, *, on: bool) -> None:
    """A tool by the remote's own name for it: out of, or into, the list of the disabled, and that of the enabled where there
    is one."""
    holder, key = _list(entry, "disabled")
    disabled = list(holder.get(key) or [])
    if on and tool in disabled:
        _put(entry, "disabled", [one for one in disabled if one != tool])
    elif not on and tool not in disabled:
        _put(entry, "disabled", [*disabled, tool])
    holder, key = _list(entry, "enabled")
    enabled = holder.get(key)
    if on and isinstance(enabled, list) and tool not in enabled:
        holder[key] = [*enabled, tool]


def _list(entry: dict[str, Any], which: str) -> tuple[dict[str, Any], str]:
    """Where the entry keeps its list: `disabled_tools`, as some programs write it, or `tools.disabled`."""
    if entry.get(f"{which}_tools") is not None:
        return entry, f"{which}_tools"
    tools = entry.get("tools")
    return (tools if isinstance(tools, dict) else {}), which


def _put(entry: dict[str, Any], which: str, names: list[str]) -> None:
    """With no empty list and no empty `tools` left behind."""
    holder, key = _list(entry, which)
    if holder is not entry:
        holder = entry.setdefault("tools", {})
    if names:
        holder[key] = names
    else:
        holder.pop(key, None)
        if holder is not entry and not holder:
            entry.pop("tools", None)


def _truth(value: object) -> bool:
    """As the schema reads a switch, `yes` and `on` of YAML 1.1 included."""
    return value.lower() in ("yes", "on", "true") if isinstance(value, str) else bool(value)
