import pytest

from keys import format
from keys.authenticate import AMBIGUOUS, presented

ONE, TWO = b"mcp_one", b"mcp_two"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"accept", b"*/*")], None),
        ([(b"authorization", b"Bearer mcp_one")], "mcp_one"),
        ([(b"authorization", b"bearer   mcp_one ")], "mcp_one"),
        ([(b"x-api-key", ONE)], "mcp_one"),
        ([(b"x-api-key", ONE), (b"authorization", b"Bearer mcp_one")], "mcp_one"),
        ([(b"x-api-key", ONE), (b"authorization", b"Basic dXNlcg==")], "mcp_one"),
        ([(b"authorization", b"Basic dXNlcg==")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"")], None),
        ([(b"x-api-key", b" ")], None),
        ([(b"x-api-key", ONE), (b"authorization", b"Bearer mcp_two")], AMBIGUOUS),
        ([(b"x-api-key", ONE), (b"x-api-key", TWO)], AMBIGUOUS),
        ([(b"x-api-key", b"\xff\xfe")], "\xff\xfe"),
    ],
)
def test_the_key_of_a_request(headers, key):
    assert presented(headers) == key


def test_two_different_keys_are_no_key_at_all():
    assert format.parse(AMBIGUOUS) == format.GARBAGE
