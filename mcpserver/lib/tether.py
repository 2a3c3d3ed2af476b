"""A child that cannot outlive whoever started it: `python -I -S tether.py [--alone] PARENT_PID COMMAND…` becomes COMMAND.

Linux sends the chosen signal to a process when the thread that spawned it ends, but only if the process itself asked for that.
This file asks and then execs, in the new process alone: `preexec_fn` would run Python between fork and exec in a process
that has threads. It reaches the direct child only; what that one spawns is the supervisor's to find (`supervisor.orphans`).
Elsewhere than on Linux it asks nobody. Run as a file, so it imports nothing of this project and starts in milliseconds.
"""

import os
import signal
import sys

# What a shell answers for a command that cannot be run; the reason is on stderr.
CANNOT_RUN = 127
_ALONE = "--alone"
_PR_SET_PDEATHSIG = 1


def command(argv: list[str], *, alone: bool = False) -> list[str]:
    """`argv` behind the tether, to be spawned by this process (from a thread that lives on).

    `alone`: it inherits no descriptor but the first three. An event loop hands on whatever is inheritable: listening sockets,
    and second ends of the very pipes it talks through, which would hide that it closed them.
    """
    return [sys.executable, "-I", "-S", __file__, *([_ALONE] if alone else []), str(os.getpid()), *argv]


def _main() -> None:
    words = sys.argv[1:]
    alone = words[0] == _ALONE
    parent, argv = int(words[alone]), words[alone + 1 :]
    _ask_to_die_with(parent)
    # Ignored signals are inherited across exec; ours ignores SIGINT and SIGPIPE, Python SIGXFSZ, a child must not.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if alone:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        os.execvp(argv[0], argv)  # noqa: S606  That is the purpose.
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{argv[0]}: {getattr(error, 'strerror', None) or error}\n")
        sys.exit(CANNOT_RUN)


def _ask_to_die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # It ended before the kernel knew: the signal will never come.
        sys.exit("its parent is gone")


if __name__ == "__main__":
    _main()
