"""An installation on a small ext4 file system that is full: `python -m tests.system.full_disk CASE FOLDER`, in a mount namespace
of its own. All of it lies there, database and all.

Ends with an AssertionError for what does not hold.
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.system import gateway
from tests.system.gateway import ROOT, Gateway, eventually

# Long enough that a few backups of it take what the database needs to be opened again.
TEXT = "version: 1\nmcpServers:\n  a: {url: http://127.0.0.1:1/mcp}\n" + "# why it is so\n" * 10_000
DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
SIZE_MB = 24
RESUMES_WITHIN_S = 60


def main(case: str, folder: Path) -> int:
    cases: Mapping[str, Callable[[Path], None]] = {"stopped": stopped, "serving": serving, "inodes": inodes}
    place = folder / "full"
    place.mkdir()
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_MB << 20)
    # Blocks of 1 KiB and pages of 4: touching what is mapped needs blocks that nothing has reserved.
    few_inodes = ("-N", "64") if case == "inodes" else ()
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "1024", *few_inodes, str(image))
    run("mount", "-o", "loop", str(image), str(place))
    try:
        cases[case](place)
    finally:
        run("umount", "--lazy", str(place))
    return 0


# Without a gateway.


def stopped(home: Path) -> None:
    environment = gateway._environment(home)
    (home / "data").mkdir()
    config = home / "mcp-config.yaml"
    config.write_text(TEXT)
    gateway.manage(environment, "migrate")

    def command(*words: str) -> dict[str, Any]:
        return gateway.manage(environment, *words)

    for _ in range(4):
        assert command("mcpbackup", "create")["ok"]
    fill(home)
    # The first that opens the database has the ballast's space; it is used up, too.
    assert command("mcpkey", "list")["ok"]
    fill(home)
    whole = files(home)
    made = command("mcpbackup", "create")
    assert made["error"] == "disk_full", made
    assert files(home) == whole, "a failed backup left something"
    assert command("mcpbackup", "verify")["ok"]
    restored = command("mcprestore", "latest")
    assert restored["error"] == "disk_full", restored
    assert config.read_text() == TEXT
    pruned = command("mcpbackup", "prune", "--keep", "1")
    assert pruned["ok"], pruned
    assert len(pruned["removed"]) == 3, pruned
    assert command("mcpbackup", "create")["ok"], "pruning made no room"
    opens_only_where_there_is_room(home, environment)


def opens_only_where_there_is_room(home: Path, environment: Mapping[str, str]) -> None:
    """Between full and enough, whoever maps the database's index is killed by it; our commands end with words."""
    empty(home)
    assert gateway.manage(environment, "mcpkey", "generate", "main")["ok"]
    assert (home / "data" / "gateway.sqlite3-ballast").exists(), "the ballast was not made again"
    left = [kib for kib in (4, 6, 8) if dies_unguarded(home, kib)]
    assert left, "this file system does not do what is guarded against"
    leave(home, left[0])
    assert [one["name"] for one in gateway.manage(environment, "mcpkey", "list")["keys"]] == ["main"]
    leave(home, left[0])
    for words in (["mcpkey", "list"], ["mcpkey", "revoke", "main"], ["mcpserver", "start", "--no-worker"]):
        assert gateway.manage(environment, *words)["error"] == "disk_full", words
    assert gateway.manage(environment, "mcpstatus")["disk"]["stopped_writes"] is True


def dies_unguarded(home: Path, kib: int) -> bool:
    """A plain connection to a database of its own, with `kib` left on the disk."""
    database = home / "scratch.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE IF NOT EXISTS here (one)")
    leave(home, kib)
    opening = f"import sqlite3; sqlite3.connect({str(database)!r}).execute('INSERT INTO here VALUES (1)')"
    done = subprocess.run([sys.executable, "-c", opening], check=False, capture_output=True)
    empty(home)
    return done.returncode == -signal.SIGBUS


def leave(home: Path, kib: int) -> None:
    """Fill the disk but for this much. Blocks of what was removed are free once it was synced."""
    reserve = home / "filler-reserve"
    reserve.write_bytes(b"x" * 1024 * kib)
    for _ in range(2):
        os.sync()
        fill(home)
    reserve.unlink()
    os.sync()


# With one that runs.


