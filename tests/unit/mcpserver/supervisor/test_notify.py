import socket
import tempfile

from mcpserver.supervisor.notify import Notifier


def test_without_a_socket_nothing_is_said_and_nobody_watches():
    notifier = Notifier({"WATCHDOG_USEC": "1000000"})
    notifier.ready("serving")
    assert notifier.interval_s is None


def test_the_watchdog_is_fed_twice_in_its_time():
    assert Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}).interval_s == 15.0


def test_messages_arrive_as_systemd_reads_them():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{folder}/notify")
        systemd.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": f"{folder}/notify"})
        notifier.ready("serving at http://127.0.0.1:3000/mcp")
        notifier.alive()
        notifier.stopping()
        assert [systemd.recv(1024) for _ in range(3)] == [
            b"READY=1\nSTATUS=serving at http://127.0.0.1:3000/mcp",
            b"WATCHDOG=1",
            b"STOPPING=1",
        ]


def test_a_socket_that_is_gone_disturbs_nobody():
    Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"}).ready("serving")
