"""What to paste where: the gateway in the words of each client. Pure text.

The client-side name is `gw`: short, because clients put it before every tool's name and limit the sum.
"""

import json
from collections.abc import Callable, Mapping

NO_KEY = "YOUR_KEY"


def claude_code(url: str, key: str) -> str:
    # The key itself: Claude Code was seen to pass ${VAR} in a header on as it stands.
    return f'claude mcp add --transport http --scope user gw {url} --header "Authorization: Bearer {key}"'


def cursor(url: str, key: str) -> str:
    return json.dumps({"mcpServers": {"gw": _entry(url, key)}}, indent=2)


def vs_code(url: str, key: str) -> str:
    return json.dumps({"servers": {"gw": {"type": "http", **_entry(url, key)}}}, indent=2)


def curl(url: str, key: str) -> str:
    meta = '"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}'
    return (
        f"curl -s {url} -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
        "  -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' \\\n"
        "  -H 'Mcp-Method: tools/list' \\\n"
        f"""  -d '{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{{meta}}}}}}}'"""
    )


# By the word that commands take for each.
CLIENTS: Mapping[str, Callable[[str, str], str]] = {
    "claude-code": claude_code,
    "cursor": cursor,
    "vscode": vs_code,
    "curl": curl,
}


def page(url: str, key: str | None) -> str:
    """What ./start prints once all works. Without a key (it was shown once, on the first run) the snippets name the place."""
    shown = key or NO_KEY
    first = (
        f"  Key   {key}\n        shown this once and stored nowhere: keep it now"
        if key
        else "  Key   shown on the first run; for another: bin/mcpkey generate NAME"
    )
    blocks = [
        f"  URL   {url}\n{first}",
        f"Claude Code\n{_indented(claude_code(url, shown))}",
        f"Cursor (~/.cursor/mcp.json)\n{_indented(cursor(url, shown))}",
        f"VS Code (.vscode/mcp.json)\n{_indented(vs_code(url, shown))}",
        f"curl\n{_indented(curl(url, shown))}",
        "Next: put your own remotes into mcp-config.yaml; see them with bin/mcpstatus -o table. Ctrl-C stops the gateway.",
    ]
    return "\n\n".join(blocks)


def _entry(url: str, key: str) -> dict[str, object]:
    return {"url": url, "headers": {"Authorization": f"Bearer {key}"}}


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
