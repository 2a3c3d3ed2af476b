"""Listening sockets as the supervisor hands them to the workers: shared by port, clear about a port that is taken, and
such that a client which vanished without a word is noticed."""

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from mcpserver.lib.errors import GatewayError

KEEPALIVE_PROBES = 3
STALE_S = 60.0


def listening_socket(host: str, port: int, backlog: int = 4096, *, sibling: bool = False) -> socket.socket:
    """A socket that listens at `host`:`port`, which others of ours may share (SO_REUSEPORT).

    `sibling` says that one of ours listens there already. Without it a port where anybody listens is refused with
    GatewayError `port_taken`: SO_REUSEPORT alone would let a second gateway of the same user share it in silence.
    """
    family, address = _address(host, port)
    if not sibling:
        _require_free(family, address, host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        notice_vanished_clients(listener)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _refusal(error, host, port) from None
    return listener


def notice_vanished_clients(listener: socket.socket, stale_s: float = STALE_S) -> None:
    """Connections end when nothing was acknowledged for so long. Set on the listener, inherited by each that it accepts.

    A client that has nothing to read is asked after half of that, thrice: a healthy one answers and lives on.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Linux and BSD know these; elsewhere the system's own keep-alive times stay.
    for name, value in (
        ("TCP_KEEPIDLE", max(1, round(stale_s / 2))),
        ("TCP_KEEPINTVL", max(1, round(stale_s / 2 / KEEPALIVE_PROBES))),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", round(stale_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]:
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refusal(error, host, port) from None
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]


def _require_free(
    family: socket.AddressFamily, address: tuple[str, int] | tuple[str, int, int, int], host: str, port: int
) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _refusal(error, host, port) from None


def _refusal(error: OSError, host: str, port: int) -> GatewayError:
    where = f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return GatewayError("port_taken", f"{where} is already in use", hint="stop what listens there, or set PORT")
        case errno.EACCES | errno.EPERM:
            return GatewayError("port_forbidden", f"{where} may not be used by this user", hint="use a PORT above 1023")
        case _:
            return GatewayError(
                "bad_address", f"cannot listen at {where}: {error.strerror}", hint="check HOST and PORT"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def listener_at(port: int) -> int | None:
    """Who listens there, from /proc: psutil is not installed yet. None when this user may not know."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(Path(table))[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # Not Linux, or no IPv6.
        return []
