"""What every client script takes and prints, so that a test can drive ten clients with one sentence.

    python tests/clients/NAME.py URL KEY [--mode auto|modern|session|sse] [--header authorization|x-api-key]
        [--call TOOL --args JSON [--cancel-after S]] [--also JSON ...] [--prompt NAME --prompt-args JSON] [--read URI]
        [--complete REF ARGUMENT VALUE] [--log-level LEVEL] [--elicit JSON|decline|cancel]
        [--no-lists] [--full] [--timeout S]

`--also '{"name": "add", "arguments": {}}'` is one more call, after the first, as often as it is given.

One JSON document on stdout: {ok, client, mode, protocol_version, server, tools, prompts, resources, templates, call, also,
prompt, read, complete, progress, logs, elicitations, cancelled, error, code, status}. Exit 0 when everything asked for
was answered (a result with isError is an answer), 1 when not, 2 for a usage error or a mode the client does not have.
The script finds its own environment: any Python may start it. Standard library only, for it runs in all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

TOOLS_DIR = Path(__file__).resolve().parent.parent / ".tools"
METHOD_NOT_FOUND = -32601
SERVER_META_KEY = "io.modelcontextprotocol/serverInfo"  # 2026-07-28 names the server in each answer
ALIVE_TIMEOUT_S = 5.0


def inside(tool: str) -> None:
    """Go on in that tool's environment, if this is another one."""
    wanted = (TOOLS_DIR / tool).resolve()
    if Path(sys.prefix).resolve() == wanted:
        return
    python = wanted / "bin" / "python"
    if not python.exists():
        finish({"ok": False, "error": f"{tool} is not installed: run tests/clients/install.py"}, exit_code=2)
    os.execv(python, [str(python), *sys.argv])


