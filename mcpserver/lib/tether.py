"""A child that cannot outlive whoever started it: `python -I -S tether.py PARENT_PID COMMAND…` becomes COMMAND.

Linux sends the chosen signal to a process when the thread that spawned it ends, but only if the process itself asked for that.
This file asks and then execs, in the new process alone: `preexec_fn` would run Python between fork and exec in a process
that has threads. It reaches the direct child only; what that one spawns is the supervisor's to find (`supervisor.orphans`).
Elsewhere than on Linux it only execs. Run as a file, so it imports nothing of this project.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def command(argv: list[str]) -> list[str]:
    """`argv` behind the tether, to be spawned by this process (from a thread that lives on)."""
    if sys.platform != "linux":
        return argv
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _main() -> None:
    import ctypes

    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # It ended before the kernel knew: the signal will never come.
        sys.exit(f"{argv[0]}: its parent is gone")
    try:
        os.execvp(argv[0], argv)  # noqa: S606  That is the purpose.
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    _main()
