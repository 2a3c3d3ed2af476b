"""Files, head and revisions on a real database: what is applied, what is refused, and that nothing is ever lost."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import OperationalError, connections

from mcpserver.lib import files as writing
from mcpserver.lib.errors import Exit, GatewayError
from remotes import selectors, services
from remotes.config import files, following, load, revisions, watching
from remotes.models import ConfigRevision
from remotes.signals import config_changed, config_changing

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]
ONE, TWO, THREE = (f"# {word}\nmcpServers:\n  {word}: {{command: uvx}}\n" for word in ("one", "two", "three"))
BROKEN = "mcpServers: {a: {comand: uvx}}\n"


@dataclass
class SteppedClock:
    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


class Gateway:
    """One process with its own memory of the file, looking at it each second by a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SteppedClock()

    def start(self):
        return services.bootstrap(self.path, {}, clock=self.clock)

    def look(self):
        return services.follow_file(self.path, environment={}, clock=self.clock)

    def looks(self):
        """As many seconds as an edit needs to be taken; the snapshots that came of it."""
        found = []
        for _ in range(3):
            found.append(self.look())
            self.clock.seconds += 1
        return [snapshot for snapshot in found if snapshot]

    def restarted(self):
        following.forget()
        return self.start()


@pytest.fixture(autouse=True)
def fresh_process():
    following.forget()
    yield
    following.forget()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "mcp-config.yaml"
    path.write_text(ONE)
    return path


@pytest.fixture
def gateway(path):
    return Gateway(path)


def apply(text, path, expected=None, actor="test"):
    return services.apply(text, path=path, expected=expected, actor=actor, environment={})


def texts():
    return list(ConfigRevision.objects.values_list("text", flat=True))


def head():
    found = selectors.head()
    assert found is not None
    return found


def good(path):
    return files.last_known_good(path).read_text()


# Starting.


def test_the_first_start_makes_revision_one_and_the_last_known_good(gateway, path):
    snapshot = gateway.start()
    assert (snapshot.revision, list(snapshot.remotes), snapshot.warnings) == (1, ["one"], ())
    assert selectors.head() == (1, load.digest(ONE), ONE)
    assert good(path) == ONE
    assert files.last_known_good(path).stat().st_mode & 0o777 == 0o600


def test_after_a_crash_a_broken_file_is_a_pending_edit_and_the_head_goes_on(gateway, path):
    gateway.start()
    path.write_text(BROKEN)
    following.forget()
    snapshot = services.bootstrap(path, {}, clock=gateway.clock, last_known_good=True)
    assert (snapshot.revision, list(snapshot.remotes)) == (1, ["one"])
    assert [problem["code"] for problem in selectors.pending_error()] == ["unknown_key"]
    path.write_text(TWO)
    assert [list(found.remotes) for found in gateway.looks()] == [["two"]]
    assert selectors.pending_error() is None


def test_after_a_crash_before_the_first_revision_a_broken_file_is_an_error(gateway, path):
    path.write_text(BROKEN)
    with pytest.raises(GatewayError, match="comand"):
        services.bootstrap(path, {}, clock=gateway.clock, last_known_good=True)


def test_a_second_start_changes_nothing(gateway):
    gateway.start()
    assert gateway.restarted().revision == 1
    assert texts() == [ONE]


def test_an_edit_made_while_nothing_ran_is_applied_at_the_start(gateway, path):
    gateway.start()
    path.write_text(TWO)
    assert gateway.restarted().revision == 2


@pytest.mark.edge(8)
def test_an_invalid_file_does_not_start_and_names_file_line_and_cause(gateway, path):
    gateway.start()
    path.write_text(BROKEN)
    with pytest.raises(GatewayError) as raised:
        gateway.restarted()
    assert raised.value.exit_code == Exit.CONFIG
    hint = "did you mean `command`?"
    assert raised.value.document() == {
        "ok": False,
        "error": "invalid_config",
        "message": "mcp-config.yaml:1:18: mcpServers.a.comand: `comand` is not known here",
        "hint": f"{hint}; to start with revision 1 meanwhile: mcpserver start --last-known-good",
        "file": str(path),
        "errors": [
            {
                "path": "mcpServers.a.comand", "line": 1, "column": 18, "code": "unknown_key",
                "message": "`comand` is not known here", "hint": hint,
            }
        ],
        "warnings": [],
    }  # fmt: skip
    assert texts() == [ONE]


