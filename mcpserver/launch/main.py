"""./start: install what is missing, start, prove it with a call, say how to connect. And ./start test|check|lint|bench|lock.

Every step looks whether it is done already, so the second run takes seconds and changes nothing. What the machine lacks is one
clear line and exit code 1; the gateway's own errors keep their words and their exit codes.
"""

import argparse
import errno
import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from mcpserver.launch import development, dotenv, selfcheck, snippets
from mcpserver.launch.gateway import Gateway
from mcpserver.launch.installation import TRACES_LOCK, Installation
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.sockets import listener_at
from mcpserver.supervisor import pidfile

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.txt"
TRACED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
COMMAND_TIMEOUT_S = 300
# The key that a later run checks with; it ends by itself should the run be killed before it is revoked.
CHECK_KEY_LIFE = "10m"


def main(argv: list[str]) -> int:
    options, extra = parser().parse_known_args(argv)
    if extra and options.what not in development.TAKES_ARGUMENTS:
        parser().error(f"unknown argument: {extra[0]}")
    os.chdir(ROOT)
    try:
        if options.what == "run":
            return run(options)
        return development.TASKS[options.what](Installation(ROOT, say), extra)
    except GatewayError as error:
        return _told(error)
    except OSError as error:
        return _told(_from_system(error))
    except KeyboardInterrupt:
        say("interrupted")
        return int(Exit.INTERRUPTED)


def parser() -> argparse.ArgumentParser:
    tasks = "; ".join(f"{name}: {task.__doc__}".rstrip(".") for name, task in development.TASKS.items())
    made = argparse.ArgumentParser(
        prog="./start",
        description="Install, start and prove the gateway. Run it again whenever you like.",
        epilog=f"Also ./start WORD. {tasks}.",
        allow_abbrev=False,
    )
    made.add_argument("what", nargs="?", default="run", choices=["run", *development.TASKS], metavar="WORD")
    made.add_argument("--check", action="store_true", help="start, prove it with a call, stop; exit code 0 or 1")
    made.add_argument("--host", help="address to listen on (HOST, default 127.0.0.1)")
    made.add_argument("--port", type=_port, help="port to listen on (PORT, default 3000)")
    return made


def run(options: argparse.Namespace) -> int:
    env_file = ROOT / ".env"
    configured = {**dotenv.read(env_file.read_text() if env_file.exists() else ""), **os.environ}
    host = options.host or configured.get("HOST") or "127.0.0.1"
    port = options.port if options.port is not None else _configured_port(configured)
    require_writable(ROOT)
    require_free(_folder(configured, "MCP_RUN_DIR", "run"), host, port)
    installation = Installation(ROOT, say)
    is_traced = any(configured.get(name) for name in TRACED_BY)
    installation.ensure(TRACES_LOCK if is_traced else LOCK)
    if dotenv.ensure(env_file, os.environ):
        say("secrets written to .env")
    python = installation.python
    is_first = _starter_config(python, _folder(configured, "MCP_CONFIG", "mcp-config.yaml"))
    data = _folder(configured, "MCP_DATA_DIR", "data")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    _manage(python, "migrate", "--verbosity", "0", "--skip-checks")
    key, is_new = _key(python)
    return _serve(python, host, port, key, is_new=is_new, must_echo=is_first, only_check=options.check)


def _serve(
    python: Path, host: str, port: int, key: dict[str, Any], *, is_new: bool, must_echo: bool, only_check: bool
) -> int:
    say("starting …")
    gateway = Gateway(python, ROOT, host=host, port=port)
    try:
        url = gateway.ready()["url"]
        say(f"ready: {selfcheck.check(url, key['key'], must_echo=must_echo)}")
    except GatewayError:
        if gateway.is_told_to_stop:  # Whatever failed, failed because of that.
            return gateway.wait() or int(Exit.INTERRUPTED)
        if is_new:  # It exists, and this is the only time that it can be seen.
            _show(f"Your first key (shown this once): {key['key']}")
        gateway.stop()
        gateway.wait()
        raise
    finally:
        if not is_new:
            _manage(python, "mcpkey", "revoke", "--id", key["id"])
    _show(f"\n{snippets.page(url, key['key'] if is_new else None)}\n")
    if only_check:
        gateway.stop()
    return gateway.wait()


