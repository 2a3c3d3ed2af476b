"""What every error code means and what to do about it: what `mcp doctor explain CODE` prints. Codes are stable; a test holds this
list against the code, both ways.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    means: str
    do: str
    exits: tuple[int, ...] = (1,)
    """With which exit codes a command that utters it ends; several where it is said by more than one."""


EXPLAINED: Mapping[str, Explanation] = {
    "already_running": Explanation(
        "A gateway with this run folder runs already.",
        "See it with mcpstatus, or stop it with mcpserver stop.",
        (6,),
    ),
    "bad_address": Explanation(
        "HOST is no address of this machine.",
        "Set HOST to 127.0.0.1, 0.0.0.0 or an address that `ip address` shows.",
    ),
    "bad_encryption_key": Explanation(
        "MCP_ENCRYPTION_KEYS holds something that is no key.",
        "Let ./start make one in a fresh folder and copy it, keeping the old ones behind it.",
        (4,),
    ),
    "bad_request": Explanation(
        "A process of the gateway was asked something it cannot read.",
        "Use the commands of the same version as the gateway that runs: mcpserver restart.",
    ),
    "broken": Explanation(
        "A remote's connection ended in the middle of an answer.",
        "Look at the remote's own log, then mcp remote test NAME.",
    ),
    "busy": Explanation(
        "As many calls of a remote are open as it may have, and as many wait.",
        "Try again in a moment, or raise max_in_flight_per_remote.",
    ),
    "cannot_edit": Explanation(
        "The configuration file has a form in which that place cannot be changed without spoiling it.",
        "Edit the file by hand, then mcpconfig validate.",
    ),
    "cannot_start": Explanation(
        "A process of the gateway could not make what it needs to start: its socket, its folder.",
        "Look at the run folder: is it this user's, are there inodes left (df -i)? Then: mcpserver restart.",
    ),
    "child_failed": Explanation(
        "A process of the gateway could not start or ended before it was ready.",
        "Read its last words in logs/error.log; start with LOG_LEVEL=debug.",
    ),
    "conflict": Explanation(
        "Somebody else changed it since it was read.",
        "Look at it again and repeat the change.",
        (6,),
    ),
    "crowded": Explanation(
        "Another call's question occupies the remote's only session.",
        "Try again in a moment, or set isolation: key or session for the remote.",
    ),
    "damaged": Explanation(
        "A backup's checksum does not fit its content.",
        "Take another: mcpbackup list.",
    ),
    "database": Explanation(
        "The database refuses or cannot be reached.",
        "Check DATABASE_URL, the disk and the server; create missing tables with .venv/bin/python manage.py migrate.",
    ),
    "database_busy": Explanation(
        "Too many database calls wait: the database hangs.",
        "Look at the database server, or at the disk under SQLite.",
    ),
    "database_timeout": Explanation(
        "The database did not answer in time.",
        "Look at the database server, or at the disk under SQLite.",
    ),
    "declined": Explanation(
        "You answered no.",
        "Run it again, with --yes where nobody is asked.",
    ),
    "degraded": Explanation(
        "The circuit breaker of the remote is open after repeated failures.",
        "See why with mcp remote show NAME; once mended, mcp remote reset NAME.",
    ),
    "different": Explanation(
        "The file or a backup differs from what is served.",
        "See how with mcpconfig diff.",
    ),
    "disk_full": Explanation(
        "There is no space to write in.",
        "Free some (mcpbackup prune; du -sh logs backups data), then repeat it: nothing was half written.",
    ),
    "ended": Explanation(
        "The key has been revoked or has expired.",
        "Make another with mcpkey generate NAME.",
        (4,),
    ),
    "exists": Explanation(
        "Something has this name already.",
        "Choose another name, or remove the other one first.",
        (6,),
    ),
    "failed": Explanation(
        "A command could not do what it should.",
        "Its message says why; LOG_LEVEL=debug prints more.",
    ),
    "http_status": Explanation(
        "A remote answered with an HTTP error.",
        "Check its url and headers: mcp remote test NAME --trace.",
    ),
    "install": Explanation(
        "Dependencies could not be installed.",
        "Check the network and the package index, then run ./start again.",
    ),
    "internal": Explanation(
        "A mistake in the gateway itself.",
        "Run it with LOG_LEVEL=debug and report it with mcp doctor --bundle FILE.",
    ),
    "interrupted": Explanation(
        "It was stopped by Ctrl-C or a signal.",
        "Run it again.",
        (130,),
    ),
    "invalid": Explanation(
        "A remote answered with what is no answer.",
        "Look at what came: mcp remote test NAME --trace; it may be no MCP server.",
    ),
    "invalid_backup": Explanation(
        "A backup holds rows that make no sense.",
        "Take another: mcpbackup list.",
    ),
    "invalid_config": Explanation(
        "The configuration does not validate; nothing was changed.",
        "mcpconfig validate names every place and what to write.",
        (3,),
    ),
    "invalid_key": Explanation(
        "The key does not open: it is unknown, revoked or expired.",
        "See which do with mcpkey list.",
        (4,),
    ),
    "io_error": Explanation(
        "A file could not be read or written.",
        "Check its folder, owner and mode: mcp doctor.",
    ),
    "lock": Explanation(
        "The locked dependencies could not be resolved.",
        "Look at what pyproject.toml asks for.",
    ),
    "locked": Explanation(
        "Another command holds the lock, or another restart is under way.",
        "Wait until it ended, then repeat it.",
        (6,),
    ),
    "login_failed": Explanation(
        "A login at a remote's authorization server failed.",
        "Try again with mcp remote login NAME; its message says what the server said.",
        (4,),
    ),
    "misconfigured": Explanation(
        "Variables that the remote's entry names are not set.",
        "Set them in .env or the environment; mcp remote show NAME lists them.",
        (3,),
    ),
    "newer_version": Explanation(
        "A backup was made by a newer version.",
        "Restore it with that version.",
    ),
    "no_encryption_key": Explanation(
        "There is no key to encrypt tokens with.",
        "Set MCP_ENCRYPTION_KEYS; ./start makes one.",
        (4,),
    ),
    "no_ensurepip": Explanation(
        "This Python cannot make virtual environments.",
        "On Debian and Ubuntu: apt install python3-venv.",
    ),
    "no_key": Explanation(
        "No key exists, and the address is open to others.",
        "Make one with mcpkey generate NAME, then start.",
        (4,),
    ),
    "no_lock": Explanation(
        "requirements.txt is missing.",
        "Take it from the repository again.",
    ),
    "no_log_files": Explanation(
        "Log lines go to stdout, so that there are no files to read.",
        "Read them where stdout goes, or set MCP_LOG_TARGET=files.",
    ),
    "no_revision": Explanation(
        "There is no configuration in the database and no file.",
        "Write mcp-config.yaml, or restore one: mcprestore latest.",
        (5, 1),
    ),
    "no_space": Explanation(
        "The disk is full.",
        "Free some space, then run it again.",
    ),
    "not_a_backup": Explanation(
        "The file is no backup of this program.",
        "See which are: mcpbackup list.",
    ),
    "not_called": Explanation(
        "The remote is switched off, misconfigured or waits for a login.",
        "mcp remote show NAME says which, and what to do.",
    ),
    "not_found": Explanation(
        "There is nothing of that name.",
        "The message or its hint lists what there is.",
        (5,),
    ),
    "not_migrated": Explanation(
        "The database lacks tables or columns that this version has.",
        "Run .venv/bin/python manage.py migrate, then start again.",
    ),
    "not_running": Explanation(
        "No gateway answers on this machine.",
        "Start it with mcpserver start; logs/error.log says why one ended.",
        (7,),
    ),
    "not_sent": Explanation(
        "A remote could not be reached, so nothing was sent.",
        "Check that it runs, and its url: mcp remote test NAME --trace.",
    ),
    "not_swapped": Explanation(
        "A worker has not taken the new configuration in time.",
        "See mcpstatus; it takes it as soon as it can.",
    ),
    "nothing_imported": Explanation(
        "Nothing in the file could be taken over.",
        "The document says why for each entry.",
    ),
    "port_forbidden": Explanation(
        "Ports below 1024 need a privilege.",
        "Choose another PORT and put a proxy in front.",
    ),
    "port_taken": Explanation(
        "Another program listens on the port.",
        "Stop it, or choose another: PORT, --port.",
    ),
    "read_only": Explanation(
        "A folder cannot be written by this user.",
        "Change its owner or mode, or point MCP_DATA_DIR and the others elsewhere.",
    ),
    "refused": Explanation(
        "A request was answered with an error of JSON-RPC.",
        "Its message is the remote's or the gateway's own.",
    ),
    "self_check": Explanation(
        "./start could not prove that a call works.",
        "Look at logs/error.log and mcpstatus.",
    ),
    "settings": Explanation(
        "A variable of the environment or of .env makes no sense.",
        "The message names it.",
        (3, 1),
    ),
    "start": Explanation(
        "A step of ./start failed.",
        "The message names it; running ./start again is safe.",
    ),
    "stopping": Explanation(
        "The gateway is ending.",
        "Wait until it ended: mcpserver status.",
    ),
    "system": Explanation(
        "The system refused something.",
        "The message names what.",
    ),
    "timeout": Explanation(
        "It did not end within its time.",
        "For a remote: mcp remote test NAME --trace; its timeouts can be set in its entry.",
        (1, 4),
    ),
    "too_large": Explanation(
        "An answer is larger than what is ever read.",
        "Ask for less at once, or raise max_tool_response_size.",
    ),
    "tool_error": Explanation(
        "A tool says that it failed.",
        "Its own words are in the result.",
    ),
    "unapplied_edit": Explanation(
        "The configuration file has an edit that is not applied; writing now would lose it.",
        "mcpconfig validate says what is wrong with it; mend or undo it first.",
        (6,),
    ),
    "unauthorized": Explanation(
        "A remote refuses the credential.",
        "mcp remote login NAME, or set the token that its entry names.",
    ),
    "unhealthy": Explanation(
        "The gateway or a remote is not well.",
        "mcpstatus -o table, then mcp doctor.",
    ),
    "unreachable": Explanation(
        "A machine that shares this one's Redis has not been heard of for a while.",
        "mcpstatus: `nodes` says which and since when; there: mcpserver status.",
    ),
    "unknown_format": Explanation(
        "The file is of no known program.",
        "Name it: mcpconfig import --format NAME FILE.",
        (3,),
    ),
    "unknown_op": Explanation(
        "Command and gateway are of different versions.",
        "mcpserver restart.",
    ),
    "unreadable": Explanation(
        "A file cannot be read.",
        "Check its path and mode.",
        (3, 1),
    ),
    "unreadable_token": Explanation(
        "A stored token cannot be decrypted with the keys there are.",
        "Put the old key behind the new one in MCP_ENCRYPTION_KEYS, or log in again.",
        (4,),
    ),
    "usage": Explanation(
        "The command line makes no sense.",
        "See its --help.",
        (2, 1),
    ),
    "warnings": Explanation(
        "There are warnings, and --strict counts them.",
        "mcpconfig validate lists them.",
        (3,),
    ),
    "worker_failed": Explanation(
        "The Celery worker could not start.",
        "The message names why; with Redis, check REDIS_URL.",
    ),
}