def options(client: str, modes: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Drive an MCP server with {client}.")
    parser.add_argument("url")
    parser.add_argument("key", help="the key to present; '' presents none")
    parser.add_argument("--mode", default=modes[0])
    parser.add_argument("--header", default="authorization", choices=["authorization", "x-api-key"])
    parser.add_argument("--call", metavar="TOOL")
    parser.add_argument("--args", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--cancel-after", type=float, metavar="SECONDS")
    parser.add_argument("--also", type=json.loads, action="append", default=[], metavar="JSON")
    parser.add_argument("--prompt", metavar="NAME")
    parser.add_argument("--prompt-args", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--read", metavar="URI")
    parser.add_argument("--complete", nargs=3, metavar=("PROMPT_OR_TEMPLATE", "ARGUMENT", "VALUE"))
    parser.add_argument("--log-level", metavar="LEVEL")
    parser.add_argument("--elicit", metavar="JSON", help="the content to accept with, or 'decline' or 'cancel'")
    parser.add_argument("--no-lists", action="store_true", help="only what is asked for, no lists before it")
    parser.add_argument("--full", action="store_true", help="the listed objects as they came, under 'raw'")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for everything together")
    chosen = parser.parse_args()
    chosen.client = client
    if chosen.mode not in modes:
        finish({"ok": False, "error": f"{client} has no mode {chosen.mode}", "modes": list(modes)}, exit_code=2)
    return chosen


def options_of_tools(client: str, modes: tuple[str, ...]) -> argparse.Namespace:
    """The options of a client that knows nothing but tools: asking it for more is a usage error."""
    chosen = options(client, modes)
    more = (chosen.cancel_after, chosen.prompt, chosen.read, chosen.complete, chosen.log_level, chosen.elicit)
    if chosen.full or any(more):
        finish({"ok": False, "error": f"{client} lists and calls tools, nothing else"}, exit_code=2)
    return chosen


def headers(chosen: argparse.Namespace) -> dict[str, str]:
    if not chosen.key:
        return {}
    return {"Authorization": f"Bearer {chosen.key}"} if chosen.header == "authorization" else {"X-API-Key": chosen.key}


def elicitation(chosen: argparse.Namespace) -> dict[str, Any]:
    """The answer to every question, as the protocol spells it."""
    if chosen.elicit in ("decline", "cancel"):
        return {"action": chosen.elicit}
    return {"action": "accept", "content": json.loads(chosen.elicit)}


def new_report(chosen: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {"ok": False, "client": chosen.client, "mode": chosen.mode}
    facts |= dict.fromkeys(("protocol_version", "server", "call", "prompt", "read", "complete", "error", "status"))
    lists = ("tools", "prompts", "resources", "templates", "also", "progress", "logs", "elicitations")
    facts |= {name: [] for name in lists}
    return facts | {"cancelled": False}


def run(visit: Callable[[argparse.Namespace, dict[str, Any]], Awaitable[None]], chosen: argparse.Namespace) -> None:
    """Run one visit within its deadline, print what it found, and end the process."""
    report = new_report(chosen)

    async def within_deadline() -> None:
        async with asyncio.timeout(chosen.timeout):
            await visit(chosen, report)

    try:
        asyncio.run(within_deadline())
        report |= {"ok": True, "status": None}
    except BaseException as raised:
        record_failure(report, raised, chosen.timeout)
    finish(report)


def record_failure(report: dict[str, Any], raised: BaseException, timeout_s: float) -> None:
    cause = first_cause(raised)
    if isinstance(cause, TimeoutError):
        report["error"] = f"not done within {timeout_s} s"
    else:
        report["error"] = f"{type(cause).__name__}: {cause}"
    report["code"] = code_of(cause)
    response = getattr(cause, "response", None)
    report["status"] = report["status"] or getattr(response, "status_code", None)


def first_cause(raised: BaseException) -> BaseException:
    while isinstance(raised, BaseExceptionGroup):
        raised = raised.exceptions[0]
    return raised


def code_of(raised: BaseException) -> int | None:
    return getattr(getattr(raised, "error", None), "code", None)


def finish(document: dict[str, Any], exit_code: int | None = None) -> None:
    """Print and end at once: what a library left running must not keep a test waiting."""
    print(json.dumps(document), flush=True)
    os._exit((0 if document["ok"] else 1) if exit_code is None else exit_code)


def plain(value: Any) -> Any:
    """A pydantic model of either SDK as the JSON that it stands for."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def watch_status(report: dict[str, Any]) -> dict[str, list[Any]]:
    """httpx event hooks that remember the last refused status: the SDKs turn it into other errors."""

    async def remember(response: Any) -> None:
        if response.status_code >= 400 and response.request.method != "DELETE":
            report["status"] = response.status_code

    return {"response": [remember]}


async def every(report: dict[str, Any], fetch: Callable[..., Awaitable[Any]], key: str) -> list[dict[str, Any]]:
    """All pages of a list; a server without that capability has none."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        try:
            page = plain(await fetch(cursor=cursor))
        except Exception as refused:
            if code_of(refused) == METHOD_NOT_FOUND and cursor is None:
                return []
            raise
        report["server"] = page.get("_meta", {}).get(SERVER_META_KEY) or report["server"]
        found += page[key]
        cursor = page.get("nextCursor")
        if cursor is None:
            return found


async def list_everything(chosen: argparse.Namespace, report: dict[str, Any], session: Any) -> None:
    """The four lists. Without them something else must be asked: 2026-07-28 connects without a word to the server."""
    if chosen.no_lists and (chosen.call or chosen.prompt or chosen.read or chosen.complete):
        return
    raw = {
        "tools": await every(report, session.list_tools, "tools"),
        "prompts": await every(report, session.list_prompts, "prompts"),
        "resources": await every(report, session.list_resources, "resources"),
        "templates": await every(report, session.list_resource_templates, "resourceTemplates"),
    }
    record_lists(chosen, report, raw)


def record_lists(chosen: argparse.Namespace, report: dict[str, Any], raw: dict[str, list[dict[str, Any]]]) -> None:
    named_by = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
    report |= {kind: [entry[named_by[kind]] for entry in entries] for kind, entries in raw.items()}
    report["status"] = None  # a 405 for the optional GET stream, a 400 while probing: not what the test is after
    if chosen.full:
        report["raw"] = raw


async def use(
    chosen: argparse.Namespace,
    report: dict[str, Any],
    session: Any,
    call: Callable[[], Awaitable[None]],
    references: Any,
) -> None:
    """Everything after the lists, the same on every Python client; `call` fills report['call'] or ['cancelled']."""
    if chosen.call:
        await call()
    if report["cancelled"]:
        async with asyncio.timeout(ALIVE_TIMEOUT_S):
            await session.list_tools()  # a cancelled call must leave the connection usable
    await call_others(chosen, report, call)
    if chosen.prompt:
        report["prompt"] = plain(await session.get_prompt(chosen.prompt, chosen.prompt_args))
    if chosen.read:
        report["read"] = plain(await session.read_resource(references.uri(chosen.read)))
    if chosen.complete:
        reference, argument, value = chosen.complete
        named = references.template(reference) if "{" in reference else references.prompt(reference)
        report["complete"] = plain(await session.complete(named, {"name": argument, "value": value}))


async def call_others(chosen: argparse.Namespace, report: dict[str, Any], call: Callable[[], Awaitable[None]]) -> None:
    """The calls of `--also`, each with what a script does for the first one."""
    first = report["call"]
    for other in chosen.also:
        chosen.call, chosen.args = other["name"], other["arguments"]
        await call()
        report["also"].append(report["call"])
    report["call"] = first


async def use_tools(
    chosen: argparse.Namespace,
    report: dict[str, Any],
    names: list[str],
    call: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]],
) -> None:
    """Everything that a client of `options_of_tools` is asked for, once it has the names of the tools."""
    if not chosen.no_lists:
        report["tools"] = names
    if chosen.call:
        report["call"] = await call(chosen.call, chosen.args)
    report["also"] = [await call(other["name"], other["arguments"]) for other in chosen.also]
