"""Run as a script between us and a stdio remote: makes the kernel end the remote when we die, then becomes the remote.

`python -I -S guard.py PARENT_PID COMMAND ARGS…`. PR_SET_PDEATHSIG survives exec, and a thread-spawned child would lose it,
which is why this runs in the child itself instead of in a fork hook. Imports nothing of the project: it starts in milliseconds.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel was told
        sys.exit(1)
    # A child inherits ignored signals across exec; ours ignores SIGINT and SIGPIPE, Python SIGXFSZ, a remote must not.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    # uvloop hands on whatever is inheritable: the listening socket, and second ends of these very pipes, which would hide
    # the remote's closing of its stdout.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


main()
