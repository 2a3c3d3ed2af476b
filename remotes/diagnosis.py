"""What is wrong with a remote, in the words of an operator: which step failed, the word for it, and what to do next.

Pure. A transport says what it saw (`Failure`); only together with how far the connection had come does that become advice.
Nothing here may quote a URL, an argument or a header: they can hold credentials. A host and a port cannot.
"""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from remotes.config.snapshot import RemoteSpec
from remotes.upstream.outcome import Failure, Fault


class Phase(StrEnum):
    """The steps of a first contact, in their order. A process has `spawn` where an address has the first four."""

    SPAWN = "spawn"
    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    HTTP = "http"
    AUTH = "auth"
    HANDSHAKE = "handshake"
    LIST = "list"

    @property
    def order(self) -> int:
        return list(Phase).index(self)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    error: str
    phase: Phase
    message: str
    hint: str


# The word for scripts; a fault that is not listed goes by its own name. "timeout" and "auth_expired" are the guide's.
_WORDS = {Fault.NOT_SENT: "unreachable", Fault.BROKEN: "connection_lost", Fault.UNAUTHORIZED: "auth_expired"}
_DOING = {
    Phase.SPAWN: "starting it",
    Phase.DNS: "looking up its host name",
    Phase.TCP: "connecting",
    Phase.TLS: "in the TLS handshake",
    Phase.HTTP: "waiting for an HTTP answer",
    Phase.AUTH: "authenticating",
    Phase.HANDSHAKE: "shaking hands",
    Phase.LIST: "listing its tools",
}
_FORBIDDEN = (401, 403)
_KNOWN = frozenset(str(phase) for phase in Phase)


def overrun(name: str, phase: Phase, after_s: float) -> Failure:
    """Its time was up while it was in `phase`."""
    return Failure(Fault.TIMEOUT, phase, f"{name}: time was up after {after_s:.2g} s, {_DOING[phase]}")


def diagnose(spec: RemoteSpec, failure: Failure, reached: Phase, *, noise: int = 0) -> Diagnosis:
    """`reached`: the step the connection was in when it failed, as far as that could be watched.

    `noise`: lines that a process wrote to its stdout and that were no messages.
    """
    phase = _phase(spec, failure, reached)
    error = "not_started" if phase is Phase.SPAWN else _WORDS.get(failure.fault, str(failure.fault))
    if noise:
        lines = "a line" if noise == 1 else f"{noise} lines"
        message = f"{failure.told}; it wrote {lines} to stdout that {'is' if noise == 1 else 'are'} no MCP"
        return Diagnosis(error, phase, message, _noise_hint(spec))
    return Diagnosis(error, phase, failure.told, _hint(spec, failure, phase))


def _phase(spec: RemoteSpec, failure: Failure, reached: Phase) -> Phase:
    """What the transport knows beats what was watched; its vaguer words ("answer", "send") mean: where it was."""
    if failure.status in _FORBIDDEN:
        return Phase.AUTH
    if reached is Phase.LIST and failure.phase not in ("dns", "tcp", "tls"):
        return Phase.LIST
    if failure.phase in _KNOWN:
        return Phase(failure.phase)
    if spec.transport == "stdio" and failure.fault in (Fault.BROKEN, Fault.NOT_SENT):
        return Phase.SPAWN  # it ended before it had said anything
    return reached


def _hint(spec: RemoteSpec, failure: Failure, phase: Phase) -> str:
    timed_out = failure.fault is Fault.TIMEOUT
    match phase:
        case Phase.SPAWN:
            return _spawn_hint(spec, failure)
        case Phase.DNS if "allow_private_networks" in failure.message:
            return "name its network under allow_private_networks, if it is meant to be reached"
        case Phase.DNS:
            host = urlsplit(spec.url).hostname
            return f"check the host name in its url, and this machine's name server: getent hosts {host}"
        case Phase.TCP if timed_out:
            return f"nothing answers at {_address(spec)}: check the address, and the firewalls on the way"
        case Phase.TCP:
            return f"is the server running, and does it listen at {_address(spec)}?"
        case Phase.TLS:
            return f"look at what it presents: openssl s_client -connect {_address(spec)}; plain HTTP needs http:// in its url"
        case Phase.HTTP:
            return _http_hint(spec, failure)
        case Phase.AUTH if failure.status == 403:
            return f"the credential of {spec.name} is known but may not do this: give it the right, or use another"
        case Phase.AUTH if failure.fault is not Fault.UNAUTHORIZED:
            return f"its authorization server gives no token now, and is asked again: look at it, and at the auth of {spec.name}"
        case Phase.AUTH if any(name.lower() == "authorization" for name in spec.headers):
            return f"renew the credential in the headers of {spec.name}: mcpconfig show"
        case Phase.AUTH:
            return f"log in: mcp remote login {spec.name}; or write a fixed token into its headers"
        case Phase.HANDSHAKE if spec.transport == "stdio" and timed_out:
            return "it runs but says nothing: is it an MCP server on stdio, and does it need longer (list_timeout)?"
        case Phase.HANDSHAKE:
            return (
                "what answers there does not speak MCP as configured: check the path in its url, and its type and era"
            )
        case Phase.LIST:
            return f"it greets but cannot list its tools: look at its own log, or raise list_timeout of {spec.name}"


def _spawn_hint(spec: RemoteSpec, failure: Failure) -> str:
    if failure.fault is Fault.NOT_SENT and spec.cwd and failure.detail.endswith(repr(spec.cwd)):
        return "the folder in its `cwd` does not exist or cannot be entered: make it, or correct `cwd`"
    if failure.fault is Fault.NOT_SENT:
        return f"is {spec.command} installed, executable and on PATH? an absolute path always works"
    return f"run {spec.command} by hand with its arguments: its last words are in the message"


def _noise_hint(spec: RemoteSpec) -> str:
    return f"is {spec.command} an MCP server on stdio, with these arguments? what it has to say to people belongs on stderr"


def _http_hint(spec: RemoteSpec, failure: Failure) -> str:
    if 300 <= failure.status < 400:
        return "redirects are not followed: put the address it moved to into its url"
    if failure.status == 429:
        return "it asks for fewer requests: raise probe_interval, or ask for a higher limit"
    if 400 <= failure.status < 500:
        return "a server answers, but offers no MCP there: check the path in its url (often /mcp or /sse)"
    if failure.status >= 500:
        return "the server is there and fails: look at its own log"
    if failure.fault is Fault.TIMEOUT:
        return f"{_address(spec)} accepts connections and does not answer: look at the server, restart it"
    return f"what listens at {_address(spec)} does not speak HTTP: check the port, and https:// against http://"


def _address(spec: RemoteSpec) -> str:
    parts = urlsplit(spec.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
