"""What a worker without Redis and PostgreSQL has in memory, by name: whatever is loaded stays for its whole life."""

import os
import subprocess
import sys

from tests.component.real_gateway import ROOT

UNUSED = {
    "OpenSSL",
    "cbor2",
    "celery",
    "cffi.cparser",
    "click",
    "mcp",
    "opentelemetry",
    "psycopg",
    "pygments",
    "redis",
    "requests",
}
LOADS = """
import sys
from gateway.serving.server import serve
from mcpserver import asgi
from gateway.management.commands import mcpgateway
from mcpserver import urls
print(*sys.modules)
"""


def test_a_single_worker_loads_nothing_that_it_does_not_use() -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "mcpserver.settings", "SECRET_KEY": "x"}
    environment |= {
        "DATABASE_URL": "sqlite:///:memory:",
        "REDIS_URL": "",
        "MCP_WORKERS": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert UNUSED & set(done.stdout.split()) == set()
