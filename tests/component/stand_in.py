"""A child of the supervisor that does what its first argument says. Run as a process; imports nothing of the project.

serve       answers each connection with its pid; TERM: stops accepting, then leaves after DRAIN_S
stubborn    is ready, and ignores TERM
refuse      says why it cannot start, and leaves with exit code 3
mute        leaves with exit code 1 without a word
slow        is never ready
beat        serves, and beats; takes connections of others when told so
hang        the same, until the file STAND_IN_FLAG exists: then it does nothing at all
grow        the same, and says that it uses 600 MB
parent      is ready, and has started a process of its own, in a session of its own, that ignores TERM
"""

import argparse
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time

IMMORTAL = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviour")
    parser.add_argument("--fd", type=int)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--stacks-fd", type=int)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--spare", action="append", default=[])
    parser.add_argument("--control")
    options = parser.parse_args()
    if journal := os.environ.get("STAND_IN_JOURNAL"):
        with pathlib.Path(journal).open("a") as file:
            file.write("again\n" if options.again else "anew\n")
    # A file decides over the argument: so a test changes what the next child does.
    override = pathlib.Path(os.environ.get("STAND_IN_FILE", "/nonexistent"))
    behaviour = override.read_text().strip() if override.exists() else options.behaviour
    match behaviour:
        case "refuse":
            say(options.ready_fd, {"ok": False, "error": "invalid_config", "message": "line 3: no", "hint": "fix it"})
            sys.exit(3)
        case "mute":
            sys.exit(1)
        case "slow":
            time.sleep(600)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(options.ready_fd, {"ok": True})
            time.sleep(600)
        case "parent":
            child = subprocess.Popen([sys.executable, "-c", IMMORTAL], start_new_session=True, stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            say(options.ready_fd, {"ok": True, "child": child.pid})
            time.sleep(600)
        case _:
            serve(options, behaviour)


def serve(options: argparse.Namespace, behaviour: str) -> None:
    # Signals are read between two connections, so that none is cut: what is still queued is for the successor.
    told, teller = socket.socketpair()
    teller.setblocking(False)
    signal.set_wakeup_fd(teller.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    listeners = {0: socket.socket(fileno=options.fd)} if options.fd is not None else {}
    spares = {int(number): socket.socket(fileno=int(fd)) for number, _, fd in (s.partition(":") for s in options.spare)}
    adopted: dict[int, socket.socket] = {}
    control = [bound(options.control)] if options.control else []
    flag = pathlib.Path(os.environ.get("STAND_IN_FLAG", "/nonexistent"))
    say(options.ready_fd, {"ok": True, "worker": "stand-in"}, last=behaviour == "serve")
    while True:
        readable, _, _ = select.select([told, *control, *listeners.values(), *adopted.values()], [], [], 0.1)
        if told in readable:
            break
        if behaviour == "hang" and flag.exists():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])
            time.sleep(600)
        if behaviour != "serve":
            used_mb = 600 if behaviour == "grow" else 50
            beat = {"rss_mb": used_mb, "memory_max_mb": 512, "adopted": list(adopted)}
            say(options.ready_fd, {"beat": beat}, last=False)
        for one in readable:
            if one in control:
                obey(one, spares, adopted)
            else:
                answer(one)
    for listener in (*listeners.values(), *spares.values()):
        listener.close()
    time.sleep(float(os.environ.get("DRAIN_S", "0")))


def bound(path: str) -> socket.socket:
    pathlib.Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def obey(control: socket.socket, spares: dict[int, socket.socket], adopted: dict[int, socket.socket]) -> None:
    with control.accept()[0] as peer:
        request = json.loads(peer.recv(65536)[4:])
    if request["op"] == "adopt":
        adopted[request["number"]] = spares[request["number"]]
    else:
        adopted.pop(request["number"], None)


def answer(listener: socket.socket) -> None:
    listener.setblocking(False)
    try:
        peer, _ = listener.accept()
    except BlockingIOError:  # A sibling on the same socket was faster.
        return
    with peer:
        peer.sendall(str(os.getpid()).encode())


def say(descriptor: int, document: dict[str, object], *, last: bool = True) -> None:
    os.write(descriptor, json.dumps(document).encode() + b"\n")
    if last:
        os.close(descriptor)


if __name__ == "__main__":
    main()
