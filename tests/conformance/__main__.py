"""Run the public conformance tool against the gateway: client revision × era and transport of the remote, as a table.

    python -m tests.conformance [--only TEXT] [--direct] [--json FILE] [--readme] [--record FOLDER]

Every row starts an upstream of ours (upstream.py), the gateway as an operator runs it, and the proxy between the tool and
the gateway; in the last two the tool is the remote, and judges how the gateway uses it (client_driver.py). Rows without a
figure of their own are told and do not decide. Exit 1 when a row is below its figure. Words on stderr, the table on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import peers
from tests.clients import install
from tests.conformance.names import Names
from tests.conformance.proxy import Gateway, proxying
from tests.conformance.results import TOOL, Required, Results
from tests.conformance.sse_bridge import Bridge
from tests.system import gateway as system

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
MARKS = ("<!-- conformance -->", "<!-- /conformance -->")  # written by --readme, between these
REMOTE = "ev"
OLD, NEW = "2025-11-25", "2026-07-28"
RUN_TIMEOUT_S = 150.0
CLIENT_TIMEOUT_MS = 60_000
UPSTREAM = [sys.executable, "-m", "tests.conformance.upstream"]


@dataclass(frozen=True)
class Row:
    """One run: which revision the tool speaks, over what, and what the remote is."""

    revision: str
    era: str
    transport: str = "http"
    over: str = "http"
    required: int | None = None

    @property
    def name(self) -> str:
        return f"{self.revision} over {self.over} → {self.era} {self.transport}"

    @property
    def facts(self) -> dict[str, Any]:
        return {"revision": self.revision, "over": self.over, "era": self.era, "transport": self.transport}


ROWS = (
    Row(OLD, "legacy", required=30),
    Row(NEW, "modern", required=37),
    Row(OLD, "modern", required=30),
    Row(NEW, "legacy", required=36),
    Row(OLD, "legacy", over="sse", required=30),
    Row(OLD, "modern", over="sse"),
    Row(OLD, "legacy", "stdio"),
    Row(NEW, "legacy", "stdio"),
    Row(OLD, "modern", "stdio"),
    Row(NEW, "modern", "stdio"),
    Row(OLD, "legacy", "sse"),
    Row(NEW, "legacy", "sse"),
)
DIRECT = (
    Row(OLD, "legacy", required=30),
    Row(OLD, "both", required=30),
    Row(NEW, "modern", required=37),
    Row(NEW, "both", required=37),
    Row(OLD, "legacy", "sse", over="sse", required=30),
)


@dataclass(frozen=True)
class ClientRow:
    """The other way round: the tool is the remote, one run for each of its client scenarios."""

    revision: str
    required: int | None = None

    @property
    def name(self) -> str:
        return f"{self.revision} gateway → the tool as remote"

    @property
    def facts(self) -> dict[str, Any]:
        return {"revision": self.revision, "over": "gateway", "era": "tool", "transport": "http"}


CLIENT_ROWS = (ClientRow(OLD, required=4), ClientRow(NEW, required=7))
# Signing in as a person with a browser does: the gateway is given credentials instead, and never asks for them.
NOT_OURS = "auth/"


@contextlib.contextmanager
def upstream(row: Row) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The remote of a row: its entry in the gateway's configuration, and its address if it has one."""
    options = ["--era", row.era, "--transport", row.transport]
    if row.transport == "stdio":
        python, *arguments = [*UPSTREAM, *options]
        yield {"command": python, "args": arguments, "cwd": str(ROOT)}, None
        return
    path = "/sse" if row.transport == "sse" else "/mcp"
    with peers.running([*UPSTREAM, *options], path=path, environment={"PYTHONPATH": str(ROOT)}) as peer:
        yield {"type": row.transport, "url": peer.url}, peer.url


@contextlib.asynccontextmanager
async def through_gateway(row: Row, record: Path | None) -> AsyncIterator[str]:
    """The address that the tool is given, with the gateway behind it."""
    names = Names(REMOTE)
    with upstream(row) as (entry, _), system.running({REMOTE: entry}) as gateway:
        address = urlsplit(gateway.url)
        assert address.hostname is not None
        assert address.port is not None
        if row.over == "sse":
            async with Bridge(gateway.address("sse"), gateway.key, names).serving() as port:
                yield f"http://127.0.0.1:{port}/mcp"
        else:
            async with proxying(Gateway(address.hostname, address.port, gateway.key, names), record) as port:
                yield f"http://127.0.0.1:{port}/mcp"


@contextlib.asynccontextmanager
async def direct(row: Row, record: Path | None) -> AsyncIterator[str]:
    """The address of the upstream itself, through the bridge if it speaks HTTP+SSE."""
    with upstream(row) as (_, url):
        assert url is not None
        if row.over == "sse":
            async with Bridge(url, None, Names(None)).serving() as port:
                yield f"http://127.0.0.1:{port}/mcp"
        else:
            yield url


