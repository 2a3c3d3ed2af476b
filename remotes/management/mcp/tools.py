"""`mcp tools …`: the running gateway's tools, under the names that clients see."""

from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib.command import Result, Subcommand, usage_error
from mcpserver.lib.errors import GatewayError
from remotes.management.mcp import arguments
from remotes.management.mcp.edits import ToolsDisable, ToolsEnable
from remotes.management.mcp.pins import ToolsApprove, ToolsDiff
from remotes.management.mcp.sources import LISTING_S, ask, configured, granted, named, not_found, patience_s


class ToolsList(Subcommand):
    help = "List the tools that the running gateway offers, under the names that clients see."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--mcp", metavar="NAME", help="only those of this remote")
        parser.add_argument("--key", metavar="NAME", help="as the youngest key of this name sees it")
        parser.add_argument("--all", action="store_true", help="also those that clients do not see, and why")

    def run(self, *, mcp: str | None, all: bool, key: str | None) -> dict[str, Any]:
        if all and key is not None:
            raise usage_error("--all shows what no key sees: leave out --key, or --all")
        answer = granted(ask({"op": "tools", "all": all, "key": key}, timeout_s=LISTING_S))
        tools = answer["tools"]
        if mcp is not None:
            tools = [tool for tool in tools if tool["mcp"] == mcp]
            if not tools:
                named(mcp, configured())
        return {"tools": tools, "problems": answer["problems"]}


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
