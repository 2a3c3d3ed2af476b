"""The seam that the gateway sees of its server."""

from gateway import serving
from gateway.serving import lifecycle
from mcpserver.lib.limits import Limits


class Counted:
    def connections(self) -> int:
        return 3

    def in_flight(self) -> int:
        return 2

    def allow(self, connections: int) -> None: ...

    def follow(self, limits: Limits) -> None: ...

    def unsent_bytes(self) -> int:
        return 7

    def adopt(self, number: int) -> None: ...

    def release(self, number: int) -> None: ...

    def adopted(self) -> list[int]:
        return [1]


def test_counts_are_those_of_the_server_that_runs():
    assert (serving.connections(), serving.in_flight(), serving.unsent_bytes()) == (0, 0, 0)
    lifecycle.count_with(Counted())
    try:
        assert (serving.connections(), serving.in_flight(), serving.unsent_bytes()) == (3, 2, 7)
        assert serving.adopted() == [1]
    finally:
        lifecycle.count_with(None)
    assert (serving.connections(), serving.in_flight()) == (0, 0)


def test_a_client_that_left_is_never_taken_for_a_broken_remote():
    assert not issubclass(serving.ClientGone, OSError)