async def run(row: Row, *, straight: bool, folder: Path, record: Path | None) -> Results:
    output = folder / row.name.replace(" ", "_")
    trace = record / f"{output.name}.jsonl" if record is not None else None
    async with (direct if straight else through_gateway)(row, trace) as url:
        await tool(["server", "--url", url, "--requirements", row.revision, "--output-dir", str(output)])
    return Results.read(output, Required.by(row.revision))


async def run_clients(row: ClientRow, folder: Path) -> Results:
    """One scenario after the other: each starts a gateway, and the tool itself would run them all at once."""
    required = Required.by(row.revision, "client").without(NOT_OURS)
    output = folder / row.name.replace(" ", "_")
    command = f"{sys.executable} -m tests.conformance.client_driver"
    for scenario in (*required.scored, *required.unscored):
        options = ["--command", command, "--scenario", scenario, "--spec-version", row.revision]
        await tool(["client", *options, "--output-dir", str(output), "--timeout", str(CLIENT_TIMEOUT_MS)])
    return Results.read(output, required)


async def tool(arguments: list[str], **environment: str) -> None:
    """One run of the tool, from its own folder. Its exit code says what its files say in detail."""
    command = [str(install.node()), str(TOOL / "dist" / "index.js"), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=install.node_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(process.wait(), RUN_TIMEOUT_S)
    except TimeoutError:
        say(f"the tool was ended after {RUN_TIMEOUT_S:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def told(row: Row | ClientRow, results: Results | None, fault: str) -> dict[str, Any]:
    """One row of the document."""
    found = results.document() if results is not None else {"fault": fault}
    enough = row.required is None or (results is not None and results.passed(results.required.scored) >= row.required)
    return {"row": row.name} | row.facts | {"required": row.required, "ok": enough} | found


def line(document: dict[str, Any]) -> str:
    """One row of the table."""
    mark = "FAIL" if not document["ok"] else "ok  " if document["required"] is not None else "told"
    if "fault" in document:
        return f"{mark}  {document['row']:40} did not run: {document['fault'].splitlines()[0]}"
    figure = "" if document["required"] is None else f" (≥ {document['required']})"
    scored, unscored = ("{}/{}".format(*document[kind]) for kind in ("scored", "unscored"))
    failed = ", ".join(document["failed"]) or "–"
    return f"{mark}  {document['row']:40} {scored + figure:14} {unscored:7} {failed}"


def readme(documents: list[dict[str, Any]]) -> bool:
    """Put the table between its marks in the README; whether there were any."""
    rows = ["| | scored | unscored | not passed |", "| --- | --- | --- | --- |"]
    for document in documents:
        scored, unscored = ("{} of {}".format(*document.get(kind, ("–", "–"))) for kind in ("scored", "unscored"))
        rows.append(f"| {document['row']} | {scored} | {unscored} | {', '.join(document.get('failed', [])) or '–'} |")
    before, begin, rest = README.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if end:
        README.write_text("\n".join([before + begin, *rows, end + after]))
    return bool(end)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


async def matrix(rows: tuple[Row | ClientRow, ...], *, straight: bool, record: Path | None) -> list[dict[str, Any]]:
    documents = []
    print(f"      {'client → remote':40} {'scored':14} {'unscored':7} failed", flush=True)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        for row in rows:
            results, fault, started = None, "", time.monotonic()
            try:
                if isinstance(row, ClientRow):
                    results = await run_clients(row, Path(folder))
                else:
                    results = await run(row, straight=straight, folder=Path(folder), record=record)
            except (AssertionError, RuntimeError, OSError) as error:
                fault = str(error) or repr(error)
            documents.append(told(row, results, fault) | {"took_s": round(time.monotonic() - started, 1)})
            print(line(documents[-1]), flush=True)
    return documents


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="The public conformance tool.")
    parser.add_argument(
        "--only", metavar="TEXT", action="append", help="rows whose name contains this; may be repeated"
    )
    parser.add_argument("--direct", action="store_true", help="the tool against our upstream, without the gateway")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every failed check here")
    parser.add_argument("--readme", action="store_true", help=f"write the table into the README, after {MARKS[0]}")
    parser.add_argument("--record", metavar="FOLDER", type=Path, help="write every exchange here, a file per row")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    for name in ("node", "conformance"):
        install.install(install.TOOLS[name])
    if chosen.record is not None:
        chosen.record.mkdir(parents=True, exist_ok=True)
    rows = tuple(
        row
        for row in (DIRECT if chosen.direct else (*ROWS, *CLIENT_ROWS))
        if not chosen.only or any(text in row.name for text in chosen.only)
    )
    documents = asyncio.run(matrix(rows, straight=chosen.direct, record=chosen.record))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"direct": chosen.direct, "rows": documents}, indent=1, ensure_ascii=False))
    if chosen.readme and not readme(documents):
        say(f"README.md has no {MARKS[0]} … {MARKS[1]}")
    return 0 if documents and all(document["ok"] for document in documents) else 1


if __name__ == "__main__":
    sys.exit(main())
