"""/health and /metrics asked from elsewhere: what the remotes are called is told to who has a key that may know."""

import pytest

from tests.component.real_gateway import Gateway

pytestmark = pytest.mark.edge(18)

# As through a proxy: not from this machine.
ELSEWHERE = ("X-Forwarded-For", "203.0.113.9")


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_a_key_that_sees_everything_is_told_the_names_and_nobody_else_is(gateway: Gateway, path: str) -> None:
    client, narrow = gateway.client(), gateway.client("narrow")
    good = client.bearer[1]
    presented = {
        "nothing": [],
        "the key": [client.bearer],
        "the key in its other header": [("X-API-Key", good.removeprefix("Bearer "))],
        "a key that is narrowed": [narrow.bearer],
        "no key of ours": [("Authorization", "Bearer mcp_nobody")],
        "no key at all": [("Authorization", "Basic eDp5")],
        "two keys": [client.bearer, narrow.bearer],
        "one after the other in one header": [("Authorization", f"{good}, {narrow.bearer[1]}")],
    }
    named = set()
    for who, headers in presented.items():
        reply = client.ask("GET", path, headers=[ELSEWHERE, *headers])
        assert reply.status == 200, who
        if b"demo" in reply.body:
            named.add(who)
    assert named == {"the key", "the key in its other header"}


def test_where_it_makes_no_difference_no_key_is_looked_at(gateway: Gateway) -> None:
    client = gateway.client()

    def refused() -> list[bytes]:
        return [
            line for line in client.ask("GET", "/metrics").body.splitlines() if line.startswith(b"mcp_refused_total")
        ]

    before = refused()
    for path in ("/health/live", "/health/ready", "/nothing"):
        client.ask("GET", path, headers=[ELSEWHERE, ("Authorization", "Bearer mcp_nobody")])
    assert refused() == before
