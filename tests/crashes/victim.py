"""What is killed: one process that edits, backs up, restores and changes keys without a pause, and says what it has done.

Each line on its pipe is an operation that had ended: what it promises must hold, whenever the kill came.
"""

import os
import random
from collections.abc import Callable
from typing import Any

from keys import services as keys
from monitoring.backups import restoring, saving
from remotes import selectors
from remotes import services as remotes
from tests.crashes import installation


def work(seed: int, pipe: int) -> None:
    """For ever."""
    chance = random.Random(seed)
    steps: list[Callable[[], str]] = [
        _edit,
        _set,
        _set,
        _edit_by_hand,
        _roll_back,
        _back_up,
        _restore,
        _rotate,
        _revoke,
    ]
    os.write(pipe, b"begun\n")
    while True:
        said = chance.choice(steps)()
        os.write(pipe, f"{said}\n".encode())


def _edit() -> str:
    number = remotes.apply(installation.another_text(), path=installation.config(), expected=None, actor="victim")
    return f"applied {number}"


def _set() -> str:
    """An edit by command: spliced into what is there."""

    def change(value: dict[str, Any]) -> None:
        for entry in value["mcpServers"].values():
            entry["timeout"] = entry.get("timeout", 0) % 3000 + 1

    number = remotes.edit(change, path=installation.config(), expected=None, actor="victim").number
    return f"applied {number}"


def _edit_by_hand() -> str:
    """An editor saves, and the gateway takes it."""
    fresh = installation.config().with_name("saved")
    fresh.write_text(installation.another_text() + installation.SAVED + os.urandom(8).hex() + "\n")
    fresh.replace(installation.config())
    return f"applied {remotes.take(installation.config(), actor='victim')}"


def _roll_back() -> str:
    before = max(1, selectors.head_number() - 1)
    number = remotes.rollback(before, path=installation.config(), expected=None, actor="victim").number
    return f"applied {number}"


def _back_up() -> str:
    return f"saved {saving.create('manual')['file']}"


def _restore() -> str:
    restoring.prepare("latest", only=None, actor="victim").run()
    return "restored"


def _rotate() -> str:
    return f"generated {keys.generate(name='main', actor='victim')['id']}"


def _revoke() -> str:
    made = keys.generate(name="short", actor="victim")
    keys.revoke(name="short", actor="victim")
    return f"revoked {made['id']}"
