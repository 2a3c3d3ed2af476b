"""`./start crashes`: kill -9 at random moments, and a look at what is left after each.

One process works, another kills it after some milliseconds and examines the installation: the configuration parses, is the
old or the new and starts; every backup is whole; what was said to be done is done, and no revoked key is alive. Exit code 1
otherwise.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 300
# So many operations are let through at most; then the kill falls somewhere into the next, however busy the machine is.
OPERATIONS_MAX = 4


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./start crashes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args(argv)
    home = Path(tempfile.mkdtemp(prefix="crashes-"))
    try:
        _settle_in(home)
        return _killed(options.rounds, options.seed)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _settle_in(home: Path) -> None:
    for name in ("data", "logs", "backups", "run"):
        (home / name).mkdir()
        os.environ[f"MCP_{name.removesuffix('s').upper()}_DIR"] = str(home / name)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "mcpserver.settings",
        "SECRET_KEY": "only-for-tests",
        "DATABASE_URL": f"sqlite:///{home}/data/gateway.sqlite3",
        "MCP_CONFIG": str(home / "mcp-config.yaml"),
        "REDIS_URL": "",
        "LOG_LEVEL": "error",
    }
    import django

    django.setup()
    from django.core.management import call_command

    from monitoring.backups import saving
    from remotes import services
    from tests.crashes import installation

    call_command("migrate", verbosity=0)
    installation.config().write_text(installation.TEXTS[0])
    services.bootstrap(installation.config())
    saving.create("manual")


def _killed(rounds: int, seed: int) -> int:
    from tests.crashes import installation

    chance = random.Random(seed)
    operations: dict[str, int] = {}
    for number in range(1, rounds + 1):
        said = _one_life(seed + number, chance.randrange(OPERATIONS_MAX + 1), chance.uniform(0, 1.5))
        for line in said:
            operations[line.split()[0]] = operations.get(line.split()[0], 0) + 1
        if problems := installation.wrong(said):
            print(f"seed {seed}, round {number}:", *problems, sep="\n  ")
            return 1
    print(f"{rounds} kills (seed {seed}), {sum(operations.values())} operations had ended before: {operations}")
    return 0


def _one_life(seed: int, operations: int, into_the_next: float) -> list[str]:
    """A process that works until it is killed, some operations and a part of the next long; what it said it had done."""
    from django.db import connections

    from tests.crashes import victim

    connections.close_all()  # a connection that two processes share is neither's
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            victim.work(seed, write_end)
        except BaseException as error:
            os.write(write_end, f"failed {error!r}\n".encode())
        os._exit(1)
    os.close(write_end)
    with open(read_end) as pipe:
        assert pipe.readline() == "begun\n"
        began = time.monotonic()
        said = [pipe.readline().strip() for _ in range(operations)]
        typical_s = (time.monotonic() - began) / operations if operations else 0.02
        time.sleep(into_the_next * typical_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said += pipe.read().splitlines()
    assert not [line for line in said if line.startswith("failed")], said
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
