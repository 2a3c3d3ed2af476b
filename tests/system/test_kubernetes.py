"""The Kubernetes manifests, as far as they go without a cluster: their probes against a real gateway, their commands run."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml

from mcpserver.lib.limits import Limits
from tests.system import gateway
from tests.system.gateway import ROOT, Gateway, eventually, running

MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "mcp-server.yaml").read_text()))
POD = next(one for one in MANIFESTS if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
PATIENCE_S = 20.0


def probe(running: Gateway, kind: str) -> bool:
    """As the kubelet asks: a new connection, under the pod's address, any status from 200 to 399 is a success."""
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", CONTAINER[kind]["httpGet"]["path"], headers={"Host": "10.1.2.3:3000"})
        return 200 <= connection.getresponse().status < 400
    return False


def test_a_pod_that_drains_is_taken_out_of_service_while_its_calls_end() -> None:
    with running({"demo": DEMO}, MCP_SHUTDOWN_GRACE_S="20") as one:
        eventually(
            one.remotes, lambda found: found["demo"]["status"] == "healthy", within_s=PATIENCE_S, what="demo is healthy"
        )
        assert [probe(one, kind) for kind in ("startupProbe", "livenessProbe", "readinessProbe")] == [True, True, True]
        begun, answer = threading.Event(), list[dict[str, Any]]()
        caller = threading.Thread(target=lambda: answer.append(slow_call(one, begun)))
        caller.start()
        assert begun.wait(PATIENCE_S)
        one.process.send_signal(signal.SIGTERM)
        eventually(
            lambda: probe(one, "readinessProbe"), lambda ready: not ready, within_s=PATIENCE_S, what="it is not ready"
        )
        assert caller.is_alive(), "it was to be unready before its calls had ended"
        caller.join(PATIENCE_S)
        assert answer[0]["result"]["content"][0]["text"] == "4 steps in 4.0 s"


def slow_call(one: Gateway, begun: threading.Event) -> dict[str, Any]:
    """The answer of a call that takes four seconds; `begun` is set when its remote has said so."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": "demo__slow", "arguments": {"seconds": 4, "steps": 4}, "_meta": meta | {"progressToken": 1}}
    headers = {"Authorization": f"Bearer {one.key}", "Content-Type": "application/json"}
    headers |= {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28"}
    connection = http.client.HTTPConnection(one.url.removeprefix("http://"), timeout=PATIENCE_S)
    with contextlib.closing(connection):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        connection.request("POST", "/mcp", body, headers | {"Mcp-Method": "tools/call", "Mcp-Name": "demo__slow"})
        response = connection.getresponse()
        message: dict[str, Any] = {}
        while line := response.readline():
            if line.startswith(b"data:"):
                message = json.loads(line[5:])
                begun.set()
        return message


def test_the_pod_is_given_longer_than_it_takes_to_stop() -> None:
    wait_s = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= Limits().shutdown_grace_s + wait_s + 5
    probing = CONTAINER["readinessProbe"]
    assert probing["periodSeconds"] * probing["failureThreshold"] < wait_s


def test_the_first_start_waits_for_a_first_key(tmp_path: Path) -> None:
    """The init container's own words, with the launchers that the image has on its PATH."""
    (tmp_path / "data").mkdir()
    environment = gateway._environment(tmp_path) | {"MCP_PYTHON": sys.executable, "HOSTNAME": "mcp-server-0"}
    environment["PATH"] = os.pathsep.join([str(ROOT / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    (prepare,) = POD["initContainers"]
    process = subprocess.Popen(
        prepare["command"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert "kubectl exec -it mcp-server-0 -c prepare -- mcpkey generate main" in told
        done = subprocess.run(
            told.split(" -- ")[1].split(),
            cwd=ROOT,
            env=environment,
            capture_output=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert json.loads(done.stdout)["key"]
        assert process.wait(PATIENCE_S) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_an_edit_of_the_config_map_is_applied(tmp_path: Path) -> None:
    """The kubelet's way: a folder of the new version, and one rename of the link that all files are seen through."""
    mount = next(one for one in CONTAINER["volumeMounts"] if one["name"] == "config")
    assert "subPath" not in mount

    def version(name: str, remotes: dict[str, Any]) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mcp-config.yaml").write_text(gateway.configuration(remotes))
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    version("..1", {})
    (tmp_path / "mcp-config.yaml").symlink_to("..data/mcp-config.yaml")
    with running({}, MCP_CONFIG=str(tmp_path / "mcp-config.yaml")) as one:
        assert one.remotes() == {}
        version("..2", {"demo": DEMO})
        eventually(one.remotes, lambda found: list(found) == ["demo"], within_s=PATIENCE_S, what="the edit is applied")
