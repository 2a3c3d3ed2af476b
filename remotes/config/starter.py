"""The configuration that a new installation begins with: it runs as it is, and explains itself line by line."""

import json
from pathlib import Path

from mcpserver.lib import files

INSTALLATION = Path(__file__).resolve().parents[2]

_SCHEMA = "remotes/config/mcp-config.schema.json"
_COMMAND = "    command: .venv/bin/python\n"

TEXT = """\
# yaml-language-server: $schema=remotes/config/mcp-config.schema.json
#
# The gateway's configuration. Save it and it is applied, without a restart; what is wrong in it is reported by
# `bin/mcpconfig validate` and changes nothing. Entries have the form that Claude, Cursor and others use: paste yours.
#
# ${VAR} is filled in from the environment or from .env, ${VAR:-text} has a default, ${file:/path} is a file's content.
# A remote whose variable is not set is reported as misconfigured; the others work.

version: 1

mcpServers:
  # The name comes before every tool: demo__echo. Lower-case letters and digits, with single - or _ between them.
  demo:
    # A program that is started here and spoken to over its standard input and output. No shell is involved.
    command: .venv/bin/python
    args: ["-m", "remotes.demo"]

  # The time in any zone; needs uv (https://docs.astral.sh/uv/).
  # time:
  #   command: uvx
  #   args: ["mcp-server-time"]

  # The reference server with one of everything; needs Node.js.
  # everything:
  #   command: npx
  #   args: ["-y", "@modelcontextprotocol/server-everything"]

  # A server that runs elsewhere and wants a token.
  # example:
  #   url: https://mcp.example.com/mcp
  #   headers:
  #     Authorization: Bearer ${EXAMPLE_TOKEN}

  # Every field that an entry can have, with what holds when it is absent:
  # all-fields:
  #   # A program ...
  #   command: my-server           # a name on PATH, or a path from this file's folder
  #   args: []                     # its arguments, one each
  #   env: {}                      # its environment, in addition to a minimal one
  #   cwd: .                       # the folder that it runs in; this file's folder
  #   # ... or a server:
  #   # url: https://host/mcp
  #   # headers: {}                # sent with every request
  #   # type: http                 # http or sse (stdio for a program); found out if absent
  #   # auth: {token_url: …, client_id: …, refresh_token: "${REFRESH_TOKEN}"}   # access tokens that are renewed
  #   enabled: true                # false keeps the entry without offering it
  #   timeout: 60                  # seconds for one call, retries included
  #   connect_timeout: 30          # seconds to connect and shake hands
  #   list_timeout: 10             # seconds for lists and probes
  #   probe_interval: 60           # seconds between two looks at its health
  #   era: auto                    # the revision it speaks: 2024-11-05, 2025-11-25 or 2026-07-28
  #   keep_cut_answers: 300        # an answer over 10 MiB loses text: so many seconds the rest can be read (not at all)
  #   isolation: auto              # who shares a session with it: shared, key or session
  #   tools:
  #     # enabled: [a, b]          # offer only these
  #     disabled: []               # offer all but these
  #     alias: {}                  # other names: {long_name: short}
  #     pin: warn                  # when a tool's description changes: warn, hold or off
  #   breaker: {failures: 5, window: 60, open: 30}   # when it is left alone for a while, and how long
  #   retry_idempotent: false      # true repeats calls of tools that declare themselves harmless to repeat

# Limits that can change while it runs; MCP_MAX_CONNECTIONS_PER_KEY and the like in the environment win.
# gateway:
#   max_tool_name: 55              # longer tool names are shortened; 55 fits every client
#   max_connections_per_key: 10

# This machine is always allowed, cloud metadata services never. Private networks have to be named:
# allow_private_networks: [10.1.0.0/16, build.internal]
"""


def text(path: Path, installation: Path = INSTALLATION) -> str:
    """The starter for a configuration at `path`; what it refers to lies in `installation`, the folder of manage.py."""
    if path.absolute().parent == installation.absolute():
        return TEXT
    command = json.dumps(str(installation / ".venv/bin/python"))
    absolute = f"    command: {command}\n    cwd: {json.dumps(str(installation))}\n"
    return TEXT.replace(_COMMAND, absolute).replace(_SCHEMA, str(installation / _SCHEMA))


def write(path: Path, *, installation: Path = INSTALLATION) -> bool:
    """Write the starter where there is no configuration yet; False, and nothing touched, where there is one."""
    if path.exists():
        return False
    files.write_atomically(path, text(path, installation).encode(), mode=files.NEW_FILE_MODE)
    return True
