"""Changes of the configuration beside a gateway that serves, by several processes at once, and where nothing can be written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from remotes.config import load
from tests import peers
from tests.component.real_gateway import Client
from tests.system import gateway
from tests.system.gateway import ROOT, eventually

SWAPS = 60
PROCESSES, EDITS = 8, 10

# Commands as people give them, many in one process: starting Python each time would be most of the test.
COMMANDS = """
import io, json, sys, django
django.setup()
from remotes.management.commands import mcp, mcpconfig
def run(words):
    out = io.StringIO()
    try:
        {"mcp": mcp, "mcpconfig": mcpconfig}[words[0]].Command(stdout=out).run_from_argv(["manage.py", *words])
    except SystemExit:
        print(out.getvalue()); sys.exit(1)
for line in sys.stdin:
    run(line.split())
print("done")
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[gateway.Gateway, str]]:
    with peers.sdk_server("http") as peer, gateway.running({"both": {"url": peer.url}}) as running:
        eventually(
            running.remotes, lambda found: found["both"]["status"] == "healthy", within_s=20, what="both is healthy"
        )
        yield running, peer.url


def commands(environment: Any, *lines: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMANDS], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=dict(environment) | {"DJANGO_SETTINGS_MODULE": "mcpserver.settings"},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.close()
    return process


def ended(process: subprocess.Popen[str], within_s: float) -> str:
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait(within_s) == 0, said
    return said


@pytest.mark.edge(7)
def test_sixty_swaps_under_load_fail_no_call_and_show_one_of_two_sets(serving, tmp_path):
    running, url = serving
    sets = [{"both": {"url": url}, "first": {"url": url}}, {"both": {"url": url}, "second": {"url": url}}]
    files = [tmp_path / "0.yaml", tmp_path / "1.yaml"]
    for file, remotes in zip(files, sets, strict=True):
        file.write_text(gateway.configuration(remotes))
    client = Client(int(running.url.rpartition(":")[2]), running.key)
    ended(commands(running.environment, f"mcpconfig apply {files[0]}", "mcpconfig reload"), 30)
    eventually(lambda: prefixes(client), lambda found: found == {"both", "first"}, within_s=20, what="the first set")
    finished: list[Any] = []
    slow = threading.Thread(target=lambda: finished.append(called(client, "first__slow", n=2, seconds=1)))
    slow.start()
    failed, seen, over = load_on(client)
    time.sleep(0.2)  # The slow call is on its way.
    lines = [
        line for number in range(SWAPS + 1) for line in (f"mcpconfig apply {files[1 - number % 2]}", "mcpconfig reload")
    ]
    ended(commands(running.environment, *lines), 120)
    # Swaps that follow each other faster than the new remote answers are shown together: the last one stays.
    eventually(lambda: set(seen), lambda found: len(found) == 2, within_s=20, what="the second set was listed")
    calls = over()
    slow.join(20)
    assert failed == []
    assert calls > SWAPS
    assert seen <= {("both", "first"), ("both", "second")}
    assert finished == [True]
    assert running.command("mcpconfig", "history", "--limit", "100")["revision"] >= SWAPS


def called(client: Client, tool: str, **arguments: Any) -> bool:
    reply = client.modern("tools/call", {"name": tool, "arguments": arguments})
    message = reply.messages[-1]
    return reply.status == 200 and "result" in message and not message["result"].get("isError", False)


def prefixes(client: Client) -> set[str]:
    tools = client.modern("tools/list").result["tools"]
    return {tool["name"].partition("__")[0] for tool in tools}


def load_on(client: Client) -> tuple[list[Any], set[tuple[str, ...]], Any]:
    """Two callers and one that lists, until told that it is over; how many calls there were."""
    failed: list[Any] = []
    seen: set[tuple[str, ...]] = set()
    over, made = threading.Event(), [0, 0]

    def call(number: int) -> None:
        while not over.is_set():
            if not called(client, "both__echo", text=str(number)):
                failed.append(number)
            made[number] += 1

    def show() -> None:
        while not over.is_set():
            seen.add(tuple(sorted(prefixes(client))))

    threads = [
        threading.Thread(target=call, args=(0,)),
        threading.Thread(target=call, args=(1,)),
        threading.Thread(target=show),
    ]
    for thread in threads:
        thread.start()

    def end() -> int:
        over.set()
        for thread in threads:
            thread.join(30)
        return sum(made)

    return failed, seen, end


@pytest.mark.edge(8)
def test_a_running_gateway_keeps_the_old_configuration_and_says_so(serving):
    running, url = serving
    running.configure({"both": {"url": url}})
    config = running.folder / "mcp-config.yaml"
    eventually(
        lambda: running.command("mcpconfig", "diff"), lambda found: found["ok"], within_s=10, what="the edit is applied"
    )
    config.write_text("mcpServers:\n  both:\n    urll: http://127.0.0.1:1/\n")
    pending = eventually(
        lambda: running.command("mcpstatus")["config"]["pending_error"], bool, within_s=10, what="the error is shown"
    )
    assert (pending[0]["line"], pending[0]["code"], pending[0]["hint"]) == (3, "unknown_key", "did you mean `url`?")
    client = Client(int(running.url.rpartition(":")[2]), running.key)
    assert called(client, "both__echo", text="still")
    assert running.command("mcpconfig", "reload")["message"].startswith("mcp-config.yaml:3:5: mcpServers.both.urll")
    assert running.command("mcp", "remote", "disable", "both")["error"] == "unapplied_edit"
    config.write_text(gateway.configuration({"both": {"url": url}, "more": {"url": url}}))
    told = running.command("mcpconfig", "reload")
    assert (told["ok"], [worker["worker"] for worker in told["workers"]]) == (True, ["gateway-0"])
    assert {worker["revision"] for worker in told["workers"]} == {told["revision"]}
    assert running.command("mcpstatus")["config"]["pending_error"] is None


