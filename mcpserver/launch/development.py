"""The words of ./start for developers (`TASKS`): what `make` delegates to, so that nobody needs make."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mcpserver.launch import auditing
from mcpserver.launch.installation import TRACES_LOCK, Installation
from mcpserver.lib.errors import GatewayError

ROOT = Path(__file__).resolve().parents[2]
TEST_LOCK = ROOT / "tests" / "requirements.txt"
LOCKS: Mapping[Path, tuple[str, ...]] = {
    ROOT / "requirements.txt": (),
    TRACES_LOCK: ("--extra", "otel"),
    TEST_LOCK: ("--extra", "otel", "--extra", "dev"),
}
LINTERS: tuple[tuple[str, ...], ...] = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy", "."),
    ("lint-imports", "--no-logo"),
)
# Side by side, a file at a time: what a file's tests share is started once. System tests want the machine for themselves.
FAST_TESTS = ("tests/unit", "tests/component", "-n", "3", "--dist", "loadfile")

Task = Callable[[Installation, Sequence[str]], int]


def test(installation: Installation, extra: Sequence[str]) -> int:
    """install what the tests need and run them; more words go to pytest."""
    installation.ensure(TEST_LOCK)
    lacking = _run(installation, "python", "tests/clients/install.py")
    if lacking and os.environ.get("CI"):  # Elsewhere the tests that need what is lacking are listed as skipped.
        return lacking
    if extra:
        return _run(installation, "python", "-m", "pytest", *extra)
    fast = _run(installation, "python", "-m", "pytest", *FAST_TESTS)
    return _run(installation, "python", "-m", "pytest", "tests/system") or fast


def lint(installation: Installation, extra: Sequence[str]) -> int:
    """formatting, lint, types and the direction of imports."""
    installation.ensure(TEST_LOCK)
    return max([_run(installation, *argv) for argv in LINTERS])


def check(installation: Installation, extra: Sequence[str]) -> int:
    """lint, then the unit and component tests."""
    failed = lint(installation, ())
    return failed or _run(installation, "python", "-m", "pytest", *FAST_TESTS, *extra)


def bench(installation: Installation, extra: Sequence[str]) -> int:
    """the benchmark: gateway, floor and direct connection side by side."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "tests.bench", *extra)


def conformance(installation: Installation, extra: Sequence[str]) -> int:
    """the public conformance tool against the gateway, both eras on both sides."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "tests.conformance", *extra)


def timing(installation: Installation, extra: Sequence[str]) -> int:
    """whether the time of a refused key tells why it was refused."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "tests.timing", *extra)


def crashes(installation: Installation, extra: Sequence[str]) -> int:
    """kill -9 at random moments of edits, backups, restores and key changes, 300 times."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "tests.crashes", *extra)


def soak(installation: Installation, extra: Sequence[str]) -> int:
    """100 streams and 100 calls for five minutes (or SECONDS), 1,000 streams that vanish: whether memory stays flat."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "tests.soak", *extra)


def image(installation: Installation, extra: Sequence[str]) -> int:
    """the container image, built and run: needs root, buildah and debootstrap."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "pytest", "tests/image", *extra)


def lock(installation: Installation, extra: Sequence[str]) -> int:
    """resolve pyproject.toml into the lock files, with hashes."""
    with tempfile.TemporaryDirectory() as folder:
        uv = _throw_away_uv(Path(folder))
        for output, options in LOCKS.items():
            _lock(uv, output, [*options, *extra])
    return 0


def licences(installation: Installation, extra: Sequence[str]) -> int:
    """list the licences of what is locked in deploy/LICENCES.md; 1 when one is not allowed."""
    installation.ensure(TEST_LOCK)
    return _run(installation, "python", "-m", "mcpserver.launch.licences")


def audit(installation: Installation, extra: Sequence[str]) -> int:
    """known vulnerabilities of what is locked: 0 none, 1 some, 2 could not be found out."""
    with tempfile.TemporaryDirectory() as folder:
        python = _throw_away(Path(folder), "pip-audit")
        argv = [
            str(python),
            "-m",
            "pip_audit",
            "--requirement",
            str(TRACES_LOCK),  # the extra's holds the other one
            "--require-hashes",
            "--disable-pip",
        ]
        argv += ["--format", "json", "--progress-spinner", "off", *extra]
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    found = auditing.verdict(done.stdout)
    print("\n".join(found.lines), flush=True)
    return found.exit_code


TASKS: Mapping[str, Task] = {
    "test": test,
    "check": check,
    "lint": lint,
    "bench": bench,
    "conformance": conformance,
    "timing": timing,
    "crashes": crashes,
    "soak": soak,
    "image": image,
    "lock": lock,
    "audit": audit,
    "licences": licences,
}
TAKES_ARGUMENTS = frozenset(
    {"test", "check", "bench", "conformance", "timing", "crashes", "soak", "image", "lock", "audit"}
)


def _run(installation: Installation, program: str, *argv: str) -> int:
    """In the virtual environment, whose programs come first on PATH."""
    bin_dir = installation.folder / "bin"
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    environment.setdefault("SECRET_KEY", "for-tests-and-type-checks-only-not-a-secret-0123456789")
    print(f"» {program} {' '.join(argv)}", file=sys.stderr, flush=True)
    return subprocess.run([str(bin_dir / program), *argv], cwd=ROOT, env=environment, check=False).returncode


def _throw_away_uv(folder: Path) -> Path:
    """uv resolves for every platform at once, which pip cannot; nobody else needs it."""
    _throw_away(folder, "uv")
    return folder / "bin" / "uv"


def _throw_away(folder: Path, package: str) -> Path:
    """The Python of a new virtual environment that has a package which nobody else needs."""
    python = folder / "bin" / "python"
    for argv in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package],
    ):
        if subprocess.run(argv, check=False).returncode != 0:
            raise GatewayError("install", f"cannot install {package}")
    return python


def _lock(uv: Path, output: Path, options: Sequence[str]) -> None:
    """One lock for every Python from 3.11 on and every platform, by markers; the index stays unnamed."""
    argv = [str(uv), "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--generate-hashes"]
    argv += ["--only-binary", ":all:", "--no-annotate", "--no-emit-index-url", "--quiet"]
    argv += ["--custom-compile-command", "make lock", "--output-file", str(output), *options]
    if options:
        argv += ["--constraint", "requirements.txt"]
    print(f"» locking {output.relative_to(ROOT)}", file=sys.stderr, flush=True)
    if subprocess.run(argv, cwd=ROOT, check=False).returncode != 0:
        raise GatewayError("lock", f"cannot lock {output.relative_to(ROOT)}")
