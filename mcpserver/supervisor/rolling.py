"""Replacing what runs, one post after the other: the new child is ready before the old one is told to drain.

Knows the order of things and nothing of processes: whoever starts, drains and answers is handed in.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mcpserver.supervisor.children import Child
from mcpserver.supervisor.door import Reply
from mcpserver.supervisor.plan import Spec
from mcpserver.supervisor.posts import Post


class Crew(Protocol):
    """Who carries it out."""

    def start(self, spec: Spec) -> Child: ...

    def fill(self, post: Post) -> None: ...

    def refill(self, post: Post) -> None: ...

    def cannot_spawn(self, post: Post, error: OSError) -> None: ...


class Rolling:
    """A restart under way: the posts that are still to be replaced, and who waits for the end of it."""

    def __init__(
        self, posts: Sequence[Post], crew: Crew, monotonic: Callable[[], float], reply: Reply | None = None
    ) -> None:
        self.is_over = False
        self.current: Post | None = None
        self._waiting = list(posts)
        self._crew = crew
        self._monotonic = monotonic
        self._reply = reply
        self._began_at = monotonic()
        self._leaving: Child | None = None

    def go_on(self) -> None:
        """Take the next step, if the last one is done."""
        if self.is_over or self._leaving is not None or (self.current and not self.current.is_held):
            return
        if not self._waiting:
            self.is_over = True
            return
        post = self.current = self._waiting.pop(0)
        if post.child is None or not post.spec.overlap:
            self._replace_after(post)
            return
        try:
            post.successor = self._crew.start(post.spec)
        except OSError as error:
            self._crew.cannot_spawn(post, error)

    def succeeded(self, predecessor: Child) -> None:
        """The successor is ready and has the post."""
        self._leaving = predecessor
        predecessor.drain(self._monotonic())

    def left(self, post: Post, child: Child) -> None:
        """A child that was told to drain has ended."""
        if self._leaving is child:
            self._leaving = None
            if post.child is None:
                self._replace_after(post)

    def end(self, document: dict[str, Any]) -> None:
        """Tell who waits how it went."""
        self.is_over = True
        if self._reply is not None:
            self._reply(document | {"took_s": round(self._monotonic() - self._began_at, 3)})

    def _replace_after(self, post: Post) -> None:
        """The old one first: for a post that can be held by one process only, or by none at present."""
        if post.child is not None:
            self._leaving = post.child
            post.child.drain(self._monotonic())
        elif post.record.next_start is not None:  # It had crashed: this is its next start, only sooner.
            self._crew.refill(post)
        else:
            self._crew.fill(post)
