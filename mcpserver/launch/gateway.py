"""The running gateway, as ./start sees it: a child process that says one line when it is ready and drains when told.

In a session of its own: Ctrl-C reaches ./start alone, which passes on one TERM; the supervisor would take the terminal's signal
and ours for two, and end at once. Tethered: it drains when ./start is killed.
"""

import json
import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

from mcpserver.lib import tether
from mcpserver.lib.errors import Exit, GatewayError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Gateway:
    """`mcpserver start` and how it goes."""

    def __init__(self, python: Path, root: Path, *, host: str, port: int) -> None:
        argv = [str(python), str(root / "manage.py"), "mcpserver", "start", "--host", host, "--port", str(port)]
        # The handlers stand before there is anything to leave behind; until it runs there is nothing to tell.
        self._process: subprocess.Popen[bytes] | None = None
        self.is_told_to_stop = False
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._process = subprocess.Popen(
            tether.command(argv), cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        if self.is_told_to_stop:
            self.stop()

    def ready(self) -> dict[str, Any]:
        """Its one document, once all is ready; its own error when it could not start."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            document = json.loads(line)
        except ValueError:
            document = {}
        if document.get("ok"):
            return dict(document)
        status = self._process.wait()
        exit_code = Exit(status) if status in {int(code) for code in Exit} and status else Exit.FAILED
        message = document.get("message", f"the gateway ended before it was ready (exit code {status})")
        more = {name: value for name, value in document.items() if name == "errors"}
        raise GatewayError(
            document.get("error", "start"), message, hint=document.get("hint", ""), exit_code=exit_code, **more
        )

    def stop(self) -> None:
        """Told again, it ends at once."""
        self.is_told_to_stop = True
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()
