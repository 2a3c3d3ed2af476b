"""The virtual environment and what the lock says belongs into it. A stamp with the lock's hash makes the next time free.

Only wheels, only with the hashes of the lock; never sudo, never anything outside `.venv`.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mcpserver.lib.errors import GatewayError

# The environment takes 230 MB, pip's copies of the wheels another 100 while it works.
NEEDED_MB = 400
INSTALL_TIMEOUT_S = 1800
LAST_WORDS_LINES = 8

# What is installed instead of requirements.txt where traces are wanted (OpenTelemetry is an extra).
TRACES_LOCK = Path(__file__).resolve().parents[2] / "deploy" / "otel" / "requirements.txt"

Say = Callable[[str], None]


class Installation:
    """`.venv` under `root`."""

    def __init__(self, root: Path, say: Say) -> None:
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self._place = self.folder / ".made-at"
        self._root = root
        self._say = say

    def ensure(self, lock: Path) -> None:
        """Make the environment if there is none that works, and install `lock` if that is not what it holds."""
        if not lock.exists():
            raise GatewayError("no_lock", f"{lock} is missing: this clone is not complete")
        if not self._works():
            self._make()
        if self._stamp(lock).is_file() and self._stamp(lock).read_text() == fingerprint(lock):
            return
        self._require_space()
        self._say(f"installing {lock.relative_to(self._root)} (once, about half a minute) …")
        self._install(lock)
        self._stamp(lock).write_text(fingerprint(lock))

    def _stamp(self, lock: Path) -> Path:
        return self.folder / f".installed-{lock.relative_to(self._root).as_posix().replace('/', '-')}"

    def _works(self) -> bool:
        """An environment outlives the Python it was made with, but does not run without it; and its programs name the folder
        they were made in, so that one that was moved would run another's or none."""
        if self._place.is_file() and self._place.read_text() != str(self.folder):
            return False
        check = [str(self.python), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            return subprocess.run(check, capture_output=True, timeout=60, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def _make(self) -> None:
        self._require_space()
        self._say(f"making {self.folder.name} with Python {sys.version_info.major}.{sys.version_info.minor} …")
        if shutil.which("uv"):
            argv = ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(self.folder)]
        elif has_ensurepip():
            argv = [sys.executable, "-m", "venv", "--clear", str(self.folder)]
        else:
            raise GatewayError("no_ensurepip", f"python3-venv is missing; {how_to_get_venv()}")
        self._run(argv, "cannot make the virtual environment")
        self._place.write_text(str(self.folder))

    def _install(self, lock: Path) -> None:
        options = ["--require-hashes", "--only-binary", ":all:", "-r", str(lock)]
        has_pip = (self.folder / "bin" / "pip").exists()
        if shutil.which("uv"):
            try:
                self._run(["uv", "pip", "install", "--quiet", "--python", str(self.python), *options], "")
            except GatewayError:
                if not has_pip and not has_ensurepip():
                    raise
                self._say("uv could not; trying pip …")  # The two read different settings for proxies and mirrors.
            else:
                return
        if not has_pip:
            self._run([str(self.python), "-m", "ensurepip"], "cannot install pip")
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
        self._run([str(self.python), "-m", "pip", "install", *quiet, *options], "cannot install the dependencies")

    def _run(self, argv: list[str], failure: str) -> None:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise GatewayError(
                "timeout", f"{failure}: nothing happened for {INSTALL_TIMEOUT_S // 60} minutes"
            ) from None
        if done.returncode == 0:
            return
        self._require_space()
        words = [line for line in done.stdout.splitlines() if line.strip()]
        raise GatewayError("install", "\n  ".join([f"{failure}:", *words[-LAST_WORDS_LINES:]]))

    def _require_space(self) -> None:
        free_mb = shutil.disk_usage(self._root).free // 1_000_000
        if free_mb < NEEDED_MB:
            message = f"not enough space: {free_mb} MB free in {self._root}, {NEEDED_MB} MB needed"
            raise GatewayError("no_space", message)


def fingerprint(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def has_ensurepip() -> bool:
    """Debian splits it off: `venv` is there and fails without it."""
    found = importlib.util.find_spec("ensurepip")
    return found is not None and found.origin is not None


def how_to_get_venv() -> str:
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if shutil.which("apt-get"):
        prefix = "" if os.geteuid() == 0 else "sudo "
        return f"install it with: {prefix}apt-get install -y {package}"
    return "install your system's package with Python's venv and ensurepip, or uv (https://docs.astral.sh/uv/)"
