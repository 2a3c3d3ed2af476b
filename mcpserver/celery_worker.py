"""The Celery worker as the supervisor runs it: `python -m mcpserver.celery_worker --ready-fd N`.

One process, a threads pool, beat as a thread of a bootstep. TERM ends it warmly: no task is started any more, those that run
end by themselves (each has its own deadline) or with the process. Being ready does not wait for Redis: a broker that is away
is retried, and the gateway serves meanwhile.
"""

import argparse
import json
import logging
import os
import threading
import warnings
from typing import Any

from mcpserver.lib import log
from mcpserver.lib.errors import Exit

# With a broker that answers, the worker is ready in about two seconds.
BROKER_PATIENCE_S = 3.0
# And ends in one.
GOODBYE_S = 3.0

# Celery tells of every tick that was sent, received and done: thousands of lines a day that say nothing.
TICKING = ("celery.beat", "celery.worker.strategy", "celery.app.trace")

logger = logging.getLogger("mcpserver.celery")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="celery_worker")
    parser.add_argument("--ready-fd", type=int)
    ready_fd: int | None = parser.parse_args(argv).ready_fd
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mcpserver.settings")
    try:
        return _serve(_Readiness(ready_fd))
    except Exception as error:  # The reason must reach whoever waits at the pipe.
        words = {"ok": False, "error": "worker_failed", "message": f"celery: {type(error).__name__}: {error}"}
        _Readiness(ready_fd).tell(words)
        raise


def _serve(readiness: "_Readiness") -> int:
    import django

    django.setup()
    from django.conf import settings

    from mcpserver import celery

    os.environ[celery.IN_WORKER] = str(os.getpid())
    limits = settings.LIMITS
    log.start(
        "worker",
        settings.MCP_LOG_DIR,
        max_bytes=limits.log_max_bytes,
        files=limits.log_files,
        level=settings.LOG_LEVEL,
        target=settings.MCP_LOG_TARGET,
    )
    if logging.getLogger().level > logging.DEBUG:
        for name in TICKING:
            logging.getLogger(name).setLevel(logging.WARNING)
    # Its messages are JSON of our own making; a container's root is nobody's root.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    try:
        return _work(celery.app, celery.THREADS, readiness, broker=settings.REDIS_URL)
    finally:
        log.stop()


def _work(app: Any, threads: int, readiness: "_Readiness", *, broker: str) -> int:
    from celery.signals import worker_ready

    app.set_default()
    app.steps["worker"].add(beat_step())
    impatience = threading.Timer(BROKER_PATIENCE_S, readiness.tell, [{"ok": True, "broker": "unreachable"}])
    impatience.daemon = True
    app.loader.import_default_modules()  # A task that cannot be imported is a reason not to start, not to be retried.
    if broker:
        impatience.start()

    def when_ready(**_: object) -> None:
        impatience.cancel()
        readiness.tell({"ok": True, "broker": "redis" if broker else "memory"})

    worker_ready.connect(when_ready, weak=False)
    threading.Thread(target=_leave_when_told, args=(broker,), name="leave", daemon=True).start()
    worker = app.Worker(
        pool="threads",
        concurrency=threads,
        loglevel=logging.getLevelName(logging.getLogger().level),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or Exit.DONE)


def _leave_when_told(broker: str) -> None:
    """Celery waits for its broker before it ends, which may be away for long: once no task runs, nothing is worth that."""
    from celery.worker import state

    pause = threading.Event()
    while state.should_stop is None or state.active_requests:
        pause.wait(0.2)
    pause.wait(GOODBYE_S)
    if broker:
        logger.warning("ended without a goodbye to the broker, which does not answer")
    log.stop()
    os._exit(Exit.DONE)


def beat_step() -> type:
    """Beat in the worker's own process: it cannot outlive it, and cannot double its schedule."""
    from celery import bootsteps
    from celery.beat import EmbeddedService

    class Beat(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
        requires = ("celery.worker.components:Pool",)

        def create(self, worker: Any) -> Any:
            # Embedded, beat reads no `beat_scheduler`: left alone it would write a schedule file where it was started.
            return EmbeddedService(worker.app, thread=True, scheduler_cls=worker.app.conf.beat_scheduler)

        def stop(self, worker: Any) -> None:
            # First of all that stops: nothing new is due while the rest ends.
            if self.obj is not None and self.obj.is_alive():
                self.obj.stop()

    return Beat


class _Readiness:
    """The pipe to the supervisor: one line, once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def tell(self, document: dict[str, Any]) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.write(descriptor, json.dumps(document).encode() + b"\n")
            os.close(descriptor)
        except OSError:
            logger.warning("nobody waits for this worker to be ready")


if __name__ == "__main__":
    raise SystemExit(main())
