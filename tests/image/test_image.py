"""The container image, really built and run without an engine: `./start image`. Minutes, so `./start test` leaves it out.

buildah builds with chroot isolation, which needs root and no daemon. The image that the Containerfile is FROM is made here, with
debootstrap, and given that name; MCP_IMAGE_BASE names a folder with such a root file system where one has been kept.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.system.gateway import ROOT, eventually
from tests.system.tools import require

CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
USER = 10001
# What pip needs of this machine to reach its packages.
PIP = (Path("/etc/pip.conf"), Path("/etc/ssl/certs"))
BASE_DEADLINE_S, BUILD_DEADLINE_S, START_DEADLINE_S = 600, 600, 60.0
CONFIG = "mcpServers: {demo: {command: /opt/venv/bin/python, args: [-m, remotes.demo], cwd: /opt/mcp-server}}\n"

Buildah = Callable[..., str]

pytestmark = pytest.mark.timeout(BASE_DEADLINE_S + BUILD_DEADLINE_S)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def buildah(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """buildah with a storage of its own, in which `mcp-server` has been built."""
    require("buildah", "debootstrap")
    if os.geteuid() != 0:
        pytest.skip("chroot isolation needs root")
    base = Path(os.environ.get("MCP_IMAGE_BASE") or a_base(tmp_path_factory.mktemp("base") / "root"))

    def run(*words: str, deadline_s: float = 120) -> str:
        command = [*words_for(storage), *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=deadline_s, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.strip()

    (name,) = set(re.findall(r"(?m)^FROM (\S+)", CONTAINERFILE.read_text()))
    empty = run("from", "scratch")
    run("add", "--quiet", empty, str(base), "/", deadline_s=BUILD_DEADLINE_S)
    run("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", empty)
    run("commit", "--quiet", "--rm", empty, f"localhost/{name}", deadline_s=BUILD_DEADLINE_S)
    mounts = [word for path in PIP if path.exists() for word in ("--volume", f"{path}:{path}:ro")]
    options = ["--isolation", "chroot", "--format", "docker", "--pull-never", *mounts, "--file", str(CONTAINERFILE)]
    run("build", *options, "--tag", "mcp-server", ".", deadline_s=BUILD_DEADLINE_S)
    yield run
    subprocess.run([*words_for(storage), "rm", "--all"], capture_output=True, check=False)


def words_for(storage: Path) -> list[str]:
    return ["buildah", "--storage-driver", "vfs", "--root", str(storage / "root"), "--runroot", str(storage / "run")]


def a_base(folder: Path) -> Path:
    """Debian with Python, from where this machine gets its packages."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    options = ["--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    command = ["debootstrap", *options, "bookworm", str(folder), targets.stdout.split()[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BASE_DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    return folder


@pytest.fixture(scope="module")
def container(buildah: Buildah, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that run a command in a container of the image; one port for all of them."""
    folder = tmp_path_factory.mktemp("volumes")
    for name in ("data", "config"):
        (folder / name).mkdir()
    os.chown(folder / "data", USER, USER)
    for part in (folder, *folder.parents[:2]):  # pytest's folders are for root alone
        part.chmod(0o755)
    (folder / "config" / "mcp-config.yaml").write_text(CONFIG)
    name = buildah("from", "--pull-never", "mcp-server")
    volumes = ["--volume", f"{folder}/data:/data", "--volume", f"{folder}/config:/config:ro"]
    environment = [
        "--env",
        "SECRET_KEY=only-for-tests",
        "--env",
        "HOST=127.0.0.1",
        "--env",
        f"PORT={peers.free_port()}",
    ]
    return [*words_for(storage), "run", "--isolation", "chroot", *volumes, *environment, name]


def test_it_runs_as_nobody_in_particular_and_is_looked_after(buildah: Buildah) -> None:
    image = json.loads(buildah("inspect", "--type", "image", "mcp-server"))["Docker"]["config"]
    assert image["User"] == f"{USER}:{USER}"
    assert image["Cmd"] == ["mcpserver", "start"]
    assert image["Healthcheck"]["Test"][:2] == ["CMD", "python"]


def test_it_serves_calls_is_found_healthy_by_its_own_check_and_stops_when_told(
    buildah: Buildah, container: list[str]
) -> None:
    image = json.loads(buildah("inspect", "--type", "image", "mcp-server"))["Docker"]["config"]
    ran(container, "python", "manage.py", "migrate", "--verbosity", "0")
    assert json.loads(ran(container, "mcpkey", "generate", "main"))["key"]
    port = next(word.removeprefix("PORT=") for word in container if word.startswith("PORT="))
    process = subprocess.Popen(
        [*container, *image["Cmd"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        found = eventually(lambda: health(port), healthy, within_s=START_DEADLINE_S, what="it is healthy")
        assert found["mcps_health"]["mcps"] == {"demo": "healthy"}
        ran(container, *image["Healthcheck"]["Test"][1:])
        assert json.loads(ran(container, "mcp", "tools", "call", "demo__add", "a=2", "b=3"))["ok"]
        assert json.loads(ran(container, "id", "-u")) == USER
        assert json.loads(ran(container, "mcpserver", "stop"))["ok"]
        assert process.wait(START_DEADLINE_S) == 0
    finally:
        peers.end_group(process, signal.SIGTERM)


def ran(container: list[str], *words: str) -> str:
    done = subprocess.run([*container, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def health(port: str) -> dict[str, Any]:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
    return {}


def healthy(found: dict[str, Any]) -> bool:
    return bool(found.get("mcps_health", {}).get("mcps", {}).get("demo") == "healthy")
