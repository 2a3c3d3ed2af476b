"""Listening sockets on real ports."""

import socket

import pytest

from mcpserver.lib.errors import GatewayError
from mcpserver.lib.sockets import STALE_S, listening_socket, notice_vanished_clients


def test_it_listens_at_once():
    with listening_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), 5) as client:
        client.send(b"x")
        assert listener.getblocking() is False


def test_siblings_share_a_port():
    with listening_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listening_socket("127.0.0.1", port, sibling=True) as second:
            assert second.getsockname() == first.getsockname()


@pytest.mark.parametrize("other_shares", [False, True])
def test_a_port_that_somebody_listens_on_is_refused_by_name(other_shares: bool):
    with socket.socket() as other:
        if other_shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(GatewayError) as refused:
            listening_socket("127.0.0.1", port)
    assert refused.value.document() == {
        "ok": False,
        "error": "port_taken",
        "message": f"127.0.0.1:{port} is already in use",
        "hint": "stop what listens there, or set PORT",
    }


def test_a_port_just_left_can_be_taken_again():
    with listening_socket("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, 5):
            listener.setblocking(True)
            listener.accept()[0].close()
    listening_socket(*address).close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_is_served(host: str):
    try:
        listener = listening_socket(host, 0)
    except GatewayError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener:
        assert listener.family is socket.AF_INET6


def test_an_address_that_is_not_ours_is_refused_in_words():
    with pytest.raises(GatewayError) as refused:
        listening_socket("192.0.2.1", 3000)
    assert refused.value.code == "bad_address"
    assert "192.0.2.1:3000" in refused.value.message


@pytest.mark.edge(2)
@pytest.mark.parametrize(
    ("stale_s", "set_to"), [(60, [30, 10, 3, 60_000]), (3, [2, 1, 3, 3000]), (0.5, [1, 1, 3, 500])]
)
def test_connections_inherit_that_a_vanished_client_is_noticed(stale_s: float, set_to: list[int]):
    with listening_socket("127.0.0.1", 0) as listener:
        if stale_s != STALE_S:
            notice_vanished_clients(listener, stale_s)
        client = socket.create_connection(listener.getsockname(), 5)
        listener.setblocking(True)
        accepted = listener.accept()[0]
    with accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        found = [accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options]
        assert found == set_to
    client.close()
