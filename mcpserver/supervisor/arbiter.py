"""The supervisor's one loop: keeps a child at every post, until it is told to stop.

Signals, ready pipes, exits and control requests all arrive here, in one thread, as callbacks of one selector; what follows from
them is `plan`'s to say. It serves no request, opens no database and knows no child by name: what runs is a list of `Spec`.

    booting    every post gets its child; the first that cannot start ends all, with its own reason
    serving    a child that ends is started again after a backoff; one that hangs is ended, one that grew too large replaced;
               `restart` replaces one after the other
    stopping   the sockets are closed, everyone is told to end, and killed when the grace is over or a second signal comes
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcpserver.lib.errors import Exit
from mcpserver.lib.processes import how_it_ended
from mcpserver.supervisor import door, notify, orphans, plan, signals
from mcpserver.supervisor.children import Child, spawn
from mcpserver.supervisor.door import Door, Reply
from mcpserver.supervisor.ledger import Ledger
from mcpserver.supervisor.notify import Notifier
from mcpserver.supervisor.orphans import Orphans
from mcpserver.supervisor.plan import Phase, Spec, State
from mcpserver.supervisor.posts import Post
from mcpserver.supervisor.rolling import Rolling
from mcpserver.supervisor.stopping import Stopping
from mcpserver.supervisor.vigil import Patience
from mcpserver.supervisor.watch import Watch

logger = logging.getLogger("mcpserver.supervisor")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
# How often the living workers' descendants are noted; what was spawned since is found through the subreaper.
RECORD_EVERY_S = 5.0
# A child that said why it cannot start is given this long to leave.
LAST_WORDS_S = 5.0


class Arbiter:
    """`facts` (the url) go into every document; `announce` is called once, with the document that says all is ready."""

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        sockets: Sequence[socket.socket],
        run_dir: Path,
        environment: Mapping[str, str],
        announce: Callable[[dict[str, Any]], None],
        facts: Mapping[str, Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._posts = [Post(spec) for spec in specs]
        self._sockets = list(sockets)
        self._run_dir = run_dir
        self._notifier = Notifier(environment)
        self._environment = {name: value for name, value in environment.items() if name not in notify.VARIABLES}
        self._announce = announce
        self._facts = dict(facts or {})
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._orphans = Orphans()
        self._ledger = Ledger()
        self._children: dict[int, Child] = {}
        self._rolling: Rolling | None = None
        self._watch = Watch(self._posts, self._outgrown, self._monotonic, patience)
        self._stopping: Stopping | None = None
        self._is_announced = False
        self._began_at = self._monotonic()
        self._started_at = datetime.now(UTC)
        self._due: dict[str, float] = {"record": 0.0, "watchdog": 0.0}

    # The loop.

    def run(self) -> int:
        """Until stopped; the exit code, or GatewayError with a child's own reason when it could not start."""
        orphans.become_subreaper()
        try:
            with signals.read(self._selector, SIGNALS, self._on_signal), self._control():
                for post in self._posts:
                    self.fill(post)
                while not self._is_over():
                    for key, _ in self._selector.select(self._patience()):
                        key.data()
                    self._tick()
        finally:
            for child in self._children.values():  # Only a bug leaves any: nobody would look after them.
                child.kill()
        assert self._stopping is not None
        return self._stopping.outcome()

    @property
    def phase(self) -> Phase:
        if self._stopping:
            return Phase.STOPPING
        return Phase.SERVING if self._is_announced else Phase.BOOTING

    def _is_over(self) -> bool:
        return self._stopping is not None and not self._children and not self._orphans.still_ending()

    def _tick(self) -> None:
        now = self._monotonic()
        for child in self._children.values():
            if child.kill_at is not None and child.kill_at <= now:
                logger.warning("%s (pid %d) did not %s in time: killed", child.spec.name, child.pid, _duty(child))
                child.kill()
        for post in self._posts:
            if self.phase is Phase.SERVING and post.record.next_start is not None and post.record.next_start <= now:
                self.refill(post)
        if self.phase is Phase.SERVING:
            self._watch.look(now)
        self._orphans.kill_overdue(now)
        if self._due["record"] <= now:
            self._due["record"] = now + RECORD_EVERY_S
            self._orphans.record(self._children)
        if self._notifier.interval_s and self._due["watchdog"] <= now:
            self._due["watchdog"] = now + self._notifier.interval_s
            self._notifier.alive()

    def _patience(self) -> float:
        """Seconds until something is due."""
        now = self._monotonic()
        due = [child.kill_at for child in self._children.values()]
        due += [post.record.next_start for post in self._posts if self.phase is Phase.SERVING]
        due += [self._orphans.next_kill(), self._due["record"], self._watch.next_look(now)]
        due += [self._due["watchdog"]] if self._notifier.interval_s else []
        soonest = min(at for at in due if at is not None)
        patience = max(0.0, soonest - now)
        # Orphans that end by themselves send no signal when they are not our children.
        return min(patience, 0.1) if self._stopping and not self._children else patience

    # Children.

    def fill(self, post: Post, *, again: bool = False) -> None:
        try:
            post.child = self.start(post.spec, again=again)
        except OSError as error:
            self.cannot_spawn(post, error)

    def refill(self, post: Post) -> None:
        post.record = plan.after_restart(post.record)
        self.fill(post, again=True)

    def cannot_spawn(self, post: Post, error: OSError) -> None:
        """No memory, no descriptors, no processes: that passes, or it is the reason not to start."""
        words = f"cannot start a process: {error.strerror}"
        logger.error("%s: %s", post.spec.name, words)
        document = {"ok": False, "error": "child_failed", "message": f"{post.spec.name}: {words}"}
        if self.phase is Phase.BOOTING:
            self._stop(error=document, exit_code=Exit.FAILED)
            return
        if post.child is None:
            now = self._monotonic()
            post.record = plan.after_crash(post.record, now=now, ready_for_s=0.0, how=words, error=document)
        self._end_rolling(document)

    def start(self, spec: Spec, *, again: bool = False) -> Child:
        child = spawn(spec, self._environment, self._monotonic(), again=again)
        self._children[child.pid] = child
        assert child.pipe is not None
        self._selector.register(child.pipe, selectors.EVENT_READ, lambda: self._on_pipe(child))
        logger.info("%s started (pid %d)", spec.name, child.pid)
        return child

    def _on_pipe(self, child: Child) -> None:
        for document in child.heard():
            if child.state is State.STARTING:
                self._on_word(child, document)
            elif isinstance(beat := document.get("beat"), dict):
                self._watch.heard(child, beat)
        if child.has_hung_up:
            self._forget_pipe(child)

    def _on_word(self, child: Child, document: dict[str, Any]) -> None:
        """The first line: it is ready, or why it cannot be."""
        if document.get("ok") is True:
            child.is_ready(self._monotonic(), document)
            logger.info("%s ready (pid %d)", child.spec.name, child.pid)
            self._on_ready(child)
        elif document:
            child.error = document
            child.kill_at = self._monotonic() + LAST_WORDS_S

    def _on_ready(self, child: Child) -> None:
        post = self._post_of(child)
        if post.successor is child:
            post.successor, predecessor, post.child = None, post.child, child
            if self._rolling and predecessor:
                self._rolling.succeeded(predecessor)
        if not self._is_announced and all(each.child and each.child.ready_at for each in self._posts):
            self._is_announced = True
            self._announce(self._document())
            self._notifier.ready(f"serving at {self._facts.get('url', '')}")
        self._roll_on()

    def _on_exit(self, child: Child, status: int) -> None:
        if child.pipe is not None:  # Its last words may still be there.
            self._on_pipe(child)
        self._forget_pipe(child)
        now = self._monotonic()
        was = child.state
        child.reaped(status)
        del self._children[child.pid]
        left = self._orphans.left_by(child.pid, living=self._children, now=now)
        how = how_it_ended(status) + (f", {left} processes left behind" if left else "")
        logger.info("%s (pid %d) ended: %s", child.spec.name, child.pid, how)
        if stacks := child.last_stacks():
            logger.error("%s (pid %d) was here:\n%s", child.spec.name, child.pid, stacks)
        if self._stopping:
            self._stopping.left(child)
        elif not self._is_announced:
            error, exit_code = plan.boot_error(child.spec.name, status, child.error)
            self._stop(error=error, exit_code=exit_code)
        elif was is State.DRAINING:
            self._on_left(child)
        else:
            self._on_crash(child, status)

    def _on_crash(self, child: Child, status: int) -> None:
        now, post = self._monotonic(), self._post_of(child)
        if post.successor is child:
            post.successor = None
            self._end_rolling(plan.boot_error(child.spec.name, status, child.error)[0])
            return
        ready_for_s = child.ready_for_s(now)
        post.record = plan.after_crash(
            post.record, now=now, ready_for_s=ready_for_s, how=how_it_ended(status), error=child.error
        )
        if post.successor is not None:  # Already on its way, and sooner than any backoff.
            post.child, post.successor = post.successor, None
            post.record = plan.after_restart(post.record)
        else:
            post.child = None
            wait_s = plan.backoff_s(post.record.crashes_in_a_row)
            logger.error("%s crashed (%s): again in %g s", child.spec.name, how_it_ended(status), wait_s)
        if self._rolling and self._rolling.current is post and post.child is None:
            self._end_rolling(plan.boot_error(child.spec.name, status, child.error)[0])

    def _forget_pipe(self, child: Child) -> None:
        if child.pipe is not None:
            with suppress(KeyError):
                self._selector.unregister(child.pipe)
            child.close_pipe()

    def _post_of(self, child: Child) -> Post:
        return next(post for post in self._posts if post.spec is child.spec)

    # Restarting, one post after the other.

    def _restart(self, reply: Reply | None) -> None:
        if self.phase is not Phase.SERVING or self._rolling:
            busy = "another restart is under way" if self._rolling else f"the gateway is {self.phase}"
            logger.warning("not restarting: %s", busy)
            if reply:
                reply({"ok": False, "error": "locked", "message": busy})
            return
        self._replace(self._posts, reply)

    def _replace(self, posts: Sequence[Post], reply: Reply | None = None) -> None:
        self._rolling = Rolling(posts, self, self._monotonic, reply)
        self._roll_on()

    def _roll_on(self) -> None:
        rolling = self._rolling
        if rolling is not None:
            rolling.go_on()
            if rolling.is_over:
                self._end_rolling(None)

    def _outgrown(self, post: Post) -> bool:
        """Replace a child that uses too much memory, unless others are being replaced just now."""
        if self._rolling is not None:
            return False
        self._replace([post])
        return True

    def _on_left(self, child: Child) -> None:
        post = self._post_of(child)
        if post.child is child:
            post.child = None
        if self._rolling is not None:
            self._rolling.left(post, child)
        self._roll_on()

    def _end_rolling(self, error: dict[str, Any] | None) -> None:
        rolling, self._rolling = self._rolling, None
        if rolling is None:
            return
        if error:
            logger.error("restart given up: %s", error["message"])
        rolling.end(error or self._document())

    # Stopping.

    def _stop_as_told(self, reply: Reply | None = None) -> None:
        """By an operator. Whoever waits for the start hears that it was interrupted."""
        if self.phase is Phase.BOOTING:
            interrupted = {"error": "interrupted", "message": "stopped before all was ready"}
            self._stop(error=interrupted, exit_code=Exit.INTERRUPTED, reply=reply)
        else:
            self._stop(reply=reply)

    def _stop(self, *, error: dict[str, Any] | None = None, exit_code: int = 0, reply: Reply | None = None) -> None:
        """Begin to stop; asked again it only adds who waits."""
        if self._stopping is None:
            self._stopping = Stopping(self._monotonic(), error, exit_code)
            self._notifier.stopping()
            self._end_rolling({"ok": False, "error": "stopping", "message": "the gateway is stopping"})
            # Every copy must be closed, or the kernel goes on taking connections that nobody will accept.
            for listener in self._sockets:
                listener.close()
            for child in self._children.values():
                child.drain(self._monotonic())
        if reply:
            self._stopping.replies.append(reply)

    # Signals and requests.

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._restart(None)
        elif self._stopping is None:
            logger.info("stopping (%s)", signal.Signals(number).name)
            self._stop_as_told()
        else:
            logger.warning("second signal: ending at once")
            self._stopping.exit_code = self._stopping.exit_code or Exit.INTERRUPTED
            for child in self._children.values():
                child.kill()

    def _reap(self) -> None:
        """Wait for everyone who ended: our children, and the orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if child := self._children.get(pid):
                self._on_exit(child, os.waitstatus_to_exitcode(status))

    def _on_request(self, request: dict[str, Any], reply: Reply) -> None:
        match request.get("op"):
            case "status":
                reply(self._document())
            case "restart":
                self._restart(reply)
            case "stop":
                self._stop_as_told(reply)
            case "counted" if isinstance(workers := request.get("workers"), dict):
                try:
                    reply({"ok": True, "counted": self._ledger.told(workers)})
                except (TypeError, ValueError, KeyError, AttributeError) as error:  # whoever asks cannot end this loop
                    reply(
                        {"ok": False, "error": "bad_request", "message": f"unreadable counts: {type(error).__name__}"}
                    )
            case other:
                reply({"ok": False, "error": "bad_request", "message": f"unknown op: {str(other)[:64]}"})

    def _document(self) -> dict[str, Any]:
        """What `start` prints when all is ready, and `status` whenever it is asked."""
        pids = {post.spec.name: post.child.pid for post in self._posts if post.child}
        now = self._monotonic()
        return {
            "ok": True,
            **self._facts,
            "pids": {"supervisor": os.getpid()} | pids,
            "phase": str(self.phase),
            "started_at": self._started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "uptime_s": round(now - self._began_at, 3),
            "grace_s": max((child.grace_s for child in self._children.values()), default=0.0),
            "children": {post.spec.name: post.described(now) for post in self._posts},
        }

    # Opening and closing.

    @contextmanager
    def _control(self) -> Iterator[None]:
        entrance = Door(self._run_dir / door.NAME, self._selector, self._on_request)
        try:
            yield
        finally:
            if self._stopping:
                for reply in self._stopping.replies:
                    reply(self._stopping.document(self._monotonic()))
            entrance.close()


def _duty(child: Child) -> str:
    return "become ready" if child.state is State.STARTING else "end"
