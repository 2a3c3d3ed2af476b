"""Old or new, never a part; one writer at a time, whatever became of the last one."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mcpserver.lib import files
from mcpserver.lib.errors import Exit, GatewayError


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text("old")
    path.chmod(0o640)
    files.write_atomically(path, b"new")
    assert (path.read_text(), path.stat().st_mode & 0o777, names(tmp_path)) == ("new", 0o640, ["it.yaml"])


def test_a_new_file_is_its_owners_alone(tmp_path):
    files.write_atomically(tmp_path / "it.yaml", b"new")
    assert (tmp_path / "it.yaml").stat().st_mode & 0o777 == 0o600


def test_a_symlink_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real/it.yaml", tmp_path / "it.yaml"
    target.write_text("old")
    link.symlink_to(target)
    files.write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_what_is_staged_is_not_seen_until_it_is_published(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text("old")
    staged = files.Staged(path, b"new")
    assert path.read_text() == "old"
    staged.publish()
    assert (path.read_text(), names(tmp_path)) == ("new", ["it.yaml"])


def test_what_is_discarded_leaves_nothing(tmp_path):
    files.Staged(tmp_path / "it.yaml", b"new").discard()
    assert names(tmp_path) == []


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "it.yaml"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_atomically(path, b"new")
    assert names(tmp_path) == ["it.yaml"]


def test_what_a_crash_left_behind_is_swept(tmp_path):
    path = tmp_path / "it.yaml"
    files.Staged(path, b"left behind")
    (tmp_path / ".other.yaml.0.tmp").write_text("not ours")
    files.sweep(path)
    assert names(tmp_path) == [".other.yaml.0.tmp"]


@pytest.mark.edge(21)
def test_a_lock_that_is_held_is_waited_for_a_bounded_time(tmp_path):
    lock = tmp_path / "lock"
    with files.locked(lock), pytest.raises(GatewayError) as raised, files.locked(lock, wait_s=0.05):
        pass
    assert (raised.value.code, raised.value.exit_code) == ("locked", Exit.CONFLICT)
    with files.locked(lock, wait_s=0):
        pass


@pytest.mark.edge(21)
def test_a_dead_holder_blocks_nobody(tmp_path):
    lock = tmp_path / "lock"
    script = "import sys\nfrom mcpserver.lib import files\nfrom pathlib import Path\n"
    script += "with files.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    root = Path(files.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, lock], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(GatewayError), files.locked(lock, wait_s=0):
            pass
        holder.kill()
        holder.wait(10)
    with files.locked(lock, wait_s=5):
        pass


@pytest.mark.edge(21)
def test_threads_under_the_lock_take_turns(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count():
        for _ in range(20):
            with files.locked(tmp_path / "lock"):
                files.write_atomically(counter, str(int(counter.read_text()) + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counter.read_text() == "80"
