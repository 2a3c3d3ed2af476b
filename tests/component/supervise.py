"""The real supervisor in a process of its own, over stand-in children: `python -m tests.component.supervise RUN_DIR PLAN`.

PLAN is JSON: [{"name", "behaviour", "socket": bool, "overlap": bool, "beats": bool, "boot_s", "grace_s"}]. Each of those that
beat has a socket of its own, on one port. Prints what `start` prints. A tenth of the usual patience.
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
from mcpserver.supervisor.vigil import Patience

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def main(run_dir: Path, plan: list[dict[str, Any]]) -> int:
    sockets = [listening_socket("127.0.0.1", 0)]
    port = sockets[0].getsockname()[1]
    sockets += [listening_socket("127.0.0.1", port, sibling=True) for entry in plan[1:] if entry.get("beats")]

    def control(number: int) -> Path:
        return run_dir / f"{number}.sock"

    specs = [
        Spec(
            name=entry["name"],
            argv=(sys.executable, STAND_IN, entry["behaviour"], "--control", str(control(number))),
            again=("--again",),
            sockets=(sockets[number if entry.get("beats") else 0].fileno(),) if entry.get("socket") else (),
            spares={other: one.fileno() for other, one in enumerate(sockets) if entry.get("beats") and other != number},
            number=number,
            control=control(number),
            beats=entry.get("beats", False),
            overlap=entry.get("overlap", True),
            boot_s=entry.get("boot_s", 30.0),
            grace_s=entry.get("grace_s", 30.0),
        )
        for number, entry in enumerate(plan)
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
            facts={"port": port},
            patience=Patience(stalled_after_s=0.6, hung_after_s=1.5, abort_grace_s=0.3, replaced_every_s=60),
        ).run()


if __name__ == "__main__":
    try:
        code = main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except GatewayError as error:
        print(json.dumps(error.document()), flush=True)
        code = int(error.exit_code)
    raise SystemExit(code)
