"""The installation whose processes are killed, and what must hold of it at every moment."""

import itertools
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from keys import selectors as keys
from monitoring.backups import folder, restoring
from remotes import selectors, services
from remotes.config import following, load

_TEXT = "version: 1\nmcpServers:\n  r{number}: {{url: http://127.0.0.1:1/mcp}}  # {padding}\n"
TEXTS = tuple(_TEXT.format(number=number, padding="x" * (number * 400)) for number in range(5))
# Ends what an editor saved; the text before may be that of any revision.
SAVED = "# saved "
_next = itertools.count()


def config() -> Path:
    return Path(settings.MCP_CONFIG)


def another_text() -> str:
    return TEXTS[next(_next) % len(TEXTS)]


def wrong(said: list[str]) -> list[str]:
    """What does not hold after a kill; `said`: what the killed process had done."""
    return [*_configuration(said), *_backups(), *_keys(said)]


def _configuration(said: list[str]) -> list[str]:
    """It parses, is the old or the new, and starts: file and head are brought together as a start does."""
    text, head = config().read_text(), selectors.head()
    snapshot, problems = load.parse(text, {}, config().parent)
    if snapshot is None or head is None:
        return [f"the file cannot be read: {problems}"]
    if text not in (head[2], selectors.revision_text(head[0] - 1)) and SAVED not in text:
        return [f"the file holds what nobody wrote: {text[:200]!r}"]
    promised = max((int(line.split()[1]) for line in said if line.startswith("applied")), default=0)
    if head[0] < promised:
        return [f"revision {promised} was made, and {head[0]} is the last"]
    following.forget()
    started = services.bootstrap(config())
    head = selectors.head()
    if head is None or head[2] != config().read_text():
        return ["file and head differ after a start"]
    left = [f"left behind: {path.name}" for path in config().parent.glob(".mcp-config*.tmp")]
    return left + [f"a start warns: {one.message}" for one in started.warnings]


def _backups() -> list[str]:
    with folder.locked(settings.MCP_BACKUP_DIR):
        left = [path.name for path in settings.MCP_BACKUP_DIR.glob(".*.tmp")]
    every = [one.path for one in folder.kept(settings.MCP_BACKUP_DIR)]
    latest = settings.MCP_BACKUP_DIR / folder.LATEST
    judged = restoring.verified([*every, *([latest] if latest.exists() else [])])
    return [f"left behind: {name}" for name in left] + [str(one) for one in judged if not one["ok"]]


def _keys(said: list[str]) -> list[str]:
    status = {key["id"]: key["status"] for key in keys.list_keys(datetime.now(UTC), ended=True)}
    promised = [line.split() for line in said]
    made = {words[1] for words in promised if words[0] == "generated"}
    ended = {words[1] for words in promised if words[0] == "revoked"}
    lost = [f"key {key_id} is lost" for key_id in (made | ended) - status.keys()]
    audited = {(event["event"], event["key_id"]) for event in keys.audit(limit=1_000_000)}
    untold = [f"key {key_id} was made and not audited" for key_id in status if ("generated", key_id) not in audited]
    return (
        lost + untold + [f"revoked key {key_id} is {status[key_id]}" for key_id in ended if status[key_id] != "revoked"]
    )
