import os
import subprocess
import sys

from mcpserver.lib import usage
from mcpserver.lib.usage import Usage


def test_this_process_uses_memory_and_files_and_the_cpu_it_burns_is_seen() -> None:
    watched = Usage()
    before = os.times().user
    while os.times().user - before < 0.2:
        sum(range(10_000))
    used = watched.read()
    assert used.rss_mb > 10
    assert used.open_files > 2
    assert used.cpu_percent > 5


def test_a_process_that_is_gone_is_nothing_to_measure() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=30)
    assert usage.of(gone.pid) is None
    assert usage.of(os.getpid(), over_s=0.01) is not None
