"""What the gateway says no with to clients, in their protocols' own numbers: JSON-RPC codes and HTTP statuses, what each means
and what to do. `mcp doctor explain NUMBER` prints it; a test holds it against the code, both ways.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    means: str
    do: str
    statuses: tuple[int, ...] = ()
    """The HTTP statuses that a JSON-RPC code comes with: sessions (2025 and before) first, then 2026-07-28 where that differs."""


REFUSALS: Mapping[str, Refusal] = {
    "-32700": Refusal(
        "The body is no JSON, or not UTF-8.",
        "Send one JSON-RPC message per POST.",
        (400,),
    ),
    "-32600": Refusal(
        "The message is no request that can be served here, or its headers are not.",
        "The message says what is wrong with it.",
        (400,),
    ),
    "-32601": Refusal(
        "There is no such method in the client's revision.",
        "Look it up in the specification of the revision that was agreed on.",
        (200, 404),
    ),
    "-32602": Refusal(
        "The params make no sense, or name what does not exist for this key.",
        "List what there is (tools/list; mcp tools list --key NAME), and compare the name.",
        (200, 400),
    ),
    "-32603": Refusal(
        "The gateway or a remote failed to answer; the message says which.",
        "mcp remote test NAME --trace, or logs/error.log.",
        (200, 403, 429, 500, 503),
    ),
    "-32002": Refusal(
        "No remote has this resource (revisions before 2026-07-28).",
        "List them: resources/list.",
        (200,),
    ),
    "-32020": Refusal(
        "A header that mirrors the body is missing, doubled, or differs from it (2026-07-28).",
        "Send MCP-Protocol-Version, Mcp-Method and Mcp-Name as the body has them; does a proxy change headers?",
        (400,),
    ),
    "-32021": Refusal(
        "A remote needs a capability that the client did not declare (2026-07-28).",
        "`data.requiredCapabilities` names it; use a client that has it.",
        (400,),
    ),
    "-32022": Refusal(
        "The revision is not spoken here.",
        "`data.supported` lists those that are.",
        (400,),
    ),
    "-32042": Refusal(
        "A remote wants its user to visit a page first (2025-11-25).",
        "Open the address in `data`, then call again.",
        (200,),
    ),
    "400": Refusal("The request is malformed; the body has the JSON-RPC error.", "See its code."),
    "401": Refusal(
        "No key, or one that does not open: unknown, revoked, expired.",
        "Send Authorization: Bearer KEY; see keys with mcpkey list --all.",
    ),
    "403": Refusal(
        "The page that the request comes from (Origin) may not call the gateway.",
        "Put its origin into MCP_ALLOWED_ORIGINS.",
    ),
    "404": Refusal(
        "The session does not exist, has ended, or belongs to another key; or the path does not exist.",
        "Send initialize again; paths are /mcp, /sse, /messages/, /health, /metrics.",
    ),
    "405": Refusal("The path does not take this HTTP method.", "The Allow header names those that it takes."),
    "406": Refusal(
        "The client takes no answer of the kinds there are.",
        "Send Accept: application/json, text/event-stream.",
    ),
    "408": Refusal("The request did not arrive in time.", "Send it faster; does a proxy hold parts of it back?"),
    "413": Refusal("The request is larger than max_request_size.", "Send less, or raise MCP_MAX_REQUEST_SIZE."),
    "415": Refusal("The body is not declared as JSON.", "Send Content-Type: application/json."),
    "421": Refusal(
        "The name that the client calls (Host) is not served here.",
        "Put it into ALLOWED_HOSTS, then mcpserver restart.",
    ),
    "429": Refusal(
        "The key has used up its rate, its streams or its requests in flight.",
        "Wait as long as Retry-After says; limits of a key: mcpkey show NAME, of all: mcpstatus.",
    ),
    "431": Refusal("Request line and headers are too large.", "Send fewer or shorter ones."),
    "500": Refusal("A mistake in the gateway itself.", "See logs/error.log, and report it: mcp doctor --bundle FILE."),
    "502": Refusal(
        "The worker that had this request went away; it may have been carried out.",
        "Look whether it was, then repeat it.",
    ),
    "503": Refusal(
        "The gateway is starting, draining, full or short of memory or CPU; or a worker that cannot be asked has the session.",
        "Wait as long as Retry-After says; mcpstatus says which.",
    ),
    "504": Refusal(
        "The worker that has this session does not answer; the request may have been carried out.",
        "Look whether it was, then repeat it; mcpstatus names workers that are silent.",
    ),
}