def serving(home: Path) -> None:
    with served(home) as running:
        calls_go_on(running)
        before = running.folder.joinpath("mcp-config.yaml").read_bytes()
        assert running.command("mcpbackup", "create")["ok"]
        kept = files(running.folder)
        fill(home)
        for _ in range(3):
            assert echoed(running) == "hello"  # a new session, and a call in it
        for words in CHANGES:
            refused = running.command(*words)
            assert (refused["ok"], refused["error"]) == (False, "disk_full"), (words, refused)
        assert running.folder.joinpath("mcp-config.yaml").read_bytes() == before
        assert files(running.folder) == kept
        disk = eventually(
            lambda: running.command("mcpstatus")["disk"],
            lambda disk: disk["log_lines_dropped"] > 0,
            within_s=15,
            what="lost lines are counted",
        )
        assert disk["stopped_writes"] is True
        assert disk["percent"] >= 99
        told = eventually(
            lambda: running.command("mcpstatus"), lambda said: said["calls"]["stopped"], within_s=20,
            what="status says that calls cannot be recorded",
        )  # fmt: skip
        assert told["calls"]["stopped"] == "disk_full"
        assert "calls_stopped" in [warning["code"] for warning in told["warnings"]]
        crashed_and_came_back(running)
        empty(home)
        emptied = datetime.now(UTC).isoformat()
        for words in CHANGES:
            eventually(lambda w=words: running.command(*w)["ok"], bool, within_s=RESUMES_WITHIN_S, what=str(words))  # type: ignore[misc]
        assert echoed(running) == "hello"
        eventually(
            lambda: running.command("mcpstatus")["disk"]["stopped_writes"], lambda stopped: not stopped,
            within_s=RESUMES_WITHIN_S, what="writing resumes",
        )  # fmt: skip
        eventually(
            lambda: [one["name"] for one in running.command("mcpkey", "audit", "--event", "used")["events"]],
            lambda names: "first" in names, within_s=RESUMES_WITHIN_S, what="who used a key is written down",
        )  # fmt: skip
        eventually(
            lambda: running.command("mcp", "calls", "--since", emptied)["calls"], bool, within_s=RESUMES_WITHIN_S,
            what="calls are recorded",
        )  # fmt: skip
        eventually(
            running.log, lambda log: "log lines were dropped" in log, within_s=RESUMES_WITHIN_S, what="the log says so"
        )


CHANGES = (
    ("mcpconfig", "set", "mcpServers.demo.timeout", "9"),
    ("mcp", "remote", "add", "other", "http://127.0.0.1:1/mcp"),
    ("mcpkey", "generate", "third"),
    ("mcpkey", "revoke", "second"),
    ("mcpbackup", "create"),
)


def crashed_and_came_back(running: Gateway) -> None:
    before = running.command("mcpserver", "status")["pids"]["gateway-0"]
    os.kill(before, signal.SIGKILL)
    eventually(
        lambda: running.command("mcpserver", "status")["pids"].get("gateway-0"), lambda pid: pid not in (None, before),
        within_s=20, what="the worker is started again",
    )  # fmt: skip
    calls_go_on(running)


def calls_go_on(running: Gateway) -> None:
    eventually(lambda: echoed(running), lambda said: said == "hello", within_s=20, what="a call is answered")


def inodes(home: Path) -> None:
    """No file more can be made, while there is space."""
    with served(home) as running:
        calls_go_on(running)
        before = running.folder.joinpath("mcp-config.yaml").read_bytes()
        take_inodes(home)
        assert echoed(running) == "hello"
        for words in (CHANGES[0], CHANGES[1], CHANGES[4]):
            assert running.command(*words)["error"] == "disk_full", words
        assert running.folder.joinpath("mcp-config.yaml").read_bytes() == before
        disk = running.command("mcpstatus")["disk"]
        assert (disk["free_inodes"], disk["stopped_writes"]) == (0, True), disk
        empty(home)
        assert running.command(*CHANGES[0])["ok"]
        read_only(home, running)


def read_only(home: Path, running: Gateway) -> None:
    """As the kernel makes it after an error of the device: while files are open for writing."""
    before = running.folder.joinpath("mcp-config.yaml").read_bytes()
    subprocess.run(["mount", "-o", "remount,abort", str(home)], check=False, capture_output=True)
    with contextlib.suppress(OSError):
        (home / "probe").write_bytes(b"x")
        raise AssertionError("it can still be written")
    assert echoed(running) == "hello"
    for words in CHANGES[1:]:
        refused = running.command(*words)
        assert refused["error"] in ("read_only", "database"), (words, refused)
    assert running.folder.joinpath("mcp-config.yaml").read_bytes() == before
    assert running.command("mcpstatus")["disk"]["stopped_writes"] is True


@contextlib.contextmanager
def served(home: Path) -> Iterator[Gateway]:
    tempfile.tempdir = str(home)
    with gateway.running({"demo": DEMO}) as running:
        yield running


def echoed(running: Gateway) -> str:
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    head, _ = posted(running, "initialize", hello, {})
    session = {"Mcp-Session-Id": head["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-11-25"}
    _, answer = posted(running, "tools/call", {"name": "demo__echo", "arguments": {"text": "hello"}}, session)
    # After a start a remote's tools are not known until it was reached.
    return answer["result"]["content"][0]["text"] if "result" in answer else str(answer["error"]["message"])


def posted(running: Gateway, method: str, params: object, head: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=20)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    accepts = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    connection.request("POST", "/mcp", body, {"Authorization": f"Bearer {running.key}", **accepts, **head})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    return answer.headers, json.loads(text.partition("data: ")[2] or text)


# The disk.


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "backups").iterdir() if path.name != ".lock"}


def fill(home: Path) -> None:
    """To the last block: big pieces first, then single bytes, each of which takes one."""
    for size in (1 << 20, 1 << 16, 1 << 12, 1):
        with contextlib.suppress(OSError):
            for _ in range(100_000):
                (home / f"filler-{secrets.token_hex(6)}").write_bytes(b"x" * size)


def take_inodes(home: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (home / f"filler-inode-{number}").touch()


def empty(home: Path) -> None:
    for filler in home.glob("filler-*"):
        filler.unlink()


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    print(json.dumps({"ok": main(sys.argv[1], Path(sys.argv[2])) == 0}))
