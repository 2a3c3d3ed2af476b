"""Watching the children that serve: loops that hang, memory that grows, connections that nobody takes.

What a beat means is `vigil`'s to say; this only keeps count, speaks to the children, and says whom to replace. It starts nothing.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mcpserver.lib import control
from mcpserver.supervisor import plan, vigil
from mcpserver.supervisor.children import Child
from mcpserver.supervisor.plan import State
from mcpserver.supervisor.posts import Post
from mcpserver.supervisor.vigil import Patience, Pulse

logger = logging.getLogger("mcpserver.supervisor")


class Watch:
    """`outgrown` is told of a post whose child uses too much memory, until it says that this is being dealt with."""

    def __init__(
        self,
        posts: Sequence[Post],
        outgrown: Callable[[Post], bool],
        monotonic: Callable[[], float],
        patience: Patience,
    ) -> None:
        self._posts = posts
        self._outgrown = outgrown
        self._monotonic = monotonic
        self._patience = patience

    def next_look(self, now: float) -> float | None:
        """When there is something to see at the latest, if there is anybody to look at."""
        return now + self._patience.stalled_after_s / 3 if any(post.spec.beats for post in self._posts) else None

    def heard(self, child: Child, document: dict[str, Any]) -> None:
        """A beat: the loop turns. It also says what else the child accepts on, which is put right here."""
        beat = vigil.read(document)
        child.beat_at = self._monotonic()
        if child.is_stalled:
            child.is_stalled = False
            logger.warning("%s (pid %d) goes on", child.spec.name, child.pid)
        child.beats_over, child.memory_max_mb = vigil.beats_over(child.beats_over, beat), beat.memory_max_mb
        if beat.grace_s is not None:
            child.grace_s = plan.with_farewell(beat.grace_s)
        wanted = {post.spec.number for post in self._posts if post.guardian is child}
        for number in wanted - beat.adopted:
            _tell(child, {"op": "adopt", "number": number})
        for number in beat.adopted - wanted:
            _tell(child, {"op": "release", "number": number})

    def look(self, now: float) -> None:
        for post in self._posts:
            child = post.child
            if child is not None and child.spec.beats and child.state is State.READY:
                self._judge(child, now)
                self._weigh(post, child, now)
            if post.spec.beats:
                self._guard(post)

    def _judge(self, child: Child, now: float) -> None:
        match vigil.pulse(now - child.beat_at, self._patience):
            case Pulse.STALLED if not child.is_stalled:
                child.is_stalled = True
                logger.error("%s (pid %d) does not turn its loop", child.spec.name, child.pid)
            case Pulse.HUNG if child.kill_at is None and not child.was_killed:
                logger.error("%s (pid %d) hangs: told to write down where, and ended", child.spec.name, child.pid)
                child.abort(now + self._patience.abort_grace_s)

    def _weigh(self, post: Post, child: Child, now: float) -> None:
        ago_s = None if post.outgrown_at is None else now - post.outgrown_at
        too_large = vigil.is_too_large(child.beats_over, replaced_ago_s=ago_s, patience=self._patience)
        if too_large and self._outgrown(post):
            limit = f"{child.memory_max_mb:g} MB (MCP_MAX_MEMORY_MB)"
            logger.warning("%s (pid %d) uses more than %s: it is replaced", child.spec.name, child.pid, limit)
            child.beats_over, post.outgrown_at = 0, now

    def _guard(self, post: Post) -> None:
        """Connections of a post whose child cannot take them are a sibling's to take; else they would wait unanswered."""
        guardian = post.guardian
        if post.is_accepting:
            if guardian is not None:
                post.guardian = None
                _tell(guardian, {"op": "release", "number": post.spec.number})
            return
        if guardian is not None and guardian.state is State.READY and not guardian.is_stalled:
            return
        able = (each.child for each in self._posts if each is not post and each.is_accepting)
        post.guardian = next((child for child in able if child and post.spec.number in child.spec.spares), None)
        if post.guardian is not None:
            logger.warning("%s takes the connections of %s", post.guardian.spec.name, post.spec.name)
            _tell(post.guardian, {"op": "adopt", "number": post.spec.number})


def _tell(child: Child, request: dict[str, Any]) -> None:
    """A word that needs no answer: a child that did not hear it says so with its next beat."""
    if child.spec.control is not None:
        with suppress(OSError):
            control.tell(child.spec.control, request)
