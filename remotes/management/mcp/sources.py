"""Where the `mcp` command gets its facts: the running gateway over its control socket, the configuration, the database."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings

from mcpserver.lib import control
from mcpserver.lib.command import nearest
from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import Exit, GatewayError
from remotes import selectors, services, status
from remotes.config import files, load, revisions
from remotes.config.snapshot import TIMEOUT_S, RemoteSpec, Snapshot

ASK_S = 2.0
# The gateway lets remotes in their first load take this long before it lists without them, or answers a call.
LISTING_S = 15.0


# The gateway.


def ask(request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    return control.ask(Path(settings.MCP_RUN_DIR) / "gateway-0.sock", dict(request), timeout_s=timeout_s)


def ask_all(request: Mapping[str, Any], *, timeout_s: float) -> list[dict[str, Any]]:
    """The answers of all workers of this machine; GatewayError `not_running` when there is none."""
    answers: list[dict[str, Any]] = []
    for path in sorted(Path(settings.MCP_RUN_DIR).glob("gateway-*.sock")):
        with suppress(GatewayError):
            answers.append(control.ask(path, dict(request), timeout_s=timeout_s))
    return answers or [ask(request, timeout_s=timeout_s)]


def granted(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, or its error as this process's own."""
    if answer.get("ok"):
        return answer
    code = str(answer.get("error"))
    exit_code = Exit.NOT_FOUND if code == "not_found" else Exit.FAILED
    raise GatewayError(code, str(answer.get("message")), hint=str(answer.get("hint", "")), exit_code=exit_code)


def patience_s() -> float:
    """Longer than the slowest remote may take: that a call takes too long is the gateway's to say."""
    try:
        slowest_s = max((spec.timeout_s for spec in configured().remotes.values()), default=TIMEOUT_S)
    except GatewayError:  # What is wrong with the file now does not keep the gateway from serving what it read before.
        slowest_s = TIMEOUT_S
    return slowest_s + LISTING_S


# The configuration.


def configured() -> Snapshot:
    """What the gateway runs, or would after its next start: an edit of the file that is not applied yet comes first."""
    return services.validated(configured_text(), path=Path(settings.MCP_CONFIG))


def configured_text() -> str:
    path = Path(settings.MCP_CONFIG)
    head = _head()
    if head is None:
        return files.read(path)
    with suppress(GatewayError):  # A file that cannot be used changes nothing: the head is what runs.
        text = files.read(path)
        if not revisions.is_known(load.digest(text)):
            services.validated(text, path=path)
            return text
    return head


def _head() -> str | None:
    try:
        found = selectors.head()
    except UNUSABLE:  # Away, or not made yet: the file can be read all the same.
        return None
    return found[2] if found else None


def stored_health() -> dict[str, dict[str, Any]]:
    try:
        return selectors.health()
    except UNUSABLE:
        return {}


def known(spec: RemoteSpec) -> dict[str, Any]:
    """What the configuration alone tells; the word only where it decides it."""
    told: dict[str, Any] = {"transport": spec.transport, "missing_env": [one.variable for one in spec.missing]}
    if status.refusal(spec) is not None:
        told["status"] = str(status.of(spec, reached=False, failure=None))
    return told


def named(name: str, snapshot: Snapshot) -> RemoteSpec:
    spec = snapshot.remotes.get(name)
    if spec is None:
        raise not_found("remote", name, list(snapshot.remotes), "see them with: mcp remote list")
    return spec


def not_found(what: str, name: str, names: list[str], otherwise: str) -> GatewayError:
    meant = nearest(name, names)
    return GatewayError(
        "not_found", f"there is no {what} {name}",
        hint=f"did you mean {meant}?" if meant else otherwise, exit_code=Exit.NOT_FOUND, names=names,
    )  # fmt: skip
