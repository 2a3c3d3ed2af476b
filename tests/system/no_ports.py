"""A gateway in a network where all local ports towards one remote are taken: `unshare --net python -m tests.system.no_ports`."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
from pathlib import Path

from tests import peers
from tests.component.real_gateway import Client, until
from tests.system import clinging
from tests.system.nodes import installed

RANGE, FEW = Path("/proc/sys/net/ipv4/ip_local_port_range"), "40000 40031"
CALLS = 8  # more than open a circuit


def taken(port: int, stack: contextlib.ExitStack) -> None:
    """Hold every local port from which `port` could be reached."""
    while True:
        peer = stack.enter_context(socket.socket())
        try:
            peer.connect(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return


def text(client: Client, name: str) -> tuple[bool, str]:
    tool = f"{name}__add" if name == "far" else f"{name}__echo"
    arguments = {"a": 1, "b": 2} if name == "far" else {}
    result = client.modern("tools/call", {"name": tool, "arguments": arguments}).result
    return bool(result.get("isError")), str(result["content"][0]["text"])


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with peers.sdk_server("http") as remote, installed({}) as (node, client):
        port = int(remote.url.split(":")[2].split("/")[0])
        entries = {"near": clinging.entry(), "far": {"url": remote.url}}
        from tests.system import gateway

        (node.folder / "mcp-config.yaml").write_text(gateway.configuration(entries))
        node.start("--no-worker")
        assert text(client, "far") == (False, "3.0")
        usual = RANGE.read_text()
        RANGE.write_text(FEW)
        with contextlib.ExitStack() as stack:
            taken(port, stack)
            slow = {"name": "far__slow", "arguments": {"n": 1, "seconds": 5}}
            busy = [client.post_only("POST", "/mcp", *client.modern_request("tools/call", slow)) for _ in range(4)]
            until(lambda: text(client, "far")[0])  # the connections that were open before are in use
            for _ in range(CALLS):
                assert text(client, "far") == (
                    True,
                    "far is busy: this machine is short of local ports; try again in a moment",
                )
                assert text(client, "near") == (False, "here")
            assert node.status()["mcps"]["far"]["circuit"]["state"] == "closed"
        RANGE.write_text(usual)  # those that were held wait for a minute
        until(lambda: text(client, "far") == (False, "3.0"), within_s=5)
        for connection in busy:
            connection.close()


if __name__ == "__main__":
    main()
