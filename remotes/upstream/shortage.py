"""What this machine is short of, when it cannot start a program or open a connection for a remote. Pure.

That is no fault of the remote's: nothing is held against it, and the next call may find it better.
"""

import errno

# A fork says EAGAIN where no more processes or threads are allowed, a connect EADDRNOTAVAIL where no local port is left.
_SHORT_OF = {
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
    errno.EADDRNOTAVAIL: "local ports",
}
RETRY_AFTER_S = 1.0


def of(error: OSError) -> str | None:
    """In words for people; None where the machine has enough."""
    return _SHORT_OF.get(error.errno or 0)
