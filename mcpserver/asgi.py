"""The application: MCP paths to the raw ASGI endpoint, everything else to Django.

The gateway's own server (`manage.py mcpgateway`) starts and stops `runtime` around it. Under another ASGI server the first
request starts it; then there is no drain, and no limit on bodies but that server's own.
"""

import asyncio
import os
from collections.abc import Awaitable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mcpserver.settings")
django.setup()

from channels.routing import ProtocolTypeRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402

from gateway.cluster.neighbours import Neighbours  # noqa: E402
from gateway.endpoint.app import PATHS, Endpoint  # noqa: E402
from gateway.endpoint.gate import Gate  # noqa: E402
from gateway.endpoint.http import Receive, Scope, Send  # noqa: E402
from gateway.runtime import Runtime  # noqa: E402
from mcpserver.lib.clock import SystemClock  # noqa: E402
from monitoring import calls, facts  # noqa: E402
from monitoring.holders import Pages  # noqa: E402


def _cluster(neighbours: Neighbours) -> Any:
    """Imported here: a single worker needs none of it."""
    from gateway.cluster.shared import Cluster, address
    from gateway.cluster.store import Store

    here = settings.MCP_NODE_URL or address(settings.HOST, settings.PORT, settings.REDIS_URL)
    store = Store(settings.REDIS_URL, settings.SECRET_KEY.encode())
    return Cluster(store, neighbours, here, SystemClock().monotonic, of_workers=settings.MCP_WORKERS)


runtime = Runtime(
    limits=settings.LIMITS,
    clock=SystemClock(),
    secret=settings.SECRET_KEY.encode(),
    config=settings.MCP_CONFIG,
    environment=os.environ,
    berths=settings.MCP_RUN_DIR if settings.MCP_WORKERS > 1 else None,
    run_dir=settings.MCP_RUN_DIR,
    data_dir=settings.MCP_DATA_DIR,
    share=_cluster if settings.REDIS_URL else None,
    record=calls.write,
)
_gate = Gate(
    runtime.authenticator,
    hosts=settings.ALLOWED_HOSTS,
    origins=settings.MCP_ALLOWED_ORIGINS,
    proxies=settings.PROXIES,
)
_endpoint = Endpoint(runtime, _gate)
_starting = asyncio.Lock()


async def start(*, last_known_good: bool = False) -> None:
    """Load the runtime and show it to health; GatewayError says why it cannot. `last_known_good`: as in `runtime.start`."""
    await runtime.start(last_known_good=last_known_good)
    facts.provide(runtime.status)


async def _first(scope: Scope, receive: Receive, send: Send) -> None:
    async with _starting:
        if not runtime.started:
            await start()
    await _endpoint(scope, receive, send)


_pages = Pages(get_asgi_application(), _gate)


def _http(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """A lookup instead of Channels' URLRouter, which tries patterns and copies the scope: 4 µs of each call."""
    if scope["path"] not in PATHS:
        return _pages(scope, receive, send)
    return _endpoint(scope, receive, send) if runtime.started else _first(scope, receive, send)


application = ProtocolTypeRouter({"http": _http})