def test_a_missing_file_names_the_path_and_what_to_do(gateway, path):
    path.unlink()
    with pytest.raises(GatewayError) as raised:
        gateway.start()
    assert raised.value.code == "invalid_config"
    assert str(path) in raised.value.message
    assert "./start" in raised.value.hint
    assert selectors.head() is None


def test_a_crash_between_commit_and_rename_is_finished_at_the_next_start(gateway, path):
    gateway.start()
    apply(TWO, path)
    path.write_text(ONE)  # the rename did not happen,
    files.last_known_good(path).write_text(ONE)  # nor what comes after it
    assert gateway.restarted().revision == 2
    assert (path.read_text(), good(path)) == (TWO, TWO)


KILLED_BEFORE_THE_RENAME = """
import os, signal, sys, django
from pathlib import Path
django.setup()
from remotes import services
from remotes.config import revisions
commit = revisions.commit
def killed(*words, **more):
    commit(*words, **more)
    os.kill(os.getpid(), signal.SIGKILL)
revisions.commit = killed
services.apply(sys.stdin.read(), path=Path(sys.argv[1]), expected=1, actor="killed")
"""


@pytest.mark.edge(21)
def test_a_process_that_is_killed_between_commit_and_rename_leaves_a_start_that_finishes_it(gateway, path):
    gateway.start()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_THE_RENAME, path], input=TWO, text=True, timeout=60, cwd=ROOT, check=False,
        env=os.environ | {"DATABASE_URL": f"sqlite:///{connections['default'].settings_dict['NAME']}"},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert (head()[0], path.read_text(), good(path)) == (2, ONE, ONE)
    assert gateway.restarted().revision == 2
    assert (path.read_text(), good(path)) == (TWO, TWO)
    assert not list(path.parent.glob("*.tmp"))
    assert not list(path.parent.glob(".*.tmp"))


def test_a_rename_that_fails_after_the_commit_is_made_up_for(gateway, path, monkeypatch):
    gateway.start()

    publish = writing.Staged.publish

    def fail(staged):
        if staged._target == path.resolve():
            raise OSError(5, "Input/output error")
        publish(staged)  # the backup of before

    with monkeypatch.context() as broken:
        broken.setattr(writing.Staged, "publish", fail)
        assert apply(TWO, path) == 2
    assert (path.read_text(), good(path)) == (ONE, ONE)
    assert gateway.look().revision == 2
    assert (path.read_text(), good(path)) == (TWO, TWO)


def test_a_last_known_good_that_was_deleted_is_written_again(gateway, path):
    gateway.start()
    files.last_known_good(path).unlink()
    gateway.restarted()
    assert good(path) == ONE


def test_taking_back_the_last_edit_while_nothing_runs_is_an_edit_and_no_crash(gateway, path):
    gateway.start()
    apply(TWO, path)
    path.write_text(ONE)
    assert gateway.restarted().revision == 3
    assert texts() == [ONE, TWO, ONE]


def test_an_older_revision_in_the_file_is_reported_and_neither_applied_nor_overwritten(gateway, path):
    gateway.start()
    apply(TWO, path)
    apply(THREE, path)
    path.write_text(ONE)
    snapshot = gateway.restarted()
    assert (snapshot.revision, list(snapshot.remotes)) == (3, ["three"])
    assert [warning.code for warning in snapshot.warnings] == ["stale_file"]
    assert gateway.looks() == []
    assert path.read_text() == ONE
    assert len(texts()) == 3


def test_several_processes_that_start_at_once_make_one_revision(path):
    snapshots = []

    def start():
        snapshots.append(services.bootstrap(path, {}))
        connections.close_all()

    in_threads(start, count=8)
    assert [snapshot.revision for snapshot in snapshots] == [1] * 8
    assert texts() == [ONE]


