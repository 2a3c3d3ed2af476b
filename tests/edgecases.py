"""The 24 edge cases of the guide, as data. `@pytest.mark.edge(N)` on a test says that it proves case N.

tests/unit/test_edgecases.py holds this list against the tests, both ways: no test with an unknown case, and no case without a
test unless it is `pending`, which no case is in a release.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EdgeCase:
    number: int
    title: str
    pending: bool = False


EDGE_CASES = (
    EdgeCase(1, "Connection failures"),
    EdgeCase(2, "SSE connection drops"),
    EdgeCase(3, "Connection limits"),
    EdgeCase(4, "Token expiry"),
    EdgeCase(5, "API key rotation"),
    EdgeCase(6, "Timing attacks on keys"),
    EdgeCase(7, "Hot reload during requests"),
    EdgeCase(8, "Invalid configuration"),
    EdgeCase(9, "Missing environment variables"),
    EdgeCase(10, "Memory of long streams"),
    EdgeCase(11, "Log rotation"),
    EdgeCase(12, "Disk full"),
    EdgeCase(13, "Tool name collisions"),
    EdgeCase(14, "Large payloads"),
    EdgeCase(15, "Slow tools"),
    EdgeCase(16, "Invalid answers"),
    EdgeCase(17, "Graceful shutdown"),
    EdgeCase(18, "Health checks"),
    EdgeCase(19, "Dependencies at start and later"),
    EdgeCase(20, "Backup corruption"),
    EdgeCase(21, "Concurrent edits of the configuration"),
    EdgeCase(22, "Clock skew"),
    EdgeCase(23, "Resource exhaustion"),
    EdgeCase(24, "Dependency updates"),
)
