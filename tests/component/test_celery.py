"""Celery as it is configured: with memory alone, with Redis, and from a process that is no worker."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcpserver import celery
from tests.component.real_gateway import until

ROOT = Path(__file__).resolve().parents[2]
LOUD_TASK = """
import os, django; django.setup()
assert "celery" not in __import__("sys").modules
from celery import shared_task
@shared_task
def give(x): return x * 2
@shared_task
def fail(): raise ValueError("loud")
print(give.delay(21).get())
try: fail.delay()
except ValueError as error: print(error)
"""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    mine = {
        "SECRET_KEY": "x" * 50,
        "DJANGO_SETTINGS_MODULE": "mcpserver.settings",
        "PYTHONPATH": str(ROOT),
        "MCP_DATA_DIR": str(tmp_path / "data"),
        "MCP_LOG_DIR": str(tmp_path / "logs"),
        "MCP_RUN_DIR": str(tmp_path / "run"),
        "REDIS_URL": "",
    }
    return {**os.environ, **mine, **more}


def test_every_scheduled_task_exists_and_is_dropped_when_the_next_is_due():
    import importlib

    for module in celery.task_modules():
        importlib.import_module(module)
    schedule = celery.app.conf.beat_schedule
    assert set(schedule) == set(celery.SCHEDULE)
    assert [name for name in schedule if name not in celery.app.tasks] == []
    assert all(entry["options"]["expires"] == entry["schedule"].seconds for entry in schedule.values())


def test_without_redis_only_the_worker_reads_the_broker():
    elsewhere = celery.configuration("", in_worker=False)
    assert (elsewhere["broker_url"], elsewhere["task_always_eager"]) == ("memory://localhost/", True)
    assert celery.configuration("", in_worker=True)["task_always_eager"] is False


def test_with_redis_tasks_are_sent_and_acknowledged_late():
    configured = celery.configuration("redis://host/1", in_worker=False)
    assert configured["broker_url"] == "redis://host/1"
    assert "task_always_eager" not in configured
    assert configured["task_acks_late"] is True


def test_a_task_sent_by_a_command_runs_at_once_and_fails_loudly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOUD_TASK],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["42", "loud"], done.stderr


HOLDING_TASKS = """
import os, pathlib, sys, threading, time
from celery.worker import state
from mcpserver import celery, celery_worker

here = pathlib.Path(sys.argv.pop())
celery.SCHEDULE.clear()
celery.SCHEDULE["tick"] = 0.1
celery.THREADS = 2

def note(word):
    with (here / "ran").open("a") as file: file.write(word + "\\n")

@celery.app.task(name="tick")
def tick():
    if not (here / "hold").exists(): return note("quick")
    note("begun")
    while not (here / "go").exists(): time.sleep(0.02)
    note("ended")

def tell():
    while state.should_stop is None: time.sleep(0.02)
    (here / "told").touch()

threading.Thread(target=tell, daemon=True).start()
sys.exit(celery_worker.main(sys.argv[1:]))
"""


@pytest.mark.edge(17)
def test_tasks_on_the_schedule_run_until_term_after_which_none_begins_and_those_that_run_end(tmp_path):
    here = tmp_path / "here"
    for folder in (tmp_path / "data", here):
        folder.mkdir()
    ran = tmp_path / "ran"
    reader, writer = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, "-c", HOLDING_TASKS, "--ready-fd", str(writer), str(tmp_path)],
        cwd=here,
        env=environment(tmp_path),
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
    )
    os.close(writer)

    def counted(word: str) -> int:
        return ran.read_text().split().count(word) if ran.exists() else 0

    try:
        assert select.select([reader], [], [], 30)[0]
        assert json.loads(os.read(reader, 4096)) == {"ok": True, "broker": "memory"}
        until(lambda: counted("quick") >= 2)
        (tmp_path / "hold").touch()
        until(lambda: counted("begun") == 2)  # and ticks are due that wait for a thread
        worker.send_signal(signal.SIGTERM)
        until((tmp_path / "told").exists)
        (tmp_path / "go").touch()
        assert worker.wait(15) == 0
        assert (counted("begun"), counted("ended")) == (2, 2)
        assert list(here.iterdir()) == []  # Not even a schedule.
    finally:
        worker.kill()
        worker.wait()
        os.close(reader)


def test_a_broker_that_is_away_does_not_keep_the_worker_from_being_ready(tmp_path):
    (tmp_path / "data").mkdir()
    reader, writer = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, "-m", "mcpserver.celery_worker", "--ready-fd", str(writer)],
        cwd=ROOT,
        env=environment(tmp_path, REDIS_URL="redis://127.0.0.1:1/0"),
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        assert select.select([reader], [], [], 30)[0]
        assert json.loads(os.read(reader, 4096)) == {"ok": True, "broker": "unreachable"}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(15) == 0, "nor from ending"
    finally:
        worker.kill()
        worker.wait()
        os.close(reader)


def test_a_worker_that_cannot_import_its_tasks_says_why(tmp_path):
    script = """
import sys
from mcpserver import celery, celery_worker
celery.task_modules = lambda: ("no.such.tasks",)
sys.exit(celery_worker.main(["--ready-fd", "1"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout.splitlines()[0]) == {
        "ok": False,
        "error": "worker_failed",
        "message": "celery: ModuleNotFoundError: No module named 'no'",
    }
    assert done.returncode == 1
