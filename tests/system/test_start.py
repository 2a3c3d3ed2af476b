"""`./start` from a fresh clone, with a real installation, real processes and real faults of the machine."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST_RUN_S, LATER_RUN_S = 600, 90
KEY = re.compile(r"mcp_[A-Za-z0-9_]{30,}")
# What this very test run was given must not reach the clone: it has its own.
FOREIGN = re.compile(r"MCP_|HOST$|PORT$|SECRET_KEY|DATABASE_URL|REDIS_URL|DJANGO_|VIRTUAL_ENV|PYTHON|CELERY_")

pytestmark = pytest.mark.timeout(FIRST_RUN_S + 60)


def clone(target: Path) -> Path:
    """What git would clone: no environment, no data, no secrets."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in os.fsdecode(listed.stdout).split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not FOREIGN.match(name)} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, *argv: str, timeout_s: float = LATER_RUN_S, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./start", *argv],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def outside(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell in a mount namespace of its own, where file systems can be put over what is there."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        reason = "needs root and unshare"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A clone after its first `./start --check`, and what that said."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    return folder, start(folder, "--check", "--port", str(free_port()), timeout_s=FIRST_RUN_S)


@pytest.fixture
def folder(installed: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return installed[0]


def test_the_first_run_installs_starts_calls_a_tool_and_shows_the_key(installed):
    folder, first = installed
    assert first.returncode == 0, first.stderr
    assert "demo__echo answered in" in first.stderr
    (key,) = set(KEY.findall(first.stdout))
    assert first.stdout.count(f"Key   {key}") == 1
    assert f'--header "Authorization: Bearer {key}"' in first.stdout
    assert '"mcpServers"' in first.stdout
    assert "curl -s http://127.0.0.1:" in first.stdout
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    assert (folder / "data" / "gateway.sqlite3").stat().st_mode & 0o777 == 0o600
    assert (folder / "mcp-config.yaml").exists()


def test_git_sees_nothing_of_what_it_wrote(installed, tmp_path):
    folder, _ = installed
    git = ["git", f"--git-dir={tmp_path}", f"--work-tree={folder}"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"], cwd=folder, capture_output=True, check=True
    )
    seen = {name for name in os.fsdecode(listed.stdout).split("\0") if name}
    assert {name for name in seen if not (ROOT / name).exists()} == set()


def test_nothing_it_wrote_holds_the_key(installed):
    folder, first = installed
    (key,) = set(KEY.findall(first.stdout))
    holders = [
        path
        for path in folder.rglob("*")
        if path.is_file() and ".venv" not in path.parts and key.encode() in path.read_bytes()
    ]
    assert holders == []


def test_later_runs_keep_the_data_show_no_key_and_leave_none_of_their_own(installed):
    folder, _ = installed
    secrets = (folder / ".env").read_text()
    second = start(folder, "--check", "--port", str(free_port()))
    assert second.returncode == 0, second.stderr
    assert "demo__echo answered in" in second.stderr
    assert KEY.findall(second.stdout) == []
    assert (folder / ".env").read_text() == secrets
    keys = command(folder, "mcpkey", "list")["keys"]
    assert [key["name"] for key in keys] == ["main"]


def test_in_the_foreground_it_serves_the_first_key_and_ctrl_c_drains(installed):
    folder, first = installed
    (key,) = set(KEY.findall(first.stdout))
    with foreground(folder) as (process, url, children):
        assert tool_names(url, key) >= {"demo__echo", "demo__add"}
        assert command(folder, "mcpserver", "status")["pids"]["gateway-0"] in children
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does it: to everyone in the foreground.
        assert process.wait(45) == 0
    assert [pid for pid in children if psutil.pid_exists(pid)] == []


def test_a_killed_start_leaves_nothing_behind(folder):
    with foreground(folder) as (process, _, children):
        process.kill()
        _, alive = psutil.wait_procs([psutil.Process(pid) for pid in children if psutil.pid_exists(pid)], timeout=45)
        assert alive == []


def test_the_guide_s_own_words_start_restart_and_stop_it(folder):
    port = free_port()
    started = command(folder, "mcpserver", "start", "--detach", "--port", str(port))
    assert started["url"] == f"http://127.0.0.1:{port}/mcp"
    restarted = command(folder, "mcpserver", "restart")
    assert restarted["pids"]["supervisor"] == started["pids"]["supervisor"]
    assert restarted["pids"]["gateway-0"] != started["pids"]["gateway-0"]
    again = command(folder, "mcpserver", "start", "--port", str(port), exit_code=6)
    assert (again["error"], again["pid"]) == ("already_running", started["pids"]["supervisor"])
    stopped = command(folder, "mcpserver", "stop")
    assert (sorted(stopped["drained"]), stopped["killed"]) == (["celery", "gateway-0"], [])
    assert command(folder, "mcpserver", "status", exit_code=7)["error"] == "not_running"


@pytest.mark.edge(8)
def test_a_wrong_configuration_is_one_clear_line_and_the_exit_code_of_configuration(folder):
    config = folder / "mcp-config.yaml"
    right = config.read_text()
    config.write_text(right.replace("command:", "comand:", 1))
    try:
        told = start(folder, "--check", "--port", str(free_port()))
    finally:
        config.write_text(right)
    assert told.returncode == 3, told.stderr
    assert "comand" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_taken_port_is_one_line_with_its_holder(folder):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        told = start(folder, "--port", str(port))
    assert told.returncode == 1
    assert told.stderr == f"./start: port {port} is taken by pid {os.getpid()}\n  ./start --port {port + 1}\n"


def test_a_python_that_is_too_old_says_what_is_needed(tmp_path):
    code = "import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0); runpy.run_path('start', run_name='__main__')"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert told.returncode == 1
    assert told.stderr.startswith("Python 3.11 or newer is needed, this is 3.9: install one")
    assert told.stderr.count("\n") == 1


def test_a_read_only_folder_is_one_line(tmp_path):
    clone(tmp_path / "clone")
    told = outside("mount --bind . . && mount -o remount,ro,bind . && cd . && exec ./start", tmp_path / "clone")
    assert told.returncode == 1
    assert told.stderr == f"./start: {tmp_path / 'clone'} cannot be written: clone into a folder of your own\n"


def test_a_disk_without_room_is_one_line(tmp_path):
    clone(tmp_path / "clone")
    (tmp_path / "small").mkdir()
    small = "mount -t tmpfs -o size=64m none small && cp -a clone/. small && cd small && exec ./start"
    told = outside(small, tmp_path)
    assert told.returncode == 1
    assert re.fullmatch(r"\./start: not enough space: \d+ MB free in \S+, 400 MB needed\n", told.stderr)


def test_a_machine_without_ensurepip_is_told_what_to_install(tmp_path):
    system_python = Path("/usr/bin/python3")
    version = subprocess.run(
        [str(system_python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    hidden = Path(f"/usr/lib/python{version}/ensurepip")
    if tuple(map(int, version.split("."))) < (3, 11):
        pytest.skip("the system's own Python is too old")
    clone(tmp_path / "clone")
    hide = f"test ! -d {hidden} || mount -t tmpfs none {hidden};"
    told = outside(f"{hide} PATH=/usr/bin:/bin exec {system_python} ./start", tmp_path / "clone")
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith(
        "./start: python3-venv is missing; install it with: apt-get install -y python3"
    )


def command(folder: Path, *argv: str, exit_code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [f"./bin/{argv[0]}", *argv[1:]],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LATER_RUN_S,
        check=False,
    )
    assert done.returncode == exit_code, (done.stdout, done.stderr)
    return dict(json.loads(done.stdout))


class foreground:
    """`./start` in a process group of its own, once it has said that all is ready."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[subprocess.Popen[str], str, list[int]]:
        port = free_port()
        self._process = subprocess.Popen(
            ["./start", "--port", str(port)],
            cwd=self._folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        watchdog = threading.Timer(LATER_RUN_S, self._process.kill)
        watchdog.start()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = self._process.stdout.readline()
            assert line, self._process.stderr.read()
            said += line
        watchdog.cancel()
        family = psutil.Process(self._process.pid).children(recursive=True)
        return self._process, f"http://127.0.0.1:{port}/mcp", [each.pid for each in family]

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def tool_names(url: str, key: str) -> set[str]:
    from mcpserver.launch.selfcheck import request

    with urllib.request.urlopen(request(url, key, "tools/list", {}), timeout=30) as response:
        return {tool["name"] for tool in json.load(response)["result"]["tools"]}
