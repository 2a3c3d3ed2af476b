"""The configuration's file and its last known good copy: reading, judging whether it has come to rest, writing.

It knows nothing of what the text means. Every error of the file system becomes one that names the file and what to do.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mcpserver.lib import files
from mcpserver.lib.clock import Clock
from mcpserver.lib.errors import Exit, GatewayError
from remotes.config.document import TEXT_MAX_BYTES

# Half a file is often valid YAML: an editor, a copy or an unpacking must have been still for this long.
STABLE_S = 0.4
SECRET_MAX_BYTES = 64 * 1024

_BACKUP_NAME = ".mcp-config.backup.yaml"
_UNWRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOTDIR})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def read(path: Path) -> str:
    """The text of the configuration, byte for byte (line ends included)."""
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise _invalid(path, "file_missing", "there is no such file", _missing_hint(path)) from None
    except OSError as error:
        hint = "check its permissions and MCP_CONFIG"
        raise _invalid(path, "unreadable", f"it cannot be read: {error.strerror}", hint) from None
    if len(content) > TEXT_MAX_BYTES:
        raise _invalid(path, "too_large", f"it is larger than {TEXT_MAX_BYTES} bytes", "is this the right file?")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise _invalid(path, "encoding", "it is not UTF-8 text", "save it as UTF-8", line=line, column=column) from None


def read_secret(path: str) -> str | None:
    """The content behind `${file:/path}`; None when there is none that can be used."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            content = file.read(SECRET_MAX_BYTES + 1)
        return content.decode() if len(content) <= SECRET_MAX_BYTES else None
    except (OSError, ValueError):
        return None


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe that nobody writes to would wait for ever.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def last_known_good(path: Path) -> Path:
    """Where the text that was last applied on this machine is kept."""
    return path.with_name(_BACKUP_NAME)


@contextmanager
def exclusive(path: Path, *, wait_s: float | None = None) -> Iterator[None]:
    """One writer of `path` at a time on this machine; GatewayError `locked` when the other takes longer than `wait_s`."""
    patience_s = files.LOCK_WAIT_S if wait_s is None else wait_s
    target = path.resolve()
    with ExitStack() as stack:
        # A folder that takes no lock file takes no edits either: there is nothing to guard.
        with suppress(OSError):
            stack.enter_context(files.locked(target.with_name(f".{target.name}.lock"), wait_s=patience_s))
            files.sweep(path)
            files.sweep(last_known_good(path))
        yield


def stage(path: Path, text: str) -> files.Staged:
    """The text on the disk, not yet in place; GatewayError when the folder takes no file."""
    if os.path.ismount(path):
        raise _unwritable(path, OSError(errno.EBUSY, "the file is a mount of its own"))
    if (path.parent / "..data").is_symlink():
        # How Kubernetes mounts a ConfigMap or Secret: what is written there is gone with the next update.
        raise _unwritable(path, OSError(errno.EROFS, "the folder is a mounted ConfigMap"))
    try:
        return files.Staged(path, text.encode())
    except OSError as error:
        raise _unwritable(path, error) from None


def keep_as_good(path: Path, text: str) -> bool:
    """Remember the text as the last known good; False where that cannot be done, which nothing depends on."""
    try:
        files.write_atomically(last_known_good(path), text.encode(), mode=files.NEW_FILE_MODE)
    except OSError:
        return False
    return True


def _unwritable(path: Path, error: OSError) -> GatewayError:
    if error.errno in _FULL:
        hint = "make space and try again: nothing has changed"
        return GatewayError("disk_full", f"{path} cannot be written: the disk is full", hint=hint)
    if error.errno in _UNWRITABLE:
        hint = "change the file where it comes from (a ConfigMap, an image): it is watched and applied"
        return GatewayError("read_only", f"{path} cannot be written: {error.strerror}", hint=hint)
    return GatewayError("io_error", f"{path} cannot be written: {error.strerror}", hint="nothing has changed")


def _missing_hint(path: Path) -> str:
    backup = last_known_good(path)
    if backup.is_file():
        return f"the last known good one is beside it: cp {backup.name} {path.name}; or run ./start for a new one"
    return "run ./start, which writes a commented example, or set MCP_CONFIG"


def _invalid(path: Path, code: str, message: str, hint: str, *, line: int = 1, column: int = 1) -> GatewayError:
    problem = {"path": "", "line": line, "column": column, "code": code, "message": message, "hint": hint}
    return GatewayError(
        "invalid_config", f"{path}: {message}", hint=hint, exit_code=Exit.CONFIG, file=str(path), errors=[problem]
    )


_Signature = tuple[int, int, int, int]


class Watched:
    """Tells when the file has a new content that has come to rest. It compares what `stat` says; it never reads."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._taken: _Signature | None = None
        self._seen: _Signature | None = None
        self._since = clock.monotonic()

    def take(self) -> None:
        """What is there now is known."""
        self._taken = self._seen = self._signature()

    def look_again(self) -> None:
        """What was taken could not be dealt with: report it once more."""
        self._taken = (-1, -1, -1, -1)

    def has_settled(self) -> bool:
        """True once per change, when nothing has moved for STABLE_S; a file that went away is a change too."""
        signature = self._signature()
        if signature == self._taken:
            self._seen = signature
            return False
        now = self._clock.monotonic()
        if signature != self._seen:
            self._seen, self._since = signature, now
            return False
        if now - self._since < STABLE_S:
            return False
        self._taken = signature
        return True

    def _signature(self) -> _Signature | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
