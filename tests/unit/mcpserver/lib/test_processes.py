import pytest

from mcpserver.lib.processes import how_it_ended


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal KILL"), (-64, "signal RTMAX"), (-99, "signal 99")],
)
def test_an_exit_reads_as_an_operator_would_say_it(status, words):
    assert how_it_ended(status) == words
