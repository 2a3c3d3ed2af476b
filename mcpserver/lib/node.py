"""What this machine is called: in ids, and in the name of its queue. Whoever shares a run folder is on one machine."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

CHARS = 6
_FILE = "node"


def known(run_dir: Path) -> str | None:
    """The name, where it has been made."""
    path = run_dir / _FILE
    return path.read_text() if path.exists() else None


def name(run_dir: Path) -> str:
    """Made once, and shared by all processes that use the folder."""
    path = run_dir / _FILE
    if path.exists():  # looked at first: on a full disk a worker comes back without writing
        return path.read_text()
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = secrets.token_urlsafe(CHARS)[:CHARS]
    draft = run_dir / f"{_FILE}.{made}"
    draft.write_text(made)
    with suppress(FileExistsError):
        os.link(draft, path)  # the first wins, and nobody reads half a name
    draft.unlink()
    return path.read_text()
