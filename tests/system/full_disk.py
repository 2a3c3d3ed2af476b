"""Backups on a small ext4 file system that is full: `python -m tests.system.full_disk FOLDER`, in a mount namespace of its own.

Ends with an AssertionError for what does not hold. The whole installation lies on it, database and all.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.system import gateway

# Long enough that a few backups of it take what the database needs to be opened again.
TEXT = "version: 1\nmcpServers:\n  a: {url: http://127.0.0.1:1/mcp}\n" + "# why it is so\n" * 10_000
SIZE_MB = 12


def main(folder: Path) -> int:
    full = folder / "full"
    full.mkdir()
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_MB << 20)
    run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    run("mount", "-o", "loop", str(image), str(full))
    try:
        examine(full)
    finally:
        run("umount", "--lazy", str(full))
    return 0


def examine(home: Path) -> None:
    environment = gateway._environment(home)
    (home / "data").mkdir()
    config = home / "mcp-config.yaml"
    config.write_text(TEXT)
    gateway.manage(environment, "migrate")

    def command(*words: str) -> dict[str, Any]:
        return gateway.manage(environment, *words)

    for _ in range(4):
        assert command("mcpbackup", "create")["ok"]
    whole = files(home)
    fill(home)
    made = command("mcpbackup", "create")
    assert made["error"] in ("disk_full", "database"), made
    assert files(home) == whole, "a failed backup left something"
    assert command("mcpbackup", "verify")["ok"]
    restored = command("mcprestore", "latest")
    assert restored["error"] in ("disk_full", "database"), restored
    assert config.read_text() == TEXT
    pruned = command("mcpbackup", "prune", "--keep", "1")
    assert pruned["ok"], pruned
    assert len(pruned["removed"]) == 3, pruned
    assert command("mcpbackup", "create")["ok"], "pruning made no room"


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "backups").iterdir() if path.name != ".lock"}


def fill(home: Path) -> None:
    """To the last block: big pieces first, then single bytes, each of which takes one."""
    for size in (1 << 20, 1 << 16, 1 << 12, 1):
        try:
            for number in range(100_000):
                (home / f"filler-{size}-{number}").write_bytes(b"x" * size)
        except OSError:
            continue


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    print(json.dumps({"ok": main(Path(sys.argv[1])) == 0}))
