"""Where a client on this machine finds the gateway: what commands write into the files of clients."""

from django.conf import settings

from mcpserver.lib import control
from mcpserver.lib.errors import GatewayError
from mcpserver.supervisor import door

_ASK_S = 2.0


def url_of(host: str, port: int) -> str:
    """As a client on this machine writes it: an address to listen on everywhere is none to call."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    bracketed = f"[{reachable}]" if ":" in reachable and not reachable.startswith("[") else reachable
    return f"http://{bracketed}:{port}/mcp"


def url() -> str:
    """That of the gateway that runs, which may listen elsewhere than the settings say; else what the settings say."""
    try:
        running = control.ask(settings.MCP_RUN_DIR / door.NAME, {"op": "status"}, timeout_s=_ASK_S).get("url")
    except GatewayError:
        running = None
    return str(running or url_of(settings.HOST, settings.PORT))
