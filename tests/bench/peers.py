"""Others that do part of the job, measured in the same turns when they are on PATH: nginx as a plain proxy, and mcp-proxy.

Nothing is installed or fetched for it, and a run without them is whole: they only give the rates something to be held against.
"""

import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench.links import Target
from tests.bench.processes import Process, child_environment

Start = Callable[[Path, Target, int], tuple[Target, Process]]

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream direct {{ server 127.0.0.1:{upstream}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 100000000;
    location / {{ proxy_pass http://direct; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def present() -> dict[str, Start]:
    """The peers on PATH, by name, and how each is started."""
    return {name: start for name, start in (("nginx", _nginx), ("mcp-proxy", _mcp_proxy)) if shutil.which(name)}


def _nginx(folder: Path, direct: Target, core: int) -> tuple[Target, Process]:
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, upstream=direct.port, port=port))
    errors = str(folder / "nginx.log")
    command = ["nginx", "-p", str(folder), "-c", str(config), "-e", errors]
    process = Process("nginx", command, core=core, folder=folder, fds=[], env=child_environment())
    return Target("nginx", port, folder=direct.folder), process


def _mcp_proxy(folder: Path, direct: Target, core: int) -> tuple[Target, Process]:
    """Its remote is the same upstream as a stdio child, which its CPU therefore includes."""
    port = _free_port()
    served = [sys.executable, "-m", "tests.bench.upstream", "--stdio"]
    options = ["--port", str(port), "--pass-environment", "--log-level", "ERROR"]
    command = ["mcp-proxy", *options, "--", *served]
    process = Process("mcp-proxy", command, core=core, folder=folder, fds=[], env=child_environment())
    return Target("mcp-proxy", port), process


def _free_port() -> int:
    """These cannot inherit a listening socket; what was free a moment ago has to do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
