"""The words an operator reads for a remote, and how they follow from facts.

| word            | meaning |
| --------------- | ------- |
| `healthy`       | its last contact succeeded |
| `degraded`      | its circuit breaker, or that of some of its tools, is not closed |
| `unhealthy`     | its last contact failed, and none succeeded since |
| `auth_expired`  | it refused our credential |
| `misconfigured` | a variable its configuration names is not set |
| `disabled`      | switched off in the configuration |
| `unknown`       | not contacted yet |
"""

from enum import StrEnum

from remotes.config.snapshot import RemoteSpec
from remotes.upstream.outcome import Failure, Fault


class Status(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    AUTH_EXPIRED = "auth_expired"
    MISCONFIGURED = "misconfigured"
    DISABLED = "disabled"
    UNKNOWN = "unknown"


def of(spec: RemoteSpec, *, reached: bool, failure: Failure | None, degraded: bool = False) -> Status:
    """`reached`: some contact succeeded; `failure`: the last contact's, None when it succeeded; `degraded`: a circuit is open."""
    if not spec.enabled:
        return Status.DISABLED
    if spec.missing:
        return Status.MISCONFIGURED
    if failure is not None and failure.fault is Fault.UNAUTHORIZED:
        return Status.AUTH_EXPIRED
    if degraded:
        return Status.DEGRADED
    if failure is not None:
        return Status.UNHEALTHY
    return Status.HEALTHY if reached else Status.UNKNOWN


def refusal(spec: RemoteSpec) -> str | None:
    """Why a remote cannot be called at all, in words that say what to do; None when it can."""
    if not spec.enabled:
        return f"{spec.name} is disabled: its entry in the configuration says `enabled: false`"
    if spec.missing:
        named = ", ".join(f"${{{one.variable}}} (in {one.field})" for one in spec.missing)
        return f"{spec.name} is misconfigured: {named} is not set in the gateway's environment"
    return None