# Applying.


def test_an_applied_text_is_head_file_and_last_known_good(gateway, path):
    gateway.start()
    assert apply(TWO, path, expected=1, actor="somebody") == 2
    assert (head()[2], path.read_text(), good(path)) == (TWO, TWO, TWO)
    assert ConfigRevision.objects.get(number=2).actor == "somebody"


def test_the_same_text_again_is_no_revision(gateway, path):
    gateway.start()
    assert apply(ONE, path, expected=7) == 1


@pytest.mark.edge(21)
def test_a_change_that_is_based_on_an_older_revision_loses_and_changes_nothing(gateway, path):
    gateway.start()
    apply(TWO, path, expected=1)
    with pytest.raises(GatewayError) as raised:
        apply(THREE, path, expected=1)
    assert raised.value.document() == {
        "ok": False,
        "error": "conflict",
        "message": "revision 1 was expected, revision 2 runs",
        "hint": "read the configuration again and repeat the change",
        "expected": 1,
        "revision": 2,
    }
    assert raised.value.exit_code == Exit.CONFLICT
    assert path.read_text() == TWO


def test_an_invalid_text_changes_nothing(gateway, path):
    gateway.start()
    with pytest.raises(GatewayError, match="comand"):
        apply(BROKEN, path)
    assert (path.read_text(), texts()) == (ONE, [ONE])


@pytest.mark.parametrize("edit", [BROKEN, TWO])
def test_an_edit_that_is_not_applied_is_never_overwritten(gateway, path, edit):
    gateway.start()
    path.write_text(edit)
    with pytest.raises(GatewayError) as raised:
        apply(THREE, path)
    assert raised.value.code == "unapplied_edit"
    assert (path.read_text(), texts()) == (edit, [ONE])


def test_whoever_objects_before_a_change_stops_it_whole(gateway, path):
    gateway.start()

    def object_to_it(number, text, **_):
        assert (number, text) == (1, ONE)
        raise GatewayError("disk_full", "no backup, no change")

    config_changing.connect(object_to_it)
    try:
        with pytest.raises(GatewayError, match="no backup"):
            apply(TWO, path)
    finally:
        config_changing.disconnect(object_to_it)
    assert (path.read_text(), texts()) == (ONE, [ONE])
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        ".mcp-config.backup.yaml", ".mcp-config.yaml.lock", "mcp-config.yaml",
    ]  # fmt: skip


def test_the_news_is_sent_once_the_change_is_made_and_cannot_unmake_it(gateway, path):
    gateway.start()
    heard = []

    def listen(number, **_):
        heard.append((number, head()[0]))
        raise RuntimeError("a listener's own trouble")

    config_changed.connect(listen)
    try:
        assert apply(TWO, path) == 2
    finally:
        config_changed.disconnect(listen)
    assert heard == [(2, 2)]