def require_writable(folder: Path) -> None:
    """The first thing that would fail, told as what it is."""
    probe = folder / f".start-{os.getpid()}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _from_system(error, folder) from None


def require_free(run_dir: Path, host: str, port: int) -> None:
    """Asked before anything is installed; the supervisor asks again, and says who it is."""
    if (pid := pidfile.owner(run_dir)) is not None:
        error = pidfile.already_running(pid)
        error.hint = "see it with: bin/mcpstatus -o table; stop it with: bin/mcpserver stop"
        raise error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_taken(port) from None


def port_taken(port: int) -> GatewayError:
    pid = listener_at(port)
    who = f" by pid {pid}" if pid else ""
    return GatewayError("port_taken", f"port {port} is taken{who}", hint=f"./start --port {port + 1}")


def _show(words: str) -> None:
    """On stdout. A reader that left (`| head`) has seen enough, and the gateway runs on."""
    try:
        print(words, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # Or Python's own flush at exit fails again.
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


# Steps that run in the virtual environment.


def _starter_config(python: Path, path: Path) -> bool:
    """Whether the configuration is the starter's, just written."""
    if path.exists():
        return False
    code = (
        "import sys; from pathlib import Path; from remotes.config import starter; "
        "starter.write(Path(sys.argv[1]), installation=Path(sys.argv[2]))"
    )
    _run([str(python), "-c", code, str(path), str(ROOT)], "cannot write the first configuration")
    say(f"configuration written to {path.name}")
    return True


def _key(python: Path) -> tuple[dict[str, Any], bool]:
    """The first key of this installation, which is shown; or one for the check alone, which is not."""
    if not _manage(python, "mcpkey", "list", "--all")["keys"]:
        return _manage(python, "mcpkey", "generate", "main"), True
    name = f"start-check-{secrets.token_hex(3)}"
    return _manage(python, "mcpkey", "generate", name, "--expires", CHECK_KEY_LIFE), False


def _manage(python: Path, *argv: str) -> dict[str, Any]:
    """One management command; its error document becomes ours."""
    done = _run([str(python), str(ROOT / "manage.py"), *argv], f"{argv[0]} failed")
    document = json.loads(done) if done.strip() else {}
    return dict(document)


def _run(argv: list[str], failure: str) -> str:
    done = subprocess.run(
        argv,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
        start_new_session=True,  # A Ctrl-C is ours to handle, or the check's key would not be revoked.
    )
    if done.returncode == 0:
        return done.stdout
    try:
        document = json.loads(done.stdout)
    except ValueError:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        document = {"message": f"{failure}: {words}"}
    raise GatewayError("start", document.get("message", failure), hint=document.get("hint", ""))


# Words.


def _told(error: GatewayError) -> int:
    """One clear line (and each line of a configuration that is wrong), then what to do."""
    say(f"./start: {error.message}")
    for problem in error.facts.get("errors", []):
        say(f"  line {problem.get('line', '?')}: {problem.get('message', problem)}")
    if error.hint:
        say(f"  {error.hint}")
    return int(error.exit_code)


def _from_system(error: OSError, folder: Path | None = None) -> GatewayError:
    where = folder or error.filename or ROOT
    match error.errno:
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return GatewayError("read_only", f"{where} cannot be written: clone into a folder of your own")
        case errno.ENOSPC | errno.EDQUOT:
            return GatewayError("no_space", f"no space left: {where} cannot be written")
        case _:
            return GatewayError("system", f"{where}: {error.strerror or error}")


def _folder(environment: dict[str, str], variable: str, default: str) -> Path:
    """As settings read it."""
    return ROOT / Path(environment.get(variable) or default).expanduser()


def _configured_port(environment: dict[str, str]) -> int:
    text = environment.get("PORT") or "3000"
    try:
        return _port(text)
    except argparse.ArgumentTypeError:
        raise GatewayError("settings", f"PORT={text} is not a port", hint="check the environment and .env") from None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)
