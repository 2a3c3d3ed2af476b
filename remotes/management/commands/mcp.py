"""`mcp`: the remotes their tools and calls, as the operator of this machine sees them. Parses, asks and prints."""

from mcpserver.lib.command import JsonCommand
from remotes.management.mcp.calls import Calls
from remotes.management.mcp.doctor import Doctor
from remotes.management.mcp.logs import Logs
from remotes.management.mcp.remote import Remote
from remotes.management.mcp.tools import Tools


class Command(JsonCommand):
    help = "The remotes behind the gateway, their tools, and who called them."
    subcommands = {"remote": Remote, "tools": Tools, "logs": Logs, "calls": Calls, "doctor": Doctor}