@pytest.mark.edge(8)
def test_a_start_with_a_broken_file_ends_with_one_line_that_names_file_line_and_cause(tmp_path):
    environment = gateway._environment(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "mcp-config.yaml").write_text("mcpServers:\n  a:\n    comand: x\n")
    gateway.manage(environment, "migrate")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "manage.py", "mcpserver", "start", "--port", "0", "--no-worker"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert time.monotonic() - began < 30  # Twice the promise; a control is the start of `serving`.
    document = json.loads(done.stdout)
    assert (done.returncode, document["error"]) == (3, "invalid_config")
    assert document["message"] == "mcp-config.yaml:3:5: mcpServers.a.comand: `comand` is not known here"


@pytest.mark.edge(21)
def test_eight_processes_that_edit_ten_times_each_lose_nothing_and_the_file_parses_at_every_moment(serving):
    running, url = serving
    running.configure({"both": {"url": url}})
    eventually(
        lambda: running.command("mcpconfig", "diff"), lambda found: found["ok"], within_s=10, what="the edit is applied"
    )
    config, over = running.folder / "mcp-config.yaml", threading.Event()
    looks: list[int] = []

    def look() -> None:
        while not over.is_set():
            snapshot, problems = load.parse(config.read_text(), {}, running.folder)
            assert snapshot is not None, problems
            looks.append(len(snapshot.remotes))

    looking = threading.Thread(target=look)
    looking.start()
    editors = [
        commands(running.environment, *(f"mcp remote add p{one}e{edit} {url} --disabled" for edit in range(EDITS)))
        for one in range(PROCESSES)
    ]
    for editor in editors:
        assert "done" in ended(editor, 90)
    over.set()
    looking.join(10)
    remotes = load.parse(config.read_text(), {}, running.folder)[0].remotes
    assert set(remotes) == {"both"} | {f"p{one}e{edit}" for one in range(PROCESSES) for edit in range(EDITS)}
    assert looks == sorted(looks)
    assert looks[-1] > 1
    eventually(
        lambda: running.command("mcpconfig", "diff"),
        lambda found: found["ok"],
        within_s=10,
        what="what runs is the file",
    )


def test_an_edit_is_a_synced_temporary_file_a_rename_and_a_synced_folder(serving, tmp_path):
    running, _ = serving
    if not shutil.which("strace"):
        lacking("strace")
    trace = tmp_path / "trace"
    watched = "trace=openat,fsync,fdatasync,rename,renameat,renameat2"
    argv = ["strace", "-f", "-y", "-e", watched, "-o", str(trace), sys.executable]
    words = ["manage.py", "mcpconfig", "set", "gateway.backup_keep", "7"]
    subprocess.run(
        [*argv, *words], cwd=ROOT, env=dict(running.environment), capture_output=True, timeout=100, check=True
    )
    steps = [step for line in trace.read_text().splitlines() if (step := step_of(line))]
    assert steps[:4] == ["create .tmp", "sync .tmp", "rename", "sync folder"]


def lacking(what: str) -> None:
    pytest.fail(f"needs {what}") if os.environ.get("CI") else pytest.skip(f"needs {what}")


def step_of(line: str) -> str | None:
    """What a line of the trace does to the configuration file or its folder."""
    name = r"\.mcp-config\.yaml\.[0-9a-f]+\.tmp"
    if re.search(rf'openat\(.*{name}", .*O_CREAT', line):
        return "create .tmp"
    if re.search(rf"sync\(\d+<[^>]*{name}>", line):
        return "sync .tmp"
    if re.search(rf'rename.*{name}".*mcp-config\.yaml"', line):
        return "rename"
    return "sync folder" if re.search(r"sync\(\d+</[^>]*/gateway-\w+>\)", line) and "backup" not in line else None


def test_a_read_only_folder_is_watched_and_applied_and_commands_are_refused_with_the_reason(tmp_path):
    """A real read-only mount, whose content changes from outside as a ConfigMap's does."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        lacking("root and unshare")
    source, mounted = tmp_path / "source", tmp_path / "mounted"
    source.mkdir()
    mounted.mkdir()
    (source / "mcp-config.yaml").write_text("mcpServers: {a: {url: 'http://127.0.0.1:9/'}}\n")
    (tmp_path / "data").mkdir()
    environment = gateway._environment(tmp_path) | {"MCP_CONFIG": str(mounted / "mcp-config.yaml")}
    python = sys.executable
    script = f"""
        mount --bind {source} {mounted} && mount -o remount,ro,bind {mounted}
        {python} manage.py migrate -v0
        {python} manage.py mcpconfig apply; echo
        {python} manage.py mcp remote disable a; echo
        {python} manage.py mcpconfig show; echo
        echo "mcpServers: {{b: {{url: 'http://127.0.0.1:9/'}}}}" > {source}/mcp-config.yaml
        {python} manage.py mcpconfig apply; echo
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    applied, refused, shown, again = (json.loads(line) for line in done.stdout.splitlines() if line.strip())
    assert (applied["ok"], applied["revision"]) == (True, 1)
    assert (refused["ok"], refused["error"]) == (False, "read_only")
    assert "Read-only file system" in refused["message"]
    assert shown["applied"] is True
    assert (again["ok"], again["revision"]) == (True, 2)
