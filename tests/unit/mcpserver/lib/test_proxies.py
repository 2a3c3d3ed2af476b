import pytest

from mcpserver.lib.proxies import HEADER, Proxies

OURS = Proxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("127.0.0.1", "10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("fd00::1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1, unknown", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, nonsense, 10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_last_address_that_is_none_of_our_proxies(peer: str, forwarded: str, source: str) -> None:
    assert OURS.source(peer, [(b"host", b"x"), (HEADER, forwarded.encode())]) == source


def test_several_lines_are_one_list_and_a_client_cannot_write_behind_the_proxys_own() -> None:
    assert OURS.source("127.0.0.1", [(HEADER, b"10.0.0.1"), (HEADER, b"198.51.100.1")]) == "198.51.100.1"


def test_a_list_without_end_is_read_from_its_end_only() -> None:
    assert OURS.source("127.0.0.1", [(HEADER, b"198.51.100.1," + b"10.0.0.1," * 100_000 + b"10.0.0.2")]) == "10.0.0.1"


def test_without_proxies_nobody_is_believed() -> None:
    assert not Proxies()
    assert Proxies().source("127.0.0.1", [(HEADER, b"198.51.100.1")]) == "127.0.0.1"


def test_what_is_no_address_is_named() -> None:
    with pytest.raises(ValueError, match=r"MCP_TRUSTED_PROXIES: 'nginx' is not an address or a network"):
        Proxies(["nginx"])
