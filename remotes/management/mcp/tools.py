"""`mcp tools …`: the running gateway's tools, under the names that clients see."""

from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib import table
from mcpserver.lib.command import Answer, Result, Subcommand, usage_error
from mcpserver.lib.errors import GatewayError
from remotes.management.mcp import arguments
from remotes.management.mcp.edits import ToolsDisable, ToolsEnable
from remotes.management.mcp.pins import ToolsApprove, ToolsDiff
from remotes.management.mcp.sources import LISTING_S, ask, configured, granted, named, not_found, patience_s

_TOLD = {
    "disabled_by": "disabled by",
    "shadowed_by": "shadowed by",
    "malformed": "malformed:",
    "unreachable": "unreachable:",
}


class ToolsList(Subcommand):
    help = "List the tools that the running gateway offers, under the names that clients see."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--mcp", metavar="NAME", help="only those of this remote")
        parser.add_argument("--key", metavar="NAME", help="as the youngest key of this name sees it")
        parser.add_argument("--all", action="store_true", help="also those that clients do not see, and why")

    def run(self, *, mcp: str | None, all: bool, key: str | None) -> Result:
        if all and key is not None:
            raise usage_error("--all shows what no key sees: leave out --key, or --all")
        answer = granted(ask({"op": "tools", "all": all, "key": key}, timeout_s=LISTING_S))
        tools = answer["tools"]
        if mcp is not None:
            tools = [tool for tool in tools if tool["mcp"] == mcp]
            if not tools:
                named(mcp, configured())
        return Answer({"tools": tools, "problems": answer["problems"]}, page=_page(tools, answer["problems"]))


def _page(tools: list[dict[str, Any]], problems: list[str]) -> str:
    """What fits a window: the name, what is to be known of it, and what it says it does."""
    rows = [{"name": one["name"] or one["upstream_name"], "note": _note(one)} for one in tools]
    columns = ("name", "note") if any(row["note"] for row in rows) else ("name",)
    told = [
        {column: row[column] for column in columns} | {"description": one.get("description")}
        for row, one in zip(rows, tools, strict=True)
    ]
    return table.render({"tools": told} | ({"problems": [{"problem": one} for one in problems]} if problems else {}))


def _note(tool: dict[str, Any]) -> str:
    """Why clients do not see it, or see what was known of it."""
    said = {name: tool.get(name) for name in _TOLD if tool.get(name)}
    words = [f"{_TOLD[name]} {value}" for name, value in said.items()]
    return "; ".join([*words, *(["withheld until it is approved"] if tool.get("withheld") else [])])


class ToolsCall(Subcommand):
    help = "Call a tool through the running gateway."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="as clients see it, such as demo__echo")
        parser.add_argument(
            "pairs", metavar="KEY=VALUE", nargs="*", default=[], help="an argument: JSON, or else a text"
        )
        parser.add_argument("--args", dest="document", metavar="JSON|@FILE|-", help="all arguments as one JSON object")

    def run(self, *, name: str, pairs: list[str], document: str | None) -> Result:
        given = arguments.document(document) if document is not None else {}
        request = {"op": "call", "name": name, "arguments": given | arguments.pairs(pairs)}
        answer = ask(request, timeout_s=patience_s())
        if answer.get("error") == "not_found":
            raise _no_such_tool(name)
        return answer


class Tools(Subcommand):
    help = "The tools that the gateway offers."
    subcommands = {
        "list": ToolsList, "call": ToolsCall, "enable": ToolsEnable, "disable": ToolsDisable, "diff": ToolsDiff,
        "approve": ToolsApprove,
    }  # fmt: skip


def _no_such_tool(name: str) -> GatewayError:
    tools = granted(ask({"op": "tools"}, timeout_s=LISTING_S))["tools"]
    return not_found("tool", name, [tool["name"] for tool in tools], "see them with: mcp tools list")
