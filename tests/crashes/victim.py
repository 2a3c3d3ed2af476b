"""What is killed: one process that edits, backs up, restores and changes keys without a pause, and says what it has done.

Each line on its pipe is an operation that had ended: what it promises must hold, whenever the kill came.
"""

import os
import random
from collections.abc import Callable

from keys import services as keys
from monitoring.backups import restoring, saving
from remotes import services as remotes
from tests.crashes import installation


def work(seed: int, pipe: int) -> None:
    """For ever."""
    chance = random.Random(seed)
    steps: list[Callable[[], str]] = [_edit, _edit, _back_up, _restore, _rotate, _revoke]
    while True:
        said = chance.choice(steps)()
        os.write(pipe, f"{said}\n".encode())


def _edit() -> str:
    number = remotes.apply(installation.another_text(), path=installation.config(), expected=None, actor="victim")
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
