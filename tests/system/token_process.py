"""A process with one remote, as a worker has it: does what the lines on its standard input say, answers each with a line.

call      one tool call; says what came of it
stale     the token counts as one that was issued long ago
status    what status says of the credential

The specification of the remote comes as JSON in the first argument; the database and the keys from the environment.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402

from mcpserver.lib.clock import SystemClock  # noqa: E402
from remotes.config.snapshot import AuthSpec, RemoteSpec  # noqa: E402
from remotes.tokens import credentials  # noqa: E402
from remotes.tokens.credential import TokenCredential  # noqa: E402
from remotes.upstream.budget import Budget  # noqa: E402
from remotes.upstream.client import Upstream  # noqa: E402
from remotes.upstream.envelope import Exchange  # noqa: E402
from remotes.upstream.outcome import Failure  # noqa: E402


async def main() -> None:
    chosen = json.loads(sys.argv[1])
    spec = RemoteSpec("remote", "http", url=chosen["url"], auth=AuthSpec(**chosen["auth"]))
    held = credentials.for_gateway(SystemClock(), lambda name: None)
    credential = held.of(spec)
    assert isinstance(credential, TokenCredential)
    most = settings.LIMITS.read_max_bytes
    upstream = Upstream(spec, budget=Budget(8 * most, read_max_bytes=most), credential=credential)
    tending = asyncio.create_task(tend(held))
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await done(line.strip(), upstream, credential)), flush=True)
    tending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tending
    await upstream.close()
    await held.close()


async def tend(held: credentials.Credentials) -> None:
    while True:
        await asyncio.sleep(0.2)
        await held.tend()


async def done(what: str, upstream: Upstream, credential: TokenCredential) -> Any:
    if what == "stale":
        credential._obtained -= 3600
        return True
    if what == "status":
        return credential.describe()
    deadline = asyncio.get_running_loop().time() + 10
    outcome = await upstream.exchange(Exchange("tools/list", {}, deadline=deadline))
    return outcome.message if isinstance(outcome, Failure) else "answered"


asyncio.run(main())
