"""The real supervisor in a process of its own, over stand-in children: `python -m tests.component.supervise RUN_DIR PLAN`.

PLAN is JSON: [{"name", "behaviour", "socket": bool, "overlap": bool, "boot_s", "grace_s"}]. Prints what `start` prints.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from mcpserver.lib.errors import GatewayError
from mcpserver.lib.sockets import listening_socket
from mcpserver.supervisor import pidfile
from mcpserver.supervisor.arbiter import Arbiter
from mcpserver.supervisor.plan import Spec

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def main(run_dir: Path, plan: list[dict[str, Any]]) -> int:
    sockets = [listening_socket("127.0.0.1", 0)]
    specs = [
        Spec(
            name=entry["name"],
            argv=(sys.executable, STAND_IN, entry["behaviour"]),
            again=("--again",),
            sockets=(sockets[0].fileno(),) if entry.get("socket") else (),
            overlap=entry.get("overlap", True),
            boot_s=entry.get("boot_s", 30.0),
            grace_s=entry.get("grace_s", 30.0),
        )
        for entry in plan
    ]

    def announce(document: dict[str, Any]) -> None:
        print(json.dumps(document), flush=True)

    with pidfile.held(run_dir):
        return Arbiter(
            specs,
            sockets=sockets,
            run_dir=run_dir,
            environment=dict(os.environ),
            announce=announce,
            facts={"port": sockets[0].getsockname()[1]},
        ).run()


if __name__ == "__main__":
    try:
        code = main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except GatewayError as error:
        print(json.dumps(error.document()), flush=True)
        code = int(error.exit_code)
    raise SystemExit(code)