def test_a_revision_can_be_neither_changed_nor_deleted(gateway):
    gateway.start()
    revision = ConfigRevision.objects.get(number=1)
    for forbidden in (
        revision.save, revision.delete, ConfigRevision.objects.all().delete,
        lambda: ConfigRevision.objects.filter(number=1).update(text="x"),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            forbidden()


@pytest.mark.edge(21)
def test_eight_threads_that_edit_at_once_lose_nothing(gateway, path):
    gateway.start()

    def add(name):
        while True:
            number, _, text = head()
            try:
                apply(f"{text}  {name}: {{command: uvx}}\n", path, expected=number)
                break
            except GatewayError as error:
                assert error.code == "conflict"  # noqa: PT017
        connections.close_all()

    in_threads(add, count=8, name="t")
    snapshot, problems = load.parse(path.read_text(), {}, path.parent)
    assert problems == []
    assert snapshot is not None
    assert sorted(snapshot.remotes) == ["one", *(f"t{n}" for n in range(8))]
    assert head()[0] == 9
    assert head()[2] == path.read_text() == good(path)


# Following.


@pytest.mark.edge(7)
def test_an_edit_is_taken_once_it_has_been_still_for_400_ms(gateway, path):
    gateway.start()
    path.write_text(TWO)
    assert gateway.look() is None
    gateway.clock.seconds += 0.39
    assert gateway.look() is None
    gateway.clock.seconds += 0.02
    snapshot = gateway.look()
    assert (snapshot.revision, list(snapshot.remotes)) == (2, ["two"])
    assert gateway.looks() == []


@pytest.mark.edge(7)
def test_a_file_that_is_still_being_written_is_not_read(gateway, path):
    gateway.start()
    for length in range(10, len(TWO), 10):
        path.write_text(TWO[:length])
        assert gateway.look() is None
        gateway.clock.seconds += 0.3
    assert texts() == [ONE]


@pytest.mark.edge(8)
def test_an_invalid_edit_changes_nothing_and_is_shown_until_it_is_mended(gateway, path):
    gateway.start()
    path.write_text(BROKEN)
    assert gateway.looks() == []
    assert [problem["code"] for problem in selectors.pending_error() or ()] == ["unknown_key"]
    assert (texts(), path.read_text(), good(path)) == ([ONE], BROKEN, ONE)
    path.write_text(TWO)
    assert [snapshot.revision for snapshot in gateway.looks()] == [2]
    assert selectors.pending_error() is None


def test_a_reload_takes_the_head_at_once_and_ends_what_was_pending(gateway, path):
    gateway.start()
    path.write_text(BROKEN)
    gateway.looks()
    assert selectors.pending_error()
    path.write_text(TWO)
    services.take(path, actor="test", environment={})
    snapshot = services.reload(path, environment={}, clock=gateway.clock)
    assert (snapshot.revision, list(snapshot.remotes), selectors.pending_error()) == (2, ["two"], None)
    assert gateway.looks() == []


@pytest.mark.edge(9)
def test_a_reload_reads_the_files_that_hold_secrets_anew(gateway, path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("one")
    path.write_text(f"mcpServers: {{a: {{url: 'http://127.0.0.1:9/', headers: {{X-Key: '${{file:{secret}}}'}}}}}}\n")
    assert gateway.start().remotes["a"].headers == {"X-Key": "one"}
    secret.write_text("two")
    snapshot = services.reload(path, environment={}, clock=gateway.clock)
    assert (snapshot.revision, snapshot.remotes["a"].headers) == (1, {"X-Key": "two"})


def test_a_file_that_vanishes_is_a_pending_error_and_its_return_ends_it(gateway, path):
    gateway.start()
    path.unlink()
    assert gateway.looks() == []
    assert [problem["code"] for problem in selectors.pending_error() or ()] == ["file_missing"]
    path.write_text(ONE)
    assert gateway.looks() == []
    assert selectors.pending_error() is None


def test_going_back_to_an_older_text_while_it_runs_is_an_edit(gateway, path):
    gateway.start()
    apply(TWO, path)
    assert [snapshot.revision for snapshot in gateway.looks()] == [2]
    path.write_text(ONE)
    assert [snapshot.revision for snapshot in gateway.looks()] == [3]
    assert texts() == [ONE, TWO, ONE]


def test_a_touched_file_is_no_edit(gateway, path):
    gateway.start()
    path.touch()
    assert gateway.looks() == []
    assert texts() == [ONE]


def test_a_change_by_a_command_reaches_a_running_process(gateway, path):
    gateway.start()
    apply(TWO, path)
    assert gateway.look().revision == 2
    assert gateway.looks() == []


def test_all_workers_see_an_edit_and_make_one_revision_of_it(gateway, path):
    gateway.start()
    workers = [following.following(path, gateway.clock)]
    path.write_text(TWO)
    seen = []
    for _ in range(3):  # one after the other, each with a memory of its own, as processes have
        following.forget()
        worker = Gateway(path)
        state = following.following(path, worker.clock)
        state.number, state.in_step = workers[0].number, workers[0].in_step
        seen += [snapshot.revision for snapshot in worker.looks()]
    assert seen == [2, 2, 2]
    assert texts() == [ONE, TWO]


def elsewhere(text, tmp_path, expected):
    """Another machine with a file of its own changes the configuration."""
    folder = tmp_path / "elsewhere"
    folder.mkdir(exist_ok=True)
    other = folder / "mcp-config.yaml"
    other.write_text(head()[2])
    return apply(text, other, expected=expected)


def test_the_file_follows_a_change_from_another_machine(gateway, path, tmp_path):
    gateway.start()
    elsewhere(TWO, tmp_path, expected=1)
    assert gateway.look().revision == 2
    assert (path.read_text(), good(path)) == (TWO, TWO)
    assert gateway.looks() == []


def test_an_edit_beside_a_change_from_another_machine_is_reported_and_the_next_one_counts(gateway, path, tmp_path):
    gateway.start()
    path.write_text(THREE)
    elsewhere(TWO, tmp_path, expected=1)
    assert [snapshot.revision for snapshot in gateway.looks()] == [2]
    assert [problem["code"] for problem in selectors.pending_error() or ()] == ["conflict"]
    assert (path.read_text(), texts()) == (THREE, [ONE, TWO])
    path.write_text(THREE + "# I know\n")
    assert [snapshot.revision for snapshot in gateway.looks()] == [3]
    assert texts() == [ONE, TWO, THREE + "# I know\n"]


def test_a_file_that_is_held_by_another_writer_follows_a_second_later(gateway, path, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "FOLLOW_WAIT_S", 0.01)
    gateway.start()
    elsewhere(TWO, tmp_path, expected=1)
    with files.exclusive(path):
        assert gateway.look().revision == 2
        assert path.read_text() == ONE
    assert gateway.look() is None
    assert path.read_text() == TWO


def test_a_configuration_where_nothing_can_be_written_is_watched_and_applied(gateway, path, monkeypatch):
    """Staging and locking fail as they do on a read-only mount; the edit itself comes from outside."""
    gateway.start()

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(writing, "Staged", refuse)
    monkeypatch.setattr(writing, "locked", refuse)
    path.write_text(TWO)
    assert [snapshot.revision for snapshot in gateway.looks()] == [2]
    with pytest.raises(GatewayError) as raised:
        apply(THREE, path)
    assert raised.value.code == "read_only"
    assert (path.read_text(), texts()) == (TWO, [ONE, TWO])


def test_an_edit_that_the_database_could_not_take_is_taken_when_it_can(gateway, path, monkeypatch):
    gateway.start()
    path.write_text(TWO)
    gateway.look()
    gateway.clock.seconds += 1

    def refuse(*_, **__):
        raise OperationalError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(revisions, "commit", refuse)
        with pytest.raises(OperationalError):
            gateway.look()
    assert gateway.look().revision == 2


def test_a_configuration_behind_symlinks_is_followed_when_they_are_swapped(gateway, path, tmp_path):
    """How Kubernetes updates a mounted ConfigMap: ..data is renamed to point at another folder."""
    for name, text in (("first", ONE), ("second", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / path.name).write_text(text)
    path.unlink()
    (tmp_path / "..data").symlink_to("first")
    path.symlink_to(f"..data/{path.name}")
    gateway.start()
    (tmp_path / "..new").symlink_to("second")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert [snapshot.revision for snapshot in gateway.looks()] == [2]
    assert path.is_symlink()


# Health.


def test_the_last_probe_of_a_remote_is_remembered_with_its_last_success():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    services.record_health(
        "a", status="healthy", checked_at=at, latency_ms=1.5, tools=3, era="2026-07-28", transport="http"
    )
    later = datetime(2026, 1, 2, tzinfo=UTC)
    services.record_health("a", status="unhealthy", checked_at=later, phase="tcp", error="refused")
    assert selectors.health() == {
        "a": {
            "status": "unhealthy", "checked_at": later, "latency_ms": 1.5, "era": "2026-07-28", "transport": "http",
            "tools": 3, "phase": "tcp", "error": "refused", "last_ok_at": at,
        }
    }  # fmt: skip


def in_threads(work, *, count, name=None):
    failures = []

    def run(number):
        try:
            work(*([f"{name}{number}"] if name else []))
        except BaseException as error:
            failures.append(error)
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
