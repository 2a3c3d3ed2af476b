"""`mcpconfig`: look at the configuration, change it, exchange it with other programs. Parses and prints; services do."""

from mcpserver.lib.command import JsonCommand
from remotes.management.config.changing import Apply, Reload, Rollback, Set, Unset
from remotes.management.config.exchange import Export, Import
from remotes.management.config.looking import Diff, History, Schema, Show, Validate


class Command(JsonCommand):
    help = "Look at the gateway's configuration, check it and change it."
    subcommands = {
        "validate": Validate,
        "show": Show,
        "diff": Diff,
        "apply": Apply,
        "reload": Reload,
        "history": History,
        "rollback": Rollback,
        "set": Set,
        "unset": Unset,
        "import": Import,
        "export": Export,
        "schema": Schema,
    }
