"""Whether a key opens, decided from its dates and `now`. Pure.

active ──generate again──▶ retiring ──grace over──▶ retired
   │ expiry passed ▶ expired        │ revoke, from any of them ▶ revoked
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from keys.principal import Principal

Status = Literal["active", "retiring", "retired", "expired", "revoked"]

# Clocks of nodes differ: a key that has ended by its date still opens this long. Revoking has no leeway.
LEEWAY = timedelta(minutes=5)


def ends_at(expires_at: datetime | None, retires_at: datetime | None) -> datetime | None:
    """The earlier of the ends a key has, if it has any."""
    return min((end for end in (expires_at, retires_at) if end is not None), default=None)


def status(
    now: datetime, *, expires_at: datetime | None, retires_at: datetime | None, revoked_at: datetime | None
) -> Status:
    """The word an operator reads in `mcpkey list`."""
    if revoked_at is not None:
        return "revoked"
    if expires_at is not None and expires_at <= now:
        return "expired"
    if retires_at is None:
        return "active"
    return "retired" if retires_at <= now else "retiring"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key that is not revoked, as a worker holds it in memory."""

    principal: Principal
    hash: str
    ends_at: datetime | None = None

    def opens(self, now: datetime) -> bool:
        return self.ends_at is None or now < self.ends_at + LEEWAY
