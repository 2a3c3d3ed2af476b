"""The floor's application on Daphne as it comes, on the same event loop: what `gateway.serving` costs is what lies between."""

import argparse
import asyncio

import uvloop


def main() -> int:
    """Serve on the inherited listening socket until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited, listening socket")
    descriptor: int = parser.parse_args().fd
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    from daphne.server import Server  # after the policy: Twisted chooses its loop when it is imported

    from tests.bench.floor import application

    Server(application, endpoints=[f"fd:fileno={descriptor}"], verbosity=0).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
