"""Tokens in several processes, and on a disk that is really full: real workers, one database, one authorization server."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.component.token_world import KEY, guarded, refreshing
from tests.component.upstreams import modern, served
from tests.peers.authorization import authorization_server

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.edge(4)


@pytest.fixture
def desk():
    with authorization_server() as desk:
        yield desk


class Worker:
    """token_process.py, and what it says."""

    def __init__(self, folder, spec) -> None:
        chosen = {"url": spec.url, "auth": asdict(spec.auth)}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/system/token_process.py"), json.dumps(chosen)],
            env=os.environ | environment(folder), cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    async def line(self):
        return await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 20)

    async def do(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return json.loads(await self.line())

    async def until(self, claim):
        async with asyncio.timeout(20):
            while not claim(status := await self.do("status")):
                await asyncio.sleep(0.05)
        return status


def environment(folder):
    own = {"DATABASE_URL": f"sqlite:///{folder}/gateway.sqlite3", "MCP_ENCRYPTION_KEYS": KEY}
    return own | {"PYTHONPATH": str(ROOT), "MCP_DATA_DIR": str(folder)}


@contextlib.asynccontextmanager
async def workers(folder, spec, count):
    if not (Path(folder) / "gateway.sqlite3").exists():
        command = [sys.executable, "manage.py", "migrate", "-v0"]
        subprocess.run(command, env=os.environ | environment(folder), cwd=ROOT, check=True, timeout=60)
    running = [Worker(folder, spec) for _ in range(count)]
    try:
        for one in running:
            assert await one.line() == "ready\n"
        yield running
    finally:
        for one in running:
            one.process.stdin.close()
            one.process.wait(20)
            one.process.stdout.close()


async def test_processes_that_all_get_401_renew_once_and_share_what_came(desk, tmp_path):
    desk.pause_s = 0.2
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with workers(tmp_path, spec, 2) as running:
            assert await asyncio.gather(*(one.do("call") for one in running)) == ["answered"] * 2
            assert desk.count("refresh_token") == 1
            for _ in range(3):
                await asyncio.gather(*(one.do("stale") for one in running))
                desk.revoke_access()
                assert await asyncio.gather(*(one.do("call") for one in running)) == ["answered"] * 2
        assert desk.count("refresh_token") == 4
        assert not desk.ended, "no refresh token was used twice"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB, really full once it is filled; ext4, which differs from tmpfs when full (SQLite maps files)."""
    image, place = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(b"")
    os.truncate(image, 8 * 1024 * 1024)
    place.mkdir()
    made = subprocess.run(["mkfs.ext4", "-q", "-m0", str(image)], check=False, capture_output=True)
    if os.geteuid() or made.returncode or subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("a file system of our own is needed: run as root")
        pytest.skip("only root can mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.edge(12)
async def test_on_a_full_disk_a_renewed_token_is_used_from_memory_and_stored_when_there_is_room(desk, small_disk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with workers(small_disk, spec, 1) as (worker,):
            assert await worker.do("call") == "answered"
            fill(small_disk / "filler")
            for _ in range(2):
                await worker.do("stale")
                desk.revoke_access()
                assert await worker.do("call") == "answered"
            assert (await worker.do("status"))["tokens_unsaved"] == "disk_full"
            (small_disk / "filler").unlink()
            await worker.until(lambda status: status["tokens_unsaved"] is None)
        async with workers(small_disk, spec, 1) as (successor,):
            await successor.do("call")
            await successor.do("stale")
            desk.revoke_access()
            assert await successor.do("call") == "answered"
        assert not desk.ended, "the rotated refresh token survived"


def fill(path):
    """To the last block: what SQLite has reserved already is all that it can write."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
